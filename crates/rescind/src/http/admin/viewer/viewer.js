// Shows openapi.json. Every text is set as a text, so none can become markup.
"use strict";

const element = (name, ...content) => {
  const made = document.createElement(name);
  made.append(...content);
  return made;
};

// The schema with its references put in, each once on the way down.
const whole = (schema, all, seen = []) => {
  if (Array.isArray(schema)) return schema.map((part) => whole(part, all, seen));
  if (schema === null || typeof schema !== "object") return schema;
  const name = schema.$ref?.split("/").pop();
  if (name) return seen.includes(name) ? name : whole(all[name] ?? {}, all, [...seen, name]);
  return Object.fromEntries(Object.entries(schema).map(([key, part]) => [key, whole(part, all, seen)]));
};

const show = ({ info, paths, components }) => {
  const json = (schema) => element("pre", JSON.stringify(whole(schema, components.schemas), null, 1));
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      const { summary, parameters = [], requestBody, responses } = operation;
      const role = element("em", operation["x-role"]);
      const head = element("summary", role, element("b", method.toUpperCase()), element("code", path), ` ${summary}`);
      const shown = element("details", head);
      for (const { name, in: place, description = "", required } of parameters) {
        const facts = ` in ${place}${required ? ", required" : ""}. ${description}`;
        shown.append(element("p", element("code", name), facts));
      }
      const bodies = [["Body", requestBody], ["Answer", responses["200"]]];
      for (const [title, body] of bodies) {
        for (const [type, { schema }] of Object.entries(body?.content ?? {})) {
          shown.append(element("p", `${title}: ${type}`), json(schema));
        }
      }
      shown.append(element("p", `Errors: ${Object.keys(responses).filter((status) => status !== "200").join(", ")}`));
      return shown;
    }));
  const link = element("a", "openapi.json");
  link.href = "openapi.json";
  document.querySelector("main").replaceChildren(
    element("h1", info.title), element("p", info.description), element("p", link), ...operations);
};

fetch("openapi.json").then((answer) => answer.json()).then(show);

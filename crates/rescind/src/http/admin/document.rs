//! The description of the admin API (OpenAPI 3.1), from its operations.

use hyper::Method;
use rescind_base::model::Role;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};

use super::{
    PREFIX, creation,
    operation::{Operation, Output, Reach, Shape},
};

const ABOUT: &str = "What operators do: the same operations as the command line's. Over the network, each request has a management \
    token (`rescind admin token create`) in its `Authorization` header. A change is answered when every node and \
    attached verifier applies it; the header `Rescind-Receipt` of the answer tells who acknowledged it.";

/// What each status of an error means here.
const ERRORS: [(&str, &str); 11] = [
    ("400", "The request is invalid, or a rule forbids the action"),
    ("401", "The management token is missing, unknown, revoked or expired"),
    (
        "403",
        "The token's role or its clients do not permit this, or the request comes from a page of another origin",
    ),
    ("404", "There is nothing there, or the token may not see it"),
    ("409", "The idempotency key was used before"),
    ("412", "The client is not of the version in If-Match"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
    ("431", "The headers are too large"),
    ("500", "A fault of the service, whose log has the cause. A change may have been made"),
    ("503", "The service cannot answer safely now. A change may have been made"),
];

pub(super) fn of(operations: &[Operation]) -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for operation in operations {
        let path = paths.entry(format!("{PREFIX}{}", operation.path)).or_insert_with(|| json!({}));
        let method = operation.method.as_str().to_ascii_lowercase();
        path[method] = described(operation, &mut schemas);
    }
    schemas.insert("Problem".into(), problem());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rescind admin API",
            "version": "1",
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "managementToken": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "managementToken": { "type": "http", "scheme": "bearer" } },
            "responses": errors(),
            "schemas": schemas,
        },
    })
}

fn described(operation: &Operation, schemas: &mut Map<String, Value>) -> Value {
    let Operation { method, path, id, summary, role, reach, versioned, creates, .. } = operation;
    let has_body = ![Method::GET, Method::DELETE].contains(method);
    let mut described = json!({
        "operationId": id,
        "summary": summary,
        "x-role": role.name(),
        "x-changes": changes(operation),
        "x-for-bound-tokens": *reach == Reach::Clients,
    });
    let mut parameters = vec![];
    if let Some(schema) = &operation.parameter {
        let name = path.split(['{', '}']).nth(1);
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    match &operation.input {
        Some(input) if has_body => {
            let required = value(&input.schema)["required"].is_array();
            let content = json!({ "application/json": { "schema": referred(input, schemas) } });
            described["requestBody"] = json!({ "required": required, "content": content });
        }
        Some(input) => {
            schemas.extend(input.parts.iter().map(|(name, schema)| (name.clone(), value(schema))));
            parameters.extend(in_query(input));
        }
        None => {}
    }
    let mut header = |name, about| {
        let schema = json!({ "type": "string" });
        parameters.push(json!({ "name": name, "in": "header", "description": about, "schema": schema }));
    };
    if *creates {
        let about =
            "1 to 128 visible ASCII characters. A request that repeats the key within a day creates nothing";
        header(creation::HEADER, about);
    }
    let changes_version = *versioned && *method != Method::GET;
    if changes_version {
        header("If-Match", "The client's ETag. Another version of the client is not changed");
    }
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    let mut responses = Map::new();
    responses.insert("200".into(), success(operation, schemas));
    let applies = |status: &str| match status {
        // A filter may name a client, too.
        "404" => operation.parameter.is_some() || operation.reach == Reach::Clients,
        "409" => *creates,
        "412" => changes_version,
        "413" | "415" => has_body,
        _ => true,
    };
    for (status, _) in ERRORS.iter().filter(|(status, _)| applies(status)) {
        responses.insert((*status).into(), json!({ "$ref": format!("#/components/responses/{status}") }));
    }
    described["responses"] = responses.into();
    described
}

fn changes(operation: &Operation) -> bool {
    operation.role > Role::Viewer && operation.method != Method::GET
}

fn success(operation: &Operation, schemas: &mut Map<String, Value>) -> Value {
    let header = |about| json!({ "description": about, "schema": { "type": "string" } });
    let mut headers = Map::new();
    if operation.versioned {
        headers.insert("ETag".into(), header("The client's version, for If-Match"));
    }
    if operation.pages {
        headers.insert("Link".into(), header("With rel=\"next\": the next page"));
    }
    if changes(operation) {
        headers.insert("Rescind-Receipt".into(), header("nodes=…, acknowledged=…, milliseconds=…"));
    }
    let (media_type, schema) = match &operation.output {
        Output::Json(shape) => ("application/json", referred(shape, schemas)),
        Output::File(media_type) => (*media_type, json!({})),
    };
    let mut success = json!({ "description": "Done", "content": { media_type: { "schema": schema } } });
    if !headers.is_empty() {
        success["headers"] = headers.into();
    }
    success
}

/// Adds a schema to `schemas`, and returns a reference to it. A list has no name of its own.
fn referred(shape: &Shape, schemas: &mut Map<String, Value>) -> Value {
    schemas.extend(shape.parts.iter().map(|(name, schema)| (name.clone(), value(schema))));
    let schema = value(&shape.schema);
    if schema["type"] == "array" {
        return schema;
    }
    schemas.insert(shape.name.clone(), schema);
    json!({ "$ref": format!("#/components/schemas/{}", shape.name) })
}

/// The members of an object, as parameters of a query.
fn in_query(input: &Shape) -> Vec<Value> {
    let schema = value(&input.schema);
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.contains(&name.into()));
    let members = schema["properties"].as_object().into_iter().flatten();
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        // What a query lacks is absent, and not null.
        if let Some(types) = schema["type"].as_array() {
            schema["type"] = types[0].clone();
        }
        let mut parameter =
            json!({ "name": name, "in": "query", "required": required(name), "schema": schema });
        if let Some(description) = description {
            parameter["description"] = description;
        }
        parameter
    };
    members.map(parameter).collect()
}

fn value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

fn errors() -> Map<String, Value> {
    let problem =
        json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
    let response = |(status, about): &(&str, &str)| {
        ((*status).to_owned(), json!({ "description": about, "content": problem }))
    };
    ERRORS.iter().map(response).collect()
}

fn problem() -> Value {
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "description": "An error (RFC 9457), with the envelope of every error of the service in `error`.",
        "required": ["type", "title", "status", "detail", "error"],
        "properties": {
            "type": text,
            "title": text,
            "status": { "type": "integer" },
            "detail": text,
            "created": { "type": "string", "description": "The path of what an earlier request created" },
            "error": {
                "type": "object",
                "required": ["name", "code", "message"],
                "properties": { "name": text, "code": text, "message": text },
            },
        },
    })
}

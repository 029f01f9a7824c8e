// What plain pages cannot do: copying, and the focus after a part of a page was replaced. All else works without this.
"use strict";

// Shows what needs a script. A secret is left by its button, and by nothing else.
const show = (root) => {
  root.querySelectorAll("[data-copy][hidden]").forEach((button) => { button.hidden = !navigator.clipboard; });
  root.querySelectorAll("dialog.once[open]:not(:modal)").forEach((dialog) => {
    dialog.close();
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("keydown", (event) => { if (event.key === "Escape") event.preventDefault(); });
    dialog.showModal();
  });
};

document.addEventListener("DOMContentLoaded", () => show(document));

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.firstChild.textContent = "Copied";
});

// The whole content was replaced: its beginning is read next.
document.addEventListener("htmx:after:swap", () => {
  show(document);
  const main = document.getElementById("main");
  if (document.activeElement === document.body) (main.querySelector("[autofocus]") || main).focus();
});

// Rows of jobs: they change in place; new ones wait behind a button.

import { refreshRegions, slowly } from "./regions.js";
import { number } from "./words.js";

const button = document.querySelector("[data-new-rows]");
const fresh = new Set();
const loaded = Date.now() / 1000;
const redraw = slowly(() => refreshRegions(), 1000);
const redrawFigures = slowly(() => refreshRegions(), 4000);

export function showRow(message) {
  const rows = document.querySelectorAll(`[data-rows] tr[data-job="${message.id}"]`);
  for (const row of rows) replace(row, message);
  if (button) { if (!rows.length && message.created > loaded) redrawFigures(); } // whether it belongs here, the server knows
  else if (!rows.length || message.status !== "RUNNING") redraw();
}

function replace(row, message) {
  if (Number(row.dataset.revision) > message.revision) return;
  const holder = document.createElement("template");
  holder.innerHTML = message.html.trim();
  swap(row, holder.content.firstElementChild);
}

function swap(row, next) {
  const bar = row.querySelector("progress"), nextBar = next.querySelector("progress");
  if (bar && nextBar && bar.className === nextBar.className) { bar.value = nextBar.value; nextBar.replaceWith(bar); }
  const choice = row.querySelector(".c-choose");
  next.querySelector(".c-choose")?.remove();
  if (choice) next.prepend(choice);  // the server's row does not know what is chosen
  const focused = row.contains(document.activeElement);
  row.replaceWith(next);
  if (focused && !next.contains(document.activeElement)) next.querySelector("a")?.focus();
}

// A message may be lost: whenever the page is drawn again, rows that are behind are taken from there.
function catchUp(event) {
  for (const next of event.detail.querySelectorAll("[data-rows] tr[data-job]")) {
    const row = document.querySelector(`[data-rows] tr[data-job="${next.dataset.job}"]`);
    if (row && Number(next.dataset.revision) > Number(row.dataset.revision)) swap(row, next);
    if (!row && button && Number(next.dataset.created) > loaded) announce(next.dataset.job);
  }
}

function announce(id) {
  fresh.add(id);
  button.hidden = false;
  button.textContent = interpolate(ngettext("%s new job", "%s new jobs", fresh.size), [number.format(fresh.size)]);
}

export function showStats() { redrawFigures(); }

function countChosen(form) {
  const chosen = document.querySelectorAll(".c-choose input:checked").length;
  const all = form.querySelector("[name=everything]");
  form.querySelector("[data-chosen]").textContent = all.checked ? interpolate(gettext("Chosen: %s"), [all.parentElement.textContent.trim()]) : chosen ? interpolate(ngettext("%s job chosen", "%s jobs chosen", chosen), [number.format(chosen)]) : gettext("Choose jobs to act on several at once");
}

export function startList() {
  document.addEventListener("regions", catchUp);
  const bulk = document.querySelector("[data-bulk]");
  if (bulk) document.addEventListener("change", (event) => { if (event.target.matches(".c-choose input, [name=everything]")) countChosen(bulk); });
  button?.addEventListener("click", () => location.reload());
  document.querySelector("[data-filters]")?.addEventListener("change", (event) => event.currentTarget.requestSubmit());
}

// Rows of jobs: they change in place; those that come to belong here wait behind a button.

import { refreshRegions, released, slowly } from "./regions.js";
import { number } from "./words.js";

const button = document.querySelector("[data-new-rows]");
const fresh = new Set();
const watched = document.querySelector("[data-watches]")?.dataset.watches; // of a page about one job that is not its own
let socket = null;
const redraw = slowly(() => refreshRegions(), 1000);
const redrawFigures = slowly(() => refreshRegions(), watched ? 10000 : 4000);

export async function showRow(message) {
  if (watched && watched !== message.id) return;
  await released();
  const rows = document.querySelectorAll(`[data-rows] tr[data-job="${message.id}"]`);
  for (const row of rows) replace(row, message);
  if (button || watched) { if (!rows.length) redrawFigures(); } // whether it belongs here, the server knows
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
  const focused = row.contains(document.activeElement) && document.activeElement;
  const choice = row.querySelector(".c-choose");
  next.querySelector(".c-choose")?.remove();
  if (choice) next.prepend(choice);  // the server's row does not know what is chosen
  row.replaceWith(next);
  if (focused) (focused.isConnected ? focused : next.querySelector("a"))?.focus({ preventScroll: true });
}

// A message may be lost: whenever the page is drawn again, rows that are behind are taken from there, and the socket is asked
// for those that do not belong here any more.
function catchUp(event) {
  const rest = new Map([...document.querySelectorAll("[data-rows] tr[data-job]")].map((row) => [row.dataset.job, row]));
  fresh.clear();
  for (const next of event.detail.querySelectorAll("[data-rows] tr[data-job]")) {
    const row = rest.get(next.dataset.job);
    rest.delete(next.dataset.job);
    if (!row) fresh.add(next.dataset.job);
    else if (Number(next.dataset.revision) >= Number(row.dataset.revision) && row.textContent.trim() !== next.textContent.trim()) swap(row, next);
  }
  if (!button) return;
  if (rest.size) socket.say({ type: "rows", known: Object.fromEntries([...rest].map(([id, row]) => [id, Number(row.dataset.revision)])) });
  button.hidden = !fresh.size;
  button.textContent = interpolate(ngettext("%s more job", "%s more jobs", fresh.size), [number.format(fresh.size)]);
}

export function showStats() { redrawFigures(); }

function countChosen(form) {
  const chosen = document.querySelectorAll(".c-choose input:checked").length;
  const all = form.querySelector("[name=everything]");
  form.querySelector("[data-chosen]").textContent = all.checked ? interpolate(gettext("Chosen: %s"), [all.parentElement.textContent.trim()]) : chosen ? interpolate(ngettext("%s job chosen", "%s jobs chosen", chosen), [number.format(chosen)]) : gettext("Choose jobs to act on several at once");
}

export function startList(live) {
  socket = live;
  document.addEventListener("regions", catchUp);
  const bulk = document.querySelector("[data-bulk]");
  if (bulk) document.addEventListener("change", (event) => { if (event.target.matches(".c-choose input, [name=everything]")) countChosen(bulk); });
  button?.addEventListener("click", () => location.reload());
  document.querySelector("[data-filters]")?.addEventListener("change", (event) => event.currentTarget.requestSubmit());
}

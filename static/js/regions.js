// Parts of a page that the server draws again, so that first view and live view cannot differ.

import { heard } from "./live.js";

let running = null;
let again = false;

export function refreshRegions(only = null) {
  if (running) { again = true; return running; }
  running = load(only).finally(() => {
    running = null;
    if (again) { again = false; refreshRegions(); }
  });
  return running;
}

async function load(only) {
  let response;
  try {
    // what is no region, such as the lines of a log, need not be made again
    response = await fetch(location.pathname + location.search, { credentials: "same-origin", headers: { "X-Regions": "1" } });
  } catch { return; }
  if (response.redirected || response.status === 404) { location.reload(); return; }
  if (!response.ok) return;
  heard();
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const region of document.querySelectorAll("[data-region]")) {
    if (only && region.id !== only) continue;
    const next = fresh.getElementById(region.id);
    if (!next || region.contains(document.activeElement) && document.activeElement.matches("input, textarea, select")) continue;
    if (region.innerHTML === next.innerHTML) continue;
    keepOpen(region, next);
    const focus = focusPath(region);
    region.replaceChildren(...next.childNodes);
    if (focus !== null) region.querySelectorAll("a, button, summary")[focus]?.focus();
  }
  document.dispatchEvent(new CustomEvent("regions", { detail: fresh }));
}

function keepOpen(region, next) {
  const open = [...region.querySelectorAll("details")].map((details) => details.open);
  next.querySelectorAll("details").forEach((details, n) => { if (n in open) details.open = open[n]; });
}

function focusPath(region) {
  if (!region.contains(document.activeElement)) return null;
  return [...region.querySelectorAll("a, button, summary")].indexOf(document.activeElement);
}

export function slowly(function_, pause) {
  // Run at most once in `pause` ms, and always once more after the last wish.
  let last = 0, timer = null;
  return () => {
    if (timer) return;
    timer = setTimeout(() => { timer = null; last = Date.now(); function_(); }, Math.max(0, last + pause - Date.now()));
  };
}

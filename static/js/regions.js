// Parts of a page that the server draws again, so that first view and live view cannot differ.

import { isAnythingTyped, isChanged } from "./forms.js";
import { drawn, heard } from "./live.js";

const ANSWER_MS = 10000; // what takes longer is asked for anew: a question without an answer would hold up all later ones
const AGAIN_MS = 3000;

let running = null;
let again = false;
let retry = null;

export function refreshRegions(only = null) {
  if (running) { again = true; return running; }
  running = once(only);
  return running;
}

async function once(only) {
  let done = false;
  try {
    done = await load(only);
  } finally {
    running = null;
    drawn(done === true);
    if (done === false) retry ??= setTimeout(() => { retry = null; refreshRegions(); }, AGAIN_MS); // what changed is drawn, if later
    else if (again) { again = false; refreshRegions(); }
  }
}

// True when the page shows what the server said, false when it did not answer, null when somebody types where no place is left.
async function load(only) {
  // what is no region, such as the lines of a log, need not be made again
  let response, text;
  try {
    response = await fetch(location.pathname + location.search, { credentials: "same-origin", headers: { "X-Regions": "1" }, signal: AbortSignal.timeout(ANSWER_MS) });
    text = await response.text();
  } catch { return false; }
  const elsewhere = response.redirected || response.status === 404; // signed out, or no longer ours to see
  if (elsewhere && !isAnythingTyped()) { location.reload(); return true; }
  if (elsewhere || !response.ok) return false;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  heard();
  await released();
  let done = true;
  for (const region of document.querySelectorAll("[data-region]")) {
    if (only && region.id !== only) continue;
    const next = fresh.getElementById(region.id);
    if (next && !redraw(region, next)) done = null;
  }
  document.dispatchEvent(new CustomEvent("regions", { detail: fresh }));
  return done;
}

function redraw(region, next) {
  keepTokens(region, next);
  keepOpen(region, next);
  region.hidden = next.hidden;
  if (region.innerHTML === next.innerHTML) return true;
  const focus = focusIn(region);
  if (!keepForms(region, next)) return false;
  region.replaceChildren(...next.childNodes);
  focus?.();
  return true;
}

// Each drawing of a page has other tokens, of which each is good: alone they are no change.
function keepTokens(region, next) {
  const token = region.querySelector("[name=csrfmiddlewaretoken]")?.getAttribute("value");
  if (token) for (const input of next.querySelectorAll("[name=csrfmiddlewaretoken]")) input.setAttribute("value", token);
}

function keepOpen(region, next) {
  const were = new Map([...region.querySelectorAll("details")].map((details) => [nameOf(details), details.open]));
  for (const details of next.querySelectorAll("details")) details.open = were.get(nameOf(details)) ?? details.open;
}

// Of what it is, which may stand in another place now.
function nameOf(details) {
  const form = details.querySelector("form");
  return form ? sends(form) : details.querySelector("summary").textContent;
}

// Where a form leads, and with what: many lead to the same address.
function sends(form) {
  const values = [...form.querySelectorAll("input[type=hidden]:not([name=csrfmiddlewaretoken])")].map((input) => input.value);
  return [form.getAttribute("action"), ...values].join("\n");
}

// Forms that somebody fills in move over as they are. False where one has no place any more: then the text is worth more than the news.
function keepForms(region, next) {
  const moves = [];
  for (const form of region.querySelectorAll("form")) {
    if (![...form.elements].some((field) => isChanged(field) || (field === document.activeElement && field.matches("input, textarea, select")))) continue;
    const same = [...next.querySelectorAll("form")].find((other) => sends(other) === sends(form));
    if (!same) return false;
    moves.push([same, form]);
  }
  for (const [same, form] of moves) same.replaceWith(form);
  return true;
}

// What gives the focus back to where it was, or to its part of the page if that is gone: never to something else that acts.
function focusIn(region) {
  const active = document.activeElement;
  if (!region.contains(active) || region === active) return null;
  const key = keyOf(active);
  const range = typeof active.selectionStart === "number" ? [active.selectionStart, active.selectionEnd] : null;
  return () => {
    const target = active.isConnected ? active : [...region.querySelectorAll("a, button, summary")].find((node) => keyOf(node) === key);
    if (!target) region.tabIndex = -1;
    (target ?? region).focus({ preventScroll: true });
    if (target === active && range) active.setSelectionRange(...range);
  };
}

function keyOf(node) {
  const form = node.closest("form"), details = node.closest("details");
  const at = node.getAttribute("href") ?? node.getAttribute("formaction") ?? (form ? sends(form) : details ? nameOf(details) : "");
  return [node.tagName, at, node.value ?? "", node.textContent.trim()].join("\n");
}

let pressedAt = 0;
addEventListener("pointerdown", () => { pressedAt = Date.now(); }, true);
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => setTimeout(() => { pressedAt = 0; }), true);

// A button that is replaced while it is pressed gets no click. Who holds longer marks text or has left the window.
export async function released() {
  while (pressedAt && Date.now() - pressedAt < 1500) await new Promise((done) => setTimeout(done, 50));
}

export function slowly(function_, pause) {
  // Run at most once in `pause` ms, and always once more after the last wish.
  let last = 0, timer = null;
  return () => {
    if (timer) return;
    timer = setTimeout(() => { timer = null; last = Date.now(); function_(); }, Math.max(0, last + pause - Date.now()));
  };
}

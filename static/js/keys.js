// The keyboard: single keys click what carries them as data-key; j and k walk through rows. Never inside a field.

const dialog = document.querySelector("[data-keys-help]");
const FIELDS = "input:not([type=checkbox]):not([type=radio]):not([type=button]), select, textarea, [contenteditable]";
let prefix = "", timer = null;

const off = () => localStorage.getItem("keys") === "off";

function press(key) {
  const target = [...document.querySelectorAll(`[data-key="${CSS.escape(key)}"]`)].find((node) => node.checkVisibility());
  if (!target) return false;
  if (target.matches(FIELDS)) { target.focus(); target.select?.(); } else target.click();
  return true;
}

function walk(step) {
  const rows = [...document.querySelectorAll("tr[data-job], tr[data-row]")].filter((row) => row.checkVisibility());
  if (!rows.length) return false;
  const at = rows.indexOf(document.activeElement?.closest("tr"));
  const next = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + step, 0), rows.length - 1)];
  next.querySelector("a.name")?.focus();
  next.scrollIntoView({ block: "nearest" });
  return true;
}

function choose() {
  const box = document.activeElement?.closest("tr")?.querySelector(".c-choose input");
  if (!box) return false;
  box.click();
  return true;
}

function nextError() {
  const lines = [...document.querySelectorAll(".log li.error")];
  if (!lines.length) return press("e");
  const at = lines.findIndex((line) => line.matches("[data-here]"));
  const next = lines[(at + 1) % lines.length];
  if (at >= 0) delete lines[at].dataset.here;
  next.dataset.here = "";
  next.scrollIntoView({ block: "center" });
  return true;
}

function help() {
  if (!dialog) return false;
  if (dialog.open) dialog.close(); else dialog.showModal();
  return true;
}

const ACTS = { j: () => walk(1), k: () => walk(-1), x: choose, e: nextError, "?": help };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.isComposing) return;
  if (event.target.closest?.(FIELDS) || (off() && event.key !== "?")) return;
  if (dialog?.open && event.key !== "?") return;
  const key = prefix + event.key;
  clearTimeout(timer);
  prefix = "";
  if (event.key === "g" && key === "g") {
    prefix = "g ";
    timer = setTimeout(() => { prefix = ""; }, 1200);
    return;
  }
  if (ACTS[key]?.() ?? press(key)) event.preventDefault();
}

export function startKeys() {
  document.addEventListener("keydown", onKey);
  const box = dialog?.querySelector("[data-keys-on]");
  if (!box) return;
  box.checked = !off();
  box.addEventListener("change", () => localStorage.setItem("keys", box.checked ? "on" : "off"));
  document.querySelector("[data-keys-open]")?.addEventListener("click", help);
}

// Before anything is painted.

// The width that was chosen in the foot of a page, so that nothing jumps.
document.documentElement.classList.toggle("wide", localStorage.getItem("width") === "full");

// Without the catalogue of texts, which comes after this, a page speaks English.
globalThis.gettext = (text) => text;
globalThis.ngettext = (one, many, count) => (count === 1 ? one : many);
globalThis.interpolate = (text, values) => values.reduce((said, value) => said.replace("%s", value), text);

// Without its script, as when the server ends between the two, nothing on a page moves, and it says so.
addEventListener("error", ({ target }) => {
  const mark = target.id === "page-script" && document.querySelector("[data-live]");
  if (!mark) return;
  mark.dataset.state = "stale";
  mark.textContent = gettext("Not live: load the page again");
}, true);

// Before anything is painted.

// The width that was chosen in the foot of a page, so that nothing jumps.
document.documentElement.classList.toggle("wide", localStorage.getItem("width") === "full");

// The scripts of a page may get lost on the way, as when the server ends while it is loaded. Then nothing moves, and it says so.
addEventListener("error", ({ target }) => {
  const mark = target.type === "module" && document.querySelector("[data-live]");
  if (!mark) return;
  mark.dataset.state = "stale";
  mark.textContent = gettext("Not live: load the page again");
}, true);

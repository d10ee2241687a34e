// Before anything is painted, so that nothing jumps: the width that was chosen in the foot of a page.
document.documentElement.classList.toggle("wide", localStorage.getItem("width") === "full");

// What every page has: the live mark, the bell, times that stay current.

import { Live } from "./live.js";
import { refreshRegions } from "./regions.js";
import { showRow, showStats, startList } from "./list.js";
import { startKeys } from "./keys.js";
import { startJobPage } from "./job.js"; // no later import: were it lost on the way, the page would be called live and stand still
import { startBrowserSettings, tellBrowser } from "./browser.js";
import { ago } from "./words.js";

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
// names of zones need no encoding in a cookie, and the server does not undo one
if (zone && !document.cookie.split("; ").includes(`tz=${zone}`)) {
  document.cookie = `tz=${zone}; path=/; max-age=31536000; samesite=lax`;
}

function showUnread(count) {
  const unread = document.querySelector("[data-unread]");
  if (unread) { unread.hidden = !count; unread.textContent = count; }
  if (document.querySelector("#r-told")) refreshRegions();
}

function notify(message) {
  showUnread(message.unread);
  const toast = document.createElement("div");
  toast.className = `toast ${message.status.toLowerCase()}`;
  const link = document.createElement("a");
  link.href = message.url;
  link.textContent = message.text;
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "✕";
  close.setAttribute("aria-label", gettext("Close"));
  close.addEventListener("click", () => toast.remove());
  toast.append(link, close);
  document.querySelector("[data-toasts]").append(toast);
  setTimeout(() => toast.remove(), 12000);
  tellBrowser(message);
}

function receive(message) {
  if (message.type === "notification") notify(message);
  else if (message.type === "notification.read") showUnread(message.unread);
  else if (message.type === "job.row") showRow(message);
  else if (message.type === "queue.stats") showStats();
}

const path = document.body.dataset.socket;
const hasRows = path && !path.includes("?");
if (path) {
  // after an interruption the rows on the page may be behind: draw them again
  let greeted = false;
  const greet = () => { if (greeted && hasRows) refreshRegions(); greeted = true; return null; };
  startList(new Live(path, { receive, greet, poll: () => { if (hasRows) refreshRegions(); }, pollEvery: 3000 }));
}
startJobPage();
startKeys();
startBrowserSettings();
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.querySelector(button.dataset.copy)?.textContent.trim() ?? "";
  try { await navigator.clipboard.writeText(text); button.textContent = gettext("Copied"); }
  catch { getSelection().selectAllChildren(document.querySelector(button.dataset.copy)); button.textContent = gettext("Selected: press Ctrl-C"); }
});

const width = document.querySelector("[data-wide]");
function showWidth() { width.setAttribute("aria-pressed", document.documentElement.classList.contains("wide")); }
width?.addEventListener("click", () => {
  localStorage.setItem("width", document.documentElement.classList.toggle("wide") ? "full" : "usual");
  showWidth();
});
if (width) showWidth();

const chart = document.querySelector("[data-chart]");
if (chart) import("./charts.js").then((charts) => charts.startChart(chart));

setInterval(() => {
  for (const time of document.querySelectorAll("[data-ago]")) {
    const text = ago(Date.parse(time.dateTime));
    if (text && time.textContent !== text) time.textContent = text;
  }
}, 15000);

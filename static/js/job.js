// The page of one job: figures, log and chart move; when its state changes the server draws it anew.

import { Live } from "./live.js";
import { refreshRegions, slowly } from "./regions.js";
import { about, duration } from "./words.js";

const page = document.querySelector("[data-job-page]");
const log = document.querySelector("[data-log]");
const follow = document.querySelector("[data-follow]");
const number = new Intl.NumberFormat(document.documentElement.lang);
const LEVELS = { 10: "debug", 20: "info", 30: "warning", 40: "error" };
const LINES_SHOWN = 1000;

let revision = Number(page.dataset.revision);
let seq = Number(page.dataset.seq);
let shown = { status: page.dataset.status, badge: null, attempt: null };
let latest = null;

const paint = slowly(() => {
  if (!latest) return;
  const job = latest;
  latest = null;
  set("sentence", job.sentence);
  set("left", job.left === null ? "–" : `≈ ${about(job.left)}`);
  set("done", job.total !== null ? `${number.format(job.completed)} of ${number.format(job.total)}` : job.completed ? number.format(job.completed) : "–");
  set("pace", job.pace || "–");
  set("memory", job.memory || "–");
  set("cpu", job.cpu || "–");
  const bar = page.querySelector("[data-bar]");
  if (bar) { bar.hidden = job.percent === null; if (job.percent !== null) bar.value = job.percent; }
  document.title = `${job.percent !== null && job.status === "RUNNING" ? `${Math.floor(job.percent)} % · ` : ""}${page.querySelector("h1").textContent} · Fieldwork`;
}, 250);

const redraw = slowly(() => refreshRegions(), 500);
const redrawChart = slowly(() => refreshRegions("r-chart"), 2000);
const recount = slowly(() => refreshRegions("r-levels"), 2000);

function set(name, text) {
  const field = page.querySelector(`[data-field="${name}"]`);
  if (field && field.textContent !== text) field.textContent = text;
}

function show(job) {
  if (job.revision < revision) return;
  revision = job.revision;
  const changed = shown.status !== job.status || (shown.badge ?? job.badge) !== job.badge || (shown.attempt ?? job.attempt) !== job.attempt;
  shown = { status: job.status, badge: job.badge, attempt: job.attempt };
  latest = job;
  paint();
  if (changed) redraw();
}

function append(lines) {
  const level = Number(log.dataset.level), find = (log.dataset.find ?? "").toLowerCase();
  const rows = document.createDocumentFragment();
  let serious = false;
  for (const [n, lineLevel, message, time] of lines) {
    if (n <= seq) continue;
    seq = n;
    serious ||= lineLevel >= 30;
    if (lineLevel >= level && !("around" in log.dataset) && message.toLowerCase().includes(find)) rows.append(line(n, lineLevel, message, time));
  }
  page.querySelector("[data-log-count]").textContent = number.format(seq);
  page.querySelector("[data-log-word]").textContent = seq === 1 ? "line" : "lines";
  if (serious) recount();
  if (!rows.childNodes.length) return;
  log.querySelector(".log-empty")?.remove();
  log.append(rows);
  while (log.childElementCount > LINES_SHOWN) log.firstElementChild.remove();
  if (follow.getAttribute("aria-pressed") === "true") log.scrollTop = log.scrollHeight;
}

function line(n, level, message, time) {
  const name = LEVELS[level] ?? "info";
  const when = new Date(time * 1000);
  const item = document.createElement("li");
  item.id = `L${n}`;
  item.className = name;
  const link = document.createElement("a");
  link.href = `#L${n}`;
  link.textContent = n;
  const first = document.createElement("span");
  first.append(link);
  const stamp = document.createElement("time");
  stamp.dateTime = when.toISOString();
  stamp.title = when.toISOString();
  stamp.textContent = when.toTimeString().slice(0, 8);
  const levelText = document.createElement("span");
  levelText.className = "level";
  levelText.textContent = name.toUpperCase();
  const text = document.createElement("span");
  text.textContent = message;
  item.append(first, stamp, levelText, text);
  return item;
}

function receive(message) {
  if (message.type === "job.snapshot") { append(message.lines); show(message.job); }
  else if (message.type === "job.progress") show(message);
  else if (message.type === "job.log") append(message.lines);
  else if (message.type === "job.sample") { set("memory", message.memory); set("cpu", message.cpu); redrawChart(); }
}

async function poll() {
  try {
    const response = await fetch(`${page.dataset.liveUrl}?after=${seq}`, { credentials: "same-origin" });
    if (response.ok) receive(await response.json());
  } catch { /* the server is away; the mark in the head says so */ }
}

export function startJobPage() {
  new Live(`/ws/jobs/${page.dataset.jobPage}`, { receive, poll, greet: () => ({ type: "resume", after: seq }) });
  const wanted = /^#L(\d+)$/.exec(location.hash)?.[1];
  if (wanted && Number(wanted) <= seq && !document.getElementById(`L${wanted}`) && !("around" in log.dataset) && !("find" in log.dataset)) location.replace(`?line=${wanted}#L${wanted}`);
  if (!location.hash) log.scrollTop = log.scrollHeight;
  follow.addEventListener("click", () => {
    const on = follow.getAttribute("aria-pressed") !== "true";
    follow.setAttribute("aria-pressed", on);
    if (on) log.scrollTop = log.scrollHeight;
  });
  log.addEventListener("wheel", () => {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    follow.setAttribute("aria-pressed", atEnd);
  }, { passive: true });
  setInterval(() => {
    const elapsed = page.querySelector("[data-since]");
    if (elapsed) elapsed.textContent = duration((Date.now() - Date.parse(elapsed.dataset.since)) / 1000);
  }, 1000);
  // a countdown in the badge, or a page that waits, changes without any message
  setInterval(() => { if (page.querySelector(".badge.retrying, .badge.waiting, [data-badge] .held")) redraw(); }, 5000);
}

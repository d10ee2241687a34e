// The page of one job: figures, log and chart move; when its state changes the server draws it anew.

import { Live, heard, isFresh } from "./live.js";
import { LogView } from "./log.js";
import { refreshRegions, slowly } from "./regions.js";
import { about, duration, number } from "./words.js";

const page = document.querySelector("[data-job-page]"); // none on other pages
let log, revision, seq, shown; // shown: what the server drew last
let early = []; // lines that came before those in front of them
let latest = null; // what is to be painted
let last = null; // what was said last

const paint = slowly(() => {
  if (!latest) return;
  const job = latest;
  latest = null;
  set("sentence", job.sentence);
  set("left", job.left === null ? "–" : `≈ ${about(job.left)}`);
  set("done", job.total !== null ? interpolate(gettext("%s of %s"), [number.format(job.completed), number.format(job.total)]) : job.completed ? number.format(job.completed) : "–");
  set("pace", job.pace || "–");
  set("memory", job.memory || "–");
  set("cpu", job.cpu || "–");
  const bar = page.querySelector("[data-bar]");
  if (bar) { bar.hidden = job.percent === null || (job.status === "PENDING" && !job.percent); if (job.percent !== null) bar.value = job.percent; }
  document.title = `${job.percent !== null && job.status === "RUNNING" ? `${Math.floor(job.percent)} % · ` : ""}${page.querySelector("h1").textContent} · Fieldwork`;
}, 250);

const redraw = slowly(() => refreshRegions(), 500);
const redrawChart = slowly(() => refreshRegions("r-chart"), 2000);
const askForLines = slowly(poll, 500);
const recount = slowly(() => refreshRegions("r-levels"), 2000);

function set(name, text) {
  const field = page.querySelector(`[data-field="${name}"]`);
  if (field && field.textContent !== text) field.textContent = text;
}

function show(job) {
  if (job.revision < revision) return;
  revision = job.revision;
  const changed = shown.status !== job.status || shown.label !== job.label || shown.attempt !== job.attempt;
  shown = { status: job.status, label: job.label, attempt: job.attempt };
  latest = last = job;
  paint();
  if (changed) redraw();
}

// A line that comes before those in front of it waits for them. `all`: the server was asked for everything after ours.
function append(lines, all = false) {
  const at = new Map([...early, ...lines].map((line) => [line[0], line]));
  const fresh = all ? lines.filter(([n]) => n > seq) : [];
  let next = (fresh.at(-1)?.[0] ?? seq) + 1;
  while (at.has(next)) fresh.push(at.get(next++));
  early = [...at.values()].filter(([n]) => n > next);
  if (early.length) askForLines();
  if (!fresh.length) return;
  seq = next - 1;
  page.querySelector("[data-log-count]").textContent = number.format(seq);
  page.querySelector("[data-log-word]").textContent = ngettext("line", "lines", seq);
  if (fresh.some(([, level]) => level >= 30)) recount();
  log.append(fresh);
}

function receive(message) {
  if (message.type === "job.snapshot") { append(message.lines); show(message.job); }
  else if (message.type === "job.progress") show(message);
  else if (message.type === "job.log") append(message.lines);
  else if (message.type === "job.sample") {
    if (last) Object.assign(last, { memory: message.memory, cpu: message.cpu });
    set("memory", message.memory);
    set("cpu", message.cpu);
    redrawChart();
  }
}

async function poll() {
  try {
    const response = await fetch(`${page.dataset.liveUrl}?after=${seq}`, { credentials: "same-origin" });
    if (!response.ok) return;
    const { job, lines } = await response.json();
    heard();
    append(lines, true);
    show(job);
  } catch { /* the server is away; the mark in the head says so */ }
}

export function startJobPage() {
  if (!page) return;
  const list = document.querySelector("[data-log]");
  log = new LogView(list, document.querySelector("[data-follow]"));
  revision = Number(page.dataset.revision);
  seq = Number(page.dataset.seq);
  shown = { status: page.dataset.status, label: page.dataset.label, attempt: Number(page.dataset.attempt) };
  new Live(`/ws/jobs/${page.dataset.jobPage}`, { receive, poll, greet: () => ({ type: "resume", after: seq }) });
  const wanted = /^#L(\d+)$/.exec(location.hash)?.[1];
  if (wanted && Number(wanted) <= seq && !document.getElementById(`L${wanted}`) && !("around" in list.dataset) && !("find" in list.dataset)) location.replace(`?line=${wanted}#L${wanted}`);
  if (!location.hash) log.toEnd();
  // a part that the server drew a moment ago may be behind what was said since
  document.addEventListener("regions", () => { if (last) { latest = last; paint(); } });
  setInterval(() => {
    const elapsed = page.querySelector("[data-since]");
    if (elapsed && isFresh()) elapsed.textContent = duration((Date.now() - Date.parse(elapsed.dataset.since)) / 1000);
  }, 1000);
  // a countdown in the badge, or a page that waits, changes without any message
  setInterval(() => { if (page.querySelector(".badge.retrying, .badge.waiting, [data-badge] .held")) redraw(); }, 5000);
  // and of one that runs, messages tell the figures alone: not its items, its stages or the jobs beside it
  setInterval(() => { if (shown.status === "RUNNING" && document.visibilityState === "visible") redraw(); }, 8000);
}

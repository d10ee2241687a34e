// Ended jobs over hours or weeks, drawn by uPlot, which is fetched when a page has such a chart.

import { number } from "./words.js";

const RANGES = { "24h": 24, "7d": 7 * 24, "28d": 28 * 24 };
const HOUR = 3600;
const FRESH_MS = 60_000;

export async function startChart(figure) {
  const [hours] = await Promise.all([ask(figure), load(figure)]);
  if (!hours) return;
  const chart = new Throughput(figure, hours);
  const buttons = [...figure.querySelectorAll("[data-range]")];
  for (const button of buttons) {
    button.addEventListener("click", async () => {
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
      await chart.refresh();
      chart.draw(button.dataset.range);
    });
  }
  chart.draw(buttons.find((button) => button.getAttribute("aria-pressed") === "true").dataset.range);
  document.addEventListener("regions", async () => { if (await chart.refresh()) chart.draw(chart.range); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.draw(chart.range));
  new ResizeObserver(() => chart.fit()).observe(chart.place);
}

async function ask(figure) {
  try {
    const answer = await fetch(figure.dataset.url, { credentials: "same-origin" });
    return answer.ok ? new Map((await answer.json()).hours.map(([at, ...counts]) => [at, counts])) : null;
  } catch { return null; } // the server is away; the mark in the head says so
}

function load(figure) {
  const style = document.createElement("link");
  Object.assign(style, { rel: "stylesheet", href: figure.dataset.style });
  const script = document.createElement("script");
  script.src = figure.dataset.script;
  document.head.append(style, script);
  return new Promise((resolve, reject) => { script.onload = resolve; script.onerror = reject; });
}

class Throughput {
  constructor(figure, hours) {
    Object.assign(this, { figure, hours, askedAt: Date.now() });
    this.place = figure.querySelector("[data-plot]");
    this.says = figure.querySelector("[data-says]");
  }

  // Once a minute at most; true if there are new figures.
  async refresh() {
    if (Date.now() - this.askedAt < FRESH_MS) return false;
    this.askedAt = Date.now();
    const hours = await ask(this.figure);
    if (hours) this.hours = hours;
    return Boolean(hours);
  }

  // Hours for a day or a week; days of the viewer for longer. Of hours in which nothing ended there is a zero.
  columns(range) {
    const now = Math.floor(Date.now() / 1000 / HOUR) * HOUR;
    const found = new Map();
    for (let at = now - (RANGES[range] - 1) * HOUR; at <= now; at += HOUR) {
      const day = new Date(at * 1000);
      const key = range === "28d" ? new Date(day.getFullYear(), day.getMonth(), day.getDate()) / 1000 : at;
      const sum = found.get(key) ?? [0, 0];
      (this.hours.get(at) ?? [0, 0]).forEach((count, n) => { sum[n] += count; });
      found.set(key, sum);
    }
    const times = [...found.keys()], sums = [...found.values()];
    return [times, sums.map(([done, failed]) => done + failed), sums.map(([, failed]) => failed), sums.map(([done, failed]) => (done + failed ? 100 * failed / (done + failed) : null))];
  }

  draw(range) {
    this.range = range;
    const data = this.columns(range);
    const sum = (column) => column.reduce((all, value) => all + value, 0);
    const failed = sum(data[2]), all = sum(data[1]);
    this.says.textContent = all
      ? interpolate(gettext("%s completed, %s failed (%s)"), [number.format(all - failed), number.format(failed), `${number.format(Math.round(1000 * failed / all) / 10)} %`])
      : gettext("No job has ended in this time.");
    this.plot?.destroy();
    this.plot = new window.uPlot(this.options(range), data, this.place);
  }

  options(range) {
    const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: color("--ink-2"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "11px sans-serif" };
    const bars = window.uPlot.paths.bars({ size: [0.8, 40], align: 1 });
    const whole = (u, values) => values.map((value) => (Number.isInteger(value) ? number.format(value) : ""));
    return {
      width: this.place.clientWidth || 300, height: 160, cursor: { drag: { x: false, y: false } }, legend: { live: true },
      // each column stands to the right of its time, so the last one needs room as well
      scales: { x: { time: true, range: (u, first, last) => [first, last + (range === "28d" ? 24 : 1) * HOUR] }, y: { range: (u, low, high) => [0, Math.max(1, high * 1.1)] }, rate: { range: [0, 100] } },
      axes: [
        { ...axis, values: (u, times) => times.map((at) => moment(at, range)) },
        { ...axis, values: whole, size: 44 },
        { ...axis, scale: "rate", side: 1, grid: { show: false }, values: (u, values) => values.map((value) => `${value} %`), size: 44 },
      ],
      series: [
        { label: gettext("When"), value: (u, at) => (at === null ? "–" : new Date(at * 1000).toLocaleString(document.documentElement.lang, range === "28d" ? { dateStyle: "medium" } : { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" })) },
        { label: gettext("Ended"), fill: color("--completed"), stroke: color("--completed"), width: 0, paths: bars, points: { show: false } },
        { label: gettext("Failed"), fill: color("--failed"), stroke: color("--failed"), width: 0, paths: bars, points: { show: false } },
        { label: gettext("Failure rate"), scale: "rate", stroke: color("--ink-2"), width: 1.2, dash: [4, 3], spanGaps: true, points: { show: false }, value: (u, value) => (value === null ? "–" : `${number.format(Math.round(10 * value) / 10)} %`) },
      ],
    };
  }

  fit() {
    const width = this.place.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: 160 });
  }
}

function moment(at, range) {
  const how = range === "24h" ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" } : { day: "numeric", month: "short" };
  return new Date(at * 1000).toLocaleString(document.documentElement.lang, how);
}

// The events of the list as bars over time: as wide as a date is exact, in rows so that none hides another.

const card = document.querySelector("[data-timeline]");
const svg = card?.querySelector("svg");
const items = [...document.querySelectorAll(".events li[data-begins]")];
const DAY = 86400000, ROW = 14, ROWS = 12, AXIS = 22;
const events = items.map((item) => ({
  item, from: Date.parse(item.dataset.begins), to: Date.parse(item.dataset.ends) + DAY, label: item.querySelector("[dir]").textContent,
}));
let first, last, dragged = null;

function all() {
  const from = Math.min(...events.map((e) => e.from)), to = Math.max(...events.map((e) => e.to));
  const margin = Math.max(DAY * 20, (to - from) * 0.03);
  first = from - margin; last = to + margin;
}

function make(name, attributes, parent) {
  const node = document.createElementNS(svg.namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}

function ticks() {
  const span = (last - first) / DAY;
  const found = [];
  const start = new Date(first), years = span / 365;
  if (years > 2) {
    const step = [1, 2, 5, 10, 20, 50, 100].find((n) => years / n <= 12) ?? 200;
    for (let year = Math.ceil(start.getUTCFullYear() / step) * step; Date.UTC(year, 0) < last; year += step) found.push([Date.UTC(year, 0), String(year)]);
  } else {
    const step = Math.max(1, Math.ceil(span / 30 / 12));
    for (let month = start.getUTCMonth() + 1; Date.UTC(start.getUTCFullYear(), month) < last; month += step) {
      const moment = Date.UTC(start.getUTCFullYear(), month);
      found.push([moment, new Date(moment).toLocaleDateString(undefined, { month: "short", year: "2-digit", timeZone: "UTC" })]);
    }
    if (span < 45) for (let day = Math.ceil(first / DAY); day * DAY < last; day += Math.ceil(span / 12)) found.push([day * DAY, String(new Date(day * DAY).getUTCDate())]);
  }
  return found;
}

function draw() {
  const width = svg.clientWidth || 800, height = ROWS * ROW + AXIS;
  const x = (moment) => ((moment - first) / (last - first)) * width;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  for (const [moment, text] of ticks()) {
    make("line", { x1: x(moment), x2: x(moment), y1: 0, y2: height - AXIS, class: "grid" }, svg);
    make("text", { x: x(moment) + 3, y: height - 6 }, svg).textContent = text;
  }
  const ends = new Array(ROWS).fill(-1);
  let seen = 0, hidden = 0;
  for (const event of events) {
    const left = x(event.from), right = Math.max(x(event.to), left + 5);
    if (right < 0 || left > width) continue;
    seen += 1;
    const row = ends.findIndex((end) => end < left);
    if (row < 0) { hidden += 1; continue; }
    ends[row] = right + 2;
    const link = make("a", { href: `#${event.item.id}` }, svg);
    const bar = make("rect", { x: left, y: row * ROW + 2, width: right - left, height: ROW - 4, rx: 2 }, link);
    make("title", {}, bar).textContent = `${event.item.querySelector(".when").textContent}: ${event.label}`;
  }
  card.querySelector("[data-timeline-says]").textContent = hidden
    ? interpolate(gettext("%s in view, %s of them do not fit: zoom in"), [seen, hidden])
    : interpolate(gettext("%s in view"), [seen]);
}

function zoom(factor, at = 0.5) {
  const span = last - first, next = Math.min(Math.max(span / factor, DAY * 7), DAY * 365 * 800), centre = first + span * at;
  first = centre - next * at; last = first + next;
  draw();
}

function move(share) { const by = (last - first) * share; first += by; last += by; draw(); }

if (card && events.length) {
  card.hidden = false;
  all();
  draw();
  addEventListener("resize", draw);
  card.addEventListener("click", (event) => {
    const button = event.target.closest("[data-zoom]");
    if (!button) return;
    if (button.dataset.zoom === "all") { all(); draw(); } else zoom(Number(button.dataset.zoom));
  });
  svg.addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.25 : 0.8, event.offsetX / svg.clientWidth); }, { passive: false });
  svg.addEventListener("pointerdown", (event) => { dragged = event.clientX; });
  addEventListener("pointermove", (event) => {
    if (dragged === null) return;
    move(-(event.clientX - dragged) / svg.clientWidth);
    dragged = event.clientX;
  });
  addEventListener("pointerup", () => { dragged = null; });
  svg.addEventListener("keydown", (event) => {
    const act = { "+": () => zoom(1.5), "-": () => zoom(1 / 1.5), ArrowLeft: () => move(-0.1), ArrowRight: () => move(0.1), 0: () => { all(); draw(); } }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
}

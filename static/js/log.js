// The log of a job as a window over its lines: at most LINES_SHOWN of them are in the page; scrolling brings those before and
// after from the server, so that a log of 100,000 lines scrolls as one of 300 does.

import { slowly } from "./regions.js";

const LEVELS = { 10: "debug", 20: "info", 30: "warning", 40: "error" };
const LINES_SHOWN = 600;
const NEAR = 600; // pixels from an end at which the next lines are asked for

export class LogView {
  constructor(list, follow) {
    Object.assign(this, { list, follow, level: Number(list.dataset.level), find: list.dataset.find ?? "" });
    this.atTail = !("around" in list.dataset);
    this.atHead = list.dataset.head === "1";
    this.asked = 0; // the newest question to the server: answers to older ones are not used
    this.loading = false;
    this.newest = 0; // the last line that fits, shown or not
    this.fresh = [];
    this.paint = slowly(() => this.show(), 250);
    this.catchUp = slowly(() => this.more("after", this.lastSeq()), 1000);
    this.setFollow(this.follows());
    list.addEventListener("scroll", () => this.scrolled(), { passive: true });
    list.addEventListener("wheel", () => this.setFollow(this.isAtEnd()), { passive: true });
    list.addEventListener("keydown", (event) => {
      if (event.target !== list || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Home") { event.preventDefault(); this.setFollow(false); this.replace("after=0", "top"); }
      if (event.key === "End") { event.preventDefault(); this.toTail(); }
    });
    follow.addEventListener("click", () => (this.follows() ? this.setFollow(false) : this.toTail()));
  }

  follows() { return this.follow.getAttribute("aria-pressed") === "true"; }
  setFollow(on) { this.follow.setAttribute("aria-pressed", on && this.atTail); }
  isAtEnd() { return this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40; }
  toEnd() { this.list.scrollTop = this.list.scrollHeight; }
  firstSeq() { return Number(this.list.querySelector("li[data-seq]")?.dataset.seq ?? 0); }
  lastSeq() { return Number(this.list.lastElementChild?.dataset.seq ?? 0); }

  // Lines that were just written; while older ones are looked at they are only counted. What has a text the server knows alone.
  append(lines) {
    const fitting = lines.filter(([, level]) => level >= this.level);
    if (!fitting.length) return;
    if (this.find) { if (this.atTail) this.catchUp(); return; }
    this.newest = Math.max(this.newest, fitting.at(-1)[0]);
    if (!this.atTail) return;
    this.fresh.push(...fitting);
    this.paint();
  }

  show() {
    const last = this.lastSeq();
    const fresh = this.fresh.splice(0).filter(([seq]) => seq > last);
    if (!fresh.length || !this.atTail) return;
    if (!this.follows() && this.list.childElementCount + fresh.length > LINES_SHOWN) { this.atTail = false; return; } // what is read stays
    this.list.querySelector(".log-empty")?.remove();
    this.list.append(rows(fresh));
    if (this.follows()) { this.trim("start"); this.toEnd(); }
  }

  async toTail() {
    if (!this.atTail) await this.replace("", "end");
    this.setFollow(true);
    this.toEnd();
  }

  async scrolled() {
    if (this.loading) return;
    const { scrollTop, scrollHeight, clientHeight } = this.list;
    if (scrollTop < NEAR && !this.atHead && this.firstSeq()) await this.more("before", this.firstSeq());
    else if (scrollHeight - scrollTop - clientHeight < NEAR && !this.atTail && this.lastSeq()) await this.more("after", this.lastSeq());
  }

  async more(way, seq) {
    const found = await this.ask(`${way}=${seq}`);
    if (!found) return;
    const { list } = this;
    if (way === "before") {
      const height = list.scrollHeight;
      list.prepend(rows(found.lines));
      list.scrollTop += list.scrollHeight - height;
      this.atHead = !found.more;
      if (this.trim("end")) this.atTail = false;
    } else {
      if (found.lines.length) list.querySelector(".log-empty")?.remove();
      list.append(rows(found.lines));
      this.trim("start");
      this.arrived(!found.more);
    }
    this.setFollow(this.follows());
    if (this.follows()) this.toEnd();
  }

  async replace(query, where) {
    const found = await this.ask(query);
    if (!found) return;
    this.fresh = [];
    this.list.replaceChildren(rows(found.lines));
    this.atHead = where === "top" || !found.more;
    this.list.scrollTop = where === "top" ? 0 : this.list.scrollHeight;
    this.arrived(where === "end" || !found.more);
  }

  // At the tail, unless lines were written while the server answered.
  arrived(atTail) {
    this.atTail = atTail && this.lastSeq() >= this.newest;
    if (atTail && !this.atTail) this.catchUp();
  }

  async ask(query) {
    const mine = ++this.asked;
    this.loading = true;
    try {
      const filter = new URLSearchParams({ level: this.level, find: this.find });
      const response = await fetch(`${this.list.dataset.url}?${query}&${filter}`, { credentials: "same-origin" });
      const found = response.ok ? await response.json() : null;
      return mine === this.asked ? found : null;
    } catch {
      return null; // the server is away; the mark in the head says so
    } finally {
      if (mine === this.asked) this.loading = false;
    }
  }

  // Keep the page small; what is in view stays where it is. True if lines were taken out.
  trim(side) {
    const { list } = this;
    const over = list.childElementCount - LINES_SHOWN;
    if (over <= 0) return false;
    if (side === "end") {
      for (let n = 0; n < over; n++) list.lastElementChild.remove();
      return true;
    }
    const height = list.scrollHeight, top = list.scrollTop;
    for (let n = 0; n < over; n++) list.firstElementChild.remove();
    list.scrollTop = top - (height - list.scrollHeight);
    this.atHead = false;
    return true;
  }
}

function rows(lines) {
  const found = document.createDocumentFragment();
  for (const [seq, level, message, time] of lines) found.append(row(seq, level, message, time));
  return found;
}

function row(n, level, message, time) {
  const name = LEVELS[level] ?? "info";
  const when = new Date(time * 1000);
  const item = document.createElement("li");
  item.id = `L${n}`;
  item.dataset.seq = n;
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

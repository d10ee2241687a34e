// A socket that comes back by itself, and says when it is not there, or when nothing is known to be true any more.

import { isAnythingTyped } from "./forms.js";
import { duration } from "./words.js";

const QUIET_MS = 5000; // then the server is asked whether it is there, and its database
const LATE_MS = 8000; // without an answer, what the page shows is not live
const GONE_MS = 20000; // and the connection is made anew: a cable that was pulled closes nothing

const sockets = new Set();
const mark = document.querySelector("[data-live]");
if (mark && !document.querySelector("[data-region], [data-job-page]")) mark.hidden = true; // nothing here moves
let staleSince = null;
let isDrawn = true; // whether the last redraw of a part of the page came to its end
let freshAt = Date.now();

// Something came from the server: what the page shows is of now.
export function heard() { freshAt = Date.now(); }

export function isFresh() { return Date.now() - freshAt < QUIET_MS + LATE_MS; }

export function drawn(done) {
  isDrawn = done;
  showState();
}

function showState() {
  for (const socket of sockets) socket.look();
  if (!mark) return;
  const ended = [...sockets].some((socket) => socket.ended);
  const live = isDrawn && [...sockets].every((socket) => socket.isLive());
  if (live) staleSince = null;
  else staleSince ??= Date.now();
  const seconds = staleSince ? Math.round((Date.now() - staleSince) / 1000) : 0;
  const connecting = !live && [...sockets].every((socket) => !socket.wasOpen) && seconds < 5;
  mark.dataset.state = live ? "live" : connecting ? "connecting" : "stale";
  const text = live ? gettext("Live") : connecting ? gettext("Connecting") : ended ? gettext("Not live: load the page again") : gettext("Not live, trying again");
  if (mark.firstChild.textContent !== text) mark.firstChild.textContent = text;
  mark.title = live ? gettext("Changes appear by themselves.") : interpolate(gettext("Without a live connection for %s s. Values are asked for every few seconds."), [seconds]);
  showAge(!live && !connecting && Date.now() - freshAt > LATE_MS);
}

function showAge(wanted) {
  let age = mark.querySelector("[data-age]");
  if (!age && wanted) {
    age = Object.assign(document.createElement("span"), { ariaHidden: "true" }); // it changes each second, which nobody wants to hear
    age.dataset.age = "";
    mark.append(age);
  }
  if (age) age.textContent = wanted ? ` · ${interpolate(gettext("%s old"), [duration(Math.floor((Date.now() - freshAt) / 1000))])}` : "";
}

setInterval(showState, 1000);

export class Live {
  // greet() gives the message to send on (re)connection, or null; poll() runs while there is no socket.
  constructor(path, { receive, greet = () => null, poll = () => {}, pollEvery = 2000 }) {
    Object.assign(this, { path, receive, greet, open: false, wasOpen: false, wait: 500, ended: false, heardAt: 0, askedAt: 0 });
    sockets.add(this);
    this.connect();
    setInterval(() => { if (!this.open && !this.ended && document.visibilityState === "visible") poll(); }, pollEvery);
  }

  say(message) { if (this.open) this.socket.send(JSON.stringify(message)); }

  isLive() { return this.open && !(this.askedAt > this.heardAt && Date.now() - this.askedAt > LATE_MS); }

  look() {
    if (!this.open) return;
    const now = Date.now();
    if (this.askedAt <= this.heardAt && now - this.heardAt > QUIET_MS) {
      this.askedAt = now;
      this.say({ type: "ping" });
    } else if (this.askedAt > this.heardAt && now - this.askedAt > GONE_MS) {
      const gone = this.socket;
      gone.onopen = gone.onmessage = gone.onclose = null;
      gone.close();
      this.open = false;
      this.connect();
    }
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(`${scheme}//${location.host}${this.path}${this.path.includes("?") ? "&" : "?"}lang=${document.documentElement.lang}`);
    this.socket.onopen = () => {
      this.open = this.wasOpen = true;
      this.heardAt = Date.now();
      this.wait = 500;
      const hello = this.greet();
      if (hello) this.say(hello);
      showState();
    };
    this.socket.onmessage = (event) => {
      this.heardAt = Date.now();
      heard();
      const message = JSON.parse(event.data);
      if (message.type !== "pong") this.receive(message);
    };
    this.socket.onclose = (event) => {
      this.open = false;
      showState();
      if (event.code === 4401 || event.code === 4404) {
        // signed out, or no longer ours to see: the server knows what to show instead, but what was typed would be gone
        this.ended = true;
        if (!isAnythingTyped()) location.reload();
        return;
      }
      setTimeout(() => this.connect(), this.wait * (0.75 + Math.random() / 2));
      this.wait = Math.min(this.wait * 1.7, 4000);
    };
  }
}

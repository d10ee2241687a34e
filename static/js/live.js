// A socket that comes back by itself, and says when it is not there.

const sockets = new Set();
const mark = document.querySelector("[data-live]");
let staleSince = null;

function showState() {
  if (!mark) return;
  const live = [...sockets].every((socket) => socket.open);
  if (live) staleSince = null;
  else staleSince ??= Date.now();
  const seconds = staleSince ? Math.round((Date.now() - staleSince) / 1000) : 0;
  const connecting = !live && [...sockets].every((socket) => !socket.wasOpen) && seconds < 5;
  mark.dataset.state = live ? "live" : connecting ? "connecting" : "stale";
  const text = live ? gettext("Live") : connecting ? gettext("Connecting") : gettext("Not live, trying again");
  if (mark.textContent !== text) mark.textContent = text;
  mark.title = live ? gettext("Changes appear by themselves.") : interpolate(gettext("Without a live connection for %s s. Values are asked for every few seconds."), [seconds]);
}

setInterval(showState, 1000);

export class Live {
  // greet() gives the message to send on (re)connection, or null; poll() runs while there is no socket.
  constructor(path, { receive, greet = () => null, poll = () => {}, pollEvery = 2000 }) {
    Object.assign(this, { path, receive, greet, open: false, wasOpen: false, wait: 500, ended: false });
    sockets.add(this);
    this.connect();
    setInterval(() => { if (!this.open && !this.ended && document.visibilityState === "visible") poll(); }, pollEvery);
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(`${scheme}//${location.host}${this.path}${this.path.includes("?") ? "&" : "?"}lang=${document.documentElement.lang}`);
    this.socket.onopen = () => {
      this.open = this.wasOpen = true;
      this.wait = 500;
      const hello = this.greet();
      if (hello) this.socket.send(JSON.stringify(hello));
      showState();
    };
    this.socket.onmessage = (event) => this.receive(JSON.parse(event.data));
    this.socket.onclose = (event) => {
      this.open = false;
      showState();
      if (event.code === 4401 || event.code === 4404) {
        // signed out, or no longer ours to see: the server knows what to show instead
        this.ended = true;
        location.reload();
        return;
      }
      setTimeout(() => this.connect(), this.wait * (0.75 + Math.random() / 2));
      this.wait = Math.min(this.wait * 1.7, 4000);
    };
  }
}

// Notifications of the browser itself, if the person wants them here.

const KEY = "browser-notifications";
const wanted = () => "Notification" in window && Notification.permission === "granted" && localStorage.getItem(KEY) === "on";

export function tellBrowser(message) {
  if (!wanted() || !document.hidden) return;
  const shown = new Notification("Fieldwork", { body: message.text, tag: message.id });
  shown.addEventListener("click", () => { window.focus(); location.href = message.url; });
}

export function startBrowserSettings() {
  const button = document.querySelector("[data-browser-notifications]");
  if (!button || !("Notification" in window)) return;
  const says = document.querySelector("[data-browser-says]");
  const show = () => {
    button.hidden = Notification.permission === "denied";
    button.textContent = wanted() ? gettext("Show none any more") : gettext("Show notifications of the browser");
    says.textContent = Notification.permission === "denied" ? gettext("This browser was told to block them; its settings can change that.") : wanted() ? gettext("They are shown.") : gettext("They are not shown.");
  };
  button.addEventListener("click", async () => {
    if (wanted()) localStorage.setItem(KEY, "off");
    else if (await Notification.requestPermission() === "granted") localStorage.setItem(KEY, "on");
    show();
  });
  show();
}

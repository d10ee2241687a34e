// A pasted list of addresses: how many can be fetched, before anything is started.

import { slowly } from "./regions.js";
import { number } from "./words.js";

const field = document.querySelector("[data-urls]");

if (field) {
  const around = field.closest(".field");
  const says = document.createElement("div");
  says.className = "help counts";
  says.setAttribute("role", "status");
  const choose = document.createElement("input");
  choose.type = "file";
  choose.accept = ".txt,.csv,text/plain";
  choose.setAttribute("aria-label", gettext("Take the addresses from a file"));
  field.after(says, choose);
  const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
  const check = slowly(async () => {
    if (!field.value.trim()) { says.textContent = ""; return; }
    const asked = field.value;
    const response = await fetch(field.dataset.urls, { method: "POST", body: new URLSearchParams({ urls: asked, csrfmiddlewaretoken: token }) });
    if (!response.ok || field.value !== asked) return;
    const found = await response.json();
    around.querySelector(".errors")?.remove(); // of what stood here when the form was sent
    around.classList.toggle("wrong", found.refused > 0);
    field.setAttribute("aria-invalid", found.refused > 0);
    const parts = [interpolate(ngettext("%s address can be fetched", "%s addresses can be fetched", found.good), [number.format(found.good)])];
    if (found.duplicates) parts.push(interpolate(ngettext("%s repetition left out", "%s repetitions left out", found.duplicates), [number.format(found.duplicates)]));
    if (found.refused) parts.push(interpolate(gettext("%s refused"), [number.format(found.refused)]));
    says.replaceChildren(parts.join(" · "), ...found.problems.map((text) => Object.assign(document.createElement("div"), { textContent: text, className: "bad" })));
  }, 600);
  field.addEventListener("input", check);
  choose.addEventListener("change", async () => {
    if (!choose.files.length) return;
    field.value = `${field.value.trim()}\n${(await choose.files[0].text()).slice(0, 2000000)}`.trim();
    check();
  });
  if (!around.querySelector(".errors")) check();
}

// What a page does besides, where scripts run: it tells local times, and keeps itself fresh.
"use strict";

const SECONDS = 5;

// Local times stand in the title of each time; what is shown stays UTC, as in logs and answers.
function tellLocalTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title = new Date(time.dateTime).toLocaleString() + " here";
  }
}

// Somebody who chooses, types, reads with a keyboard or marks text is not disturbed.
function isInUse(main) {
  const active = document.activeElement;
  const typing = active && active.closest("input, select, textarea, button, form");
  const selection = document.getSelection();
  const marking = selection && !selection.isCollapsed && main.contains(selection.anchorNode);
  return document.hidden || (typing && main.contains(active)) || marking;
}

// What stays through a refresh: which parts are open, and where the keyboard is.
function stateOf(main) {
  const open = [...main.querySelectorAll("details[open][id]")].map((one) => one.id);
  const active = main.contains(document.activeElement) ? document.activeElement : null;
  const all = active ? [...main.querySelectorAll(active.localName)] : [];
  return {
    open,
    tag: active && active.localName,
    href: active && active.getAttribute("href"),
    place: all.indexOf(active),
    scrolled: window.scrollY,
  };
}

function restore(main, state) {
  for (const id of state.open) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  if (state.tag && state.place >= 0) {
    const all = [...main.querySelectorAll(state.tag)];
    const same = state.href
      ? all.find((one) => one.getAttribute("href") === state.href)
      : all[state.place];
    if (same) same.focus({ preventScroll: true });
  }
  window.scrollTo({ top: state.scrolled, behavior: "instant" });
}

async function refresh() {
  const main = document.getElementById("main");
  if (isInUse(main)) return;
  let text;
  // What was just done has been said.
  const headline = document.title;
  const url = new URL(location.href);
  url.searchParams.delete("done");
  try {
    const answer = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
    // Logged out, gone, or in trouble: the page itself says it best.
    if (answer.status === 401 || answer.status === 404) return location.replace(url);
    if (!answer.ok) return tell("callme cannot tell how it goes (" + answer.status + ")");
    text = await answer.text();
  } catch {
    return tell("callme does not answer");
  }
  if (isInUse(main)) return;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const state = stateOf(main);
  main.replaceChildren(...fresh.getElementById("main").childNodes);
  document.title = fresh.title;
  restore(main, state);
  tellLocalTimes();
  tell("");
  // Whoever listens hears of it when something else is the matter, and of nothing else.
  if (document.title !== headline) document.getElementById("news").textContent = fresh.title;
}

// What is shown may be true no more: that stands above it, said once, and what is below is faded.
function tell(trouble) {
  const said = trouble && trouble + ": what is shown here is old. It is asked again every " + SECONDS + " s.";
  const place = document.getElementById("trouble");
  if (place.textContent !== said) place.textContent = said;
  document.getElementById("main").classList.toggle("old", Boolean(trouble));
}

const zone = "Your clock is at " + (() => {
  const minutes = -new Date().getTimezoneOffset();
  const size = Math.abs(minutes);
  const two = (number) => String(number).padStart(2, "0");
  return "UTC" + (minutes < 0 ? "\u2212" : "+") + two(Math.floor(size / 60)) + ":" + two(size % 60) + ".";
})();

tellLocalTimes();
document.getElementById("zone").textContent = zone;

if (document.getElementById("main").dataset.live === "yes") {
  // Whoever would rather have a page stand still can have that (WCAG 2.2.2).
  const button = document.createElement("button");
  button.className = "refresh";
  let paused = sessionStorage.getItem("paused") === "yes";
  const show = () => {
    button.textContent = paused ? "Refresh again" : "Stop refreshing";
    sessionStorage.setItem("paused", paused ? "yes" : "no");
  };
  button.addEventListener("click", () => { paused = !paused; show(); });
  show();
  document.querySelector("footer p").append(button);
  const turn = async () => {
    if (!paused) await refresh();
    setTimeout(turn, SECONDS * 1000);
  };
  setTimeout(turn, SECONDS * 1000);
  // Whoever comes back to it sees at once how it goes.
  document.addEventListener("visibilitychange", () => { if (!paused) refresh(); });
}

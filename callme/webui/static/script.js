// Enhancements of the pages: local times, and refreshing without a reload.
"use strict";

const SECONDS = 5;

// Pages display UTC, as logs and API responses do. The title of each time has the local time.
function setLocalTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title = new Date(time.dateTime).toLocaleString() + " local time";
  }
}

// Without a script, the text of such a field can be selected and copied by hand.
function addCopyButtons() {
  for (const field of document.querySelectorAll("[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy: " + field.dataset.copy);
    button.addEventListener("click", () => copy(field, button));
    field.after(button);
  }
}

async function copy(field, button) {
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    button.textContent = "Copied";
  } catch {
    // Over plain HTTP, browsers do not give a page the clipboard.
    button.textContent = "Press Ctrl+C";
  }
  document.getElementById("news").textContent = button.textContent;
}

// Without a script, these links load the list again.
function addSelection() {
  for (const link of document.querySelectorAll("[data-select]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const boxes = link.closest("form").querySelectorAll("input[type=checkbox]");
      for (const box of boxes) box.checked = link.dataset.select === "all";
      const number = link.dataset.select === "all" ? boxes.length : 0;
      document.getElementById("news").textContent = "Selected tasks: " + number;
    });
  }
}

// A refresh must not interrupt typing, keyboard use or a text selection.
function isInUse(main) {
  const active = document.activeElement;
  const typing = active && active.closest("input, select, textarea, button, form");
  const selection = document.getSelection();
  const selecting = selection && !selection.isCollapsed && main.contains(selection.anchorNode);
  return document.hidden || (typing && main.contains(active)) || selecting;
}

// Return the state that a refresh preserves: open details, keyboard focus and scroll position.
function stateOf(main) {
  const open = [...main.querySelectorAll("details[open][id]")].map((details) => details.id);
  const active = main.contains(document.activeElement) ? document.activeElement : null;
  const peers = active ? [...main.querySelectorAll(active.localName)] : [];
  return {
    open,
    tag: active && active.localName,
    href: active && active.getAttribute("href"),
    index: peers.indexOf(active),
    scrollY: window.scrollY,
  };
}

function restore(main, state) {
  for (const id of state.open) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
  if (state.tag && state.index >= 0) {
    const peers = [...main.querySelectorAll(state.tag)];
    const same = state.href
      ? peers.find((element) => element.getAttribute("href") === state.href)
      : peers[state.index];
    if (same) same.focus({ preventScroll: true });
  }
  window.scrollTo({ top: state.scrollY, behavior: "instant" });
}

async function refresh() {
  const main = document.getElementById("main");
  if (isInUse(main)) return;
  let text;
  const headline = document.title;
  // The message about a completed action is displayed once.
  const url = new URL(location.href);
  url.searchParams.delete("done");
  try {
    const response = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
    // Logged out, or deleted: the page itself has the explanation.
    if (response.status === 401 || response.status === 404) return location.replace(url);
    if (!response.ok) return warn("callme returned an error (" + response.status + ")");
    text = await response.text();
  } catch {
    return warn("callme is not responding");
  }
  if (isInUse(main)) return;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const state = stateOf(main);
  main.replaceChildren(...fresh.getElementById("main").childNodes);
  document.title = fresh.title;
  addCopyButtons();
  restore(main, state);
  setLocalTimes();
  warn("");
  // Screen readers announce a new headline, and nothing else.
  if (document.title !== headline) document.getElementById("news").textContent = fresh.title;
}

// Display a warning above a page that is out of date, once, and fade the page; "" removes it.
function warn(problem) {
  const warning = problem && problem + ": this page is out of date. Retrying every " + SECONDS + " s.";
  const place = document.getElementById("stale");
  if (place.textContent !== warning) place.textContent = warning;
  document.getElementById("main").classList.toggle("stale", Boolean(problem));
}

const zone = (() => {
  const minutes = -new Date().getTimezoneOffset();
  const size = Math.abs(minutes);
  const two = (number) => String(number).padStart(2, "0");
  return "UTC" + (minutes < 0 ? "\u2212" : "+") + two(Math.floor(size / 60)) + ":" + two(size % 60);
})();

// A new form takes local times to be in the zone of the browser.
for (const field of document.querySelectorAll("[data-own-zone]")) {
  field.value = Intl.DateTimeFormat().resolvedOptions().timeZone || field.value;
}

setLocalTimes();
addCopyButtons();
addSelection();
document.getElementById("zone").textContent = "Your time zone: " + zone + ".";

if (document.getElementById("main").dataset.live === "yes") {
  // Content that updates itself must be pausable (WCAG 2.2, 2.2.2).
  const button = document.createElement("button");
  button.className = "refresh";
  let paused = sessionStorage.getItem("paused") === "yes";
  const update = () => {
    button.textContent = paused ? "Resume refresh" : "Pause refresh";
    sessionStorage.setItem("paused", paused ? "yes" : "no");
  };
  button.addEventListener("click", () => { paused = !paused; update(); });
  update();
  document.querySelector("footer p").append(button);
  const turn = async () => {
    if (!paused) await refresh();
    setTimeout(turn, SECONDS * 1000);
  };
  setTimeout(turn, SECONDS * 1000);
  // A tab that becomes visible again refreshes at once.
  document.addEventListener("visibilitychange", () => { if (!paused) refresh(); });
}

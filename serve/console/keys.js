// Shortcuts, and light or dark.

import { byId } from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;

const theme = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");

function drawTheme() {
  byId("theme").textContent = theme() === "dark" ? "Light" : "Dark";
}

function turnTheme() {
  root.dataset.theme = theme() === "dark" ? "light" : "dark";
  localStorage.setItem("longreel.theme", root.dataset.theme);
  drawTheme();
}

/** Hear keys; `acts` says what each does, and `escape` what Esc does. */
export function listenToKeys(acts, escape) {
  const help = () => byId("help").showModal();
  const all = { ...acts, t: turnTheme, "?": help };
  byId("theme").addEventListener("click", turnTheme);
  byId("keys").addEventListener("click", help);
  dark.addEventListener("change", drawTheme);
  drawTheme();
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") return escape();
    if (at.matches("input, textarea, select")) return;
    // Controls use these keys themselves.
    const own = [" ", "ArrowLeft", "ArrowRight"].includes(event.key);
    if (own && at.matches("button, a, summary, video, abbr, .rows")) return;
    if (!Object.hasOwn(all, event.key)) return;
    event.preventDefault();
    all[event.key]();
  });
}

// What the page shows of what is watched: the timeline, the list, the figures and the heat map.

import { byId, count, el, mss } from "./dom.js";
import { Heat, tint } from "./heat.js";
import { Said, words } from "./said.js";
import { Timeline } from "./timeline.js";

/** What all of the page knows: the session that is watched, the model, and a word to the user. */
export const page = { watch: null, model: null, panels: null, note: "" };
export const video = byId("video");
let dirty = false;

const textOf = (entry) => words(entry, entry.kind === "question" ? page.watch?.question(entry) : undefined);
const chosen = (entry) => seek(entry.time);
export const timeline = new Timeline(byId("timeline"), { seek, chosen }, textOf);
export const said = new Said(chosen, (entry) => page.watch?.question(entry));
export const heat = new Heat(byId("heat"), video, legend);

export const isFile = () => Boolean(page.watch?.capture && !page.watch.capture.live);
export const now = () => (isFile() ? video.currentTime : null);

export function seek(seconds) {
  if (isFile()) video.currentTime = Math.min(seconds, video.duration || seconds);
  look();
}

export const hears = {
  changed(entry) {
    timeline.mark(entry);
    said.put(entry);
    if (entry.done && page.watch.current) byId("spoken").textContent = `${mss(entry.time)} ${textOf(entry)}`;
    if (entry.kind === "question") drawState();
  },
  progress() { soon(); },
  state() { drawState(); soon(); },
  dropped(time, why) { timeline.drop(time, why); },
  tell(text) { page.note = text; drawState(); },
};

function soon() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(() => {
    dirty = false;
    if (!page.watch) return;
    timeline.progress(page.watch.transcript.times, page.watch.transcript.wishes);
    drawFigures();
    look();
  });
}

/** Bring what belongs to the moment that is shown in line with it. */
export function look() {
  const time = now();
  timeline.at(time);
  said.at(time);
  if (!page.watch || !heat.on) return;
  const { transcript } = page.watch;
  const frame = time === null ? transcript.seen - 1 : transcript.frameAt(time);
  heat.frame(frame, transcript.timeOf(frame));
}

const STATES = { connecting: ["connecting", ""], live: ["live", "ok"], lost: ["reconnecting", "partial"], ended: ["ended", "failed"] };

export function drawState() {
  const [word, tone] = STATES[page.watch?.state] ?? ["", ""];
  const pill = byId("state");
  Object.assign(pill, { hidden: !page.watch, textContent: word, className: `pill ${tone}` });
  const there = Boolean(page.watch) && page.watch.state !== "ended";
  byId("question").disabled = byId("ask-send").disabled = !there;
  byId("cancel").disabled = !(there && page.watch.pending);
  byId("status").textContent = told();
}

function told() {
  if (!page.watch) return page.note;
  if (page.watch.state === "lost") return "The connection is lost; trying again. What was not answered is sent again.";
  if (page.watch.state === "ended") return `The session has ended${page.watch.why ? `: ${page.watch.why}` : "."}`;
  if (page.note) return page.note;
  const { capture } = page.watch;
  if (!isFile()) return capture ? "Frames are sent as they come." : "";
  if (video.ended) return "The video has ended. Ask about it, or begin a new session.";
  const goesOn = capture.reached;
  if (goesOn !== null && video.currentTime < goesOn - 1.5 / capture.fps) {
    return `Looking back: the model has seen this, and goes on from ${mss(goesOn)}.`;
  }
  return video.paused && !capture.holds ? "Paused." : "";
}

function drawFigures() {
  const n = page.watch.transcript.seen;
  const parts = [el("b", {}, String(n)), ` ${n === 1 ? "frame" : "frames"} seen`];
  if (page.watch.behind) parts.push(", ", el("b", {}, String(page.watch.behind)), " waiting");
  const drops = page.watch.dropped;
  const lost = drops.reduce((sum, [, k]) => sum + k, 0);
  if (lost) {
    const why = drops.map(([reason, k]) => `${k} ${reason}`).join("; ");
    parts.push(", ", el("abbr", { title: why, tabIndex: 0, "aria-label": `${lost} dropped: ${why}` }, el("b", {}, String(lost)), " dropped"));
  }
  const figures = byId("figures");
  if (!figures.contains(document.activeElement)) figures.replaceChildren(...parts);
}

// The heat map

function legend(layers, text) {
  const shown = layers <= 4 ? [...Array(layers + 1).keys()] : [0, Math.ceil(layers / 2), layers];
  byId("legend-steps").replaceChildren(...(layers ? shown : []).map((n) => {
    const swatch = el("i");
    swatch.style.setProperty("--tint", tint(n / layers));
    return el("span", {}, swatch, n === 0 ? "skipped by all" : n === layers ? count(n, "layer") : String(n));
  }));
  byId("legend-text").textContent = text;
}

export function toggleHeat() {
  if (!page.watch) return;
  const on = !heat.on;
  byId("heat-toggle").setAttribute("aria-pressed", String(on));
  byId("legend").hidden = !on;
  if (!on) return heat.hide();
  if (page.model && (page.model.keep_ratio >= 1 || page.model.router === "none")) {
    heat.on = true;
    return legend(0, "This model routes nothing: every token runs in every layer.");
  }
  if (!page.watch.view.options.kept) {
    heat.on = true;
    return legend(0, "This session was opened without it: begin a new one here to see what the router keeps.");
  }
  heat.on = true;
  legend(0, "It appears with the first frame that the model has seen.");
  look();
}

// Beginning to watch, going on after a reload, leaving; the buttons and keys.

import { call, needKey, onKeyNeeded } from "./api.js";
import { byId, el } from "./dom.js";
import { listenToKeys } from "./keys.js";
import { drawState, heat, hears, isFile, look, now, page, said, seek, timeline, toggleHeat, video } from "./page.js";
import { startPanels } from "./panels.js";
import { openLive, playable } from "./sources.js";
import { Watch } from "./watch.js";

const question = byId("question");

function stage(what) {
  byId("stage").classList.toggle("blank", what === "begin");
  byId("begin").hidden = what !== "begin";
  byId("placard").hidden = what !== "placard";
  video.hidden = what !== "video";
}

function placard(text, again) {
  byId("placard-text").textContent = text;
  Object.assign(byId("again"), { hidden: !again, textContent: again ?? "" });
  stage("placard");
}

function problem(text) {
  byId("begin-problem").textContent = text;
  if (page.watch && text) hears.tell(text);
}

function leave() {
  page.watch?.stop();
  page.watch = null;
  page.note = "";
  video.pause();
  if (video.src) URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
  video.srcObject = null;
  for (const part of [timeline, said]) part.clear();
  heat.forget(null);
  byId("legend").hidden = true;
  byId("heat-toggle").setAttribute("aria-pressed", "false");
  heat.hide();
  byId("name").textContent = "Watch a video";
  byId("actions").hidden = true;
  byId("figures").textContent = byId("spoken").textContent = "";
  history.replaceState(null, "", location.pathname + location.search);
  stage("begin");
  drawState();
}

/** Watch `session`; what it has told so far is read from the first event on. */
function attach(session) {
  leave();
  page.watch = new Watch(session, page.model, hears);
  heat.forget(session.id);
  history.replaceState(null, "", `#s=${encodeURIComponent(session.id)}`);
  byId("name").textContent = page.watch.saved.name ?? session.id;
  byId("actions").hidden = false;
  drawState();
  page.panels?.refresh();
}

function wanted() {
  const options = { kept: true };
  const number = (id) => (byId(id).value === "" ? null : Number(byId(id).value));
  if (byId("instruction").value.trim()) options.instructions = byId("instruction").value.trim();
  if (number("fps") !== null) options.fps = number("fps");
  if (number("threshold")) options.silence_threshold = number("threshold");
  return options;
}

const openSession = () => call("POST", "v1/sessions", wanted());

function playFrom(from) {
  if (from !== null && from > 0) video.currentTime = Math.min(from, Math.max(0, video.duration - 0.05));
  video.play().catch(() => drawState());
}

async function takeFile(file) {
  problem("");
  const { saved } = page.watch ?? {};
  const same = page.watch && !page.watch.capture && page.watch.state !== "ended" && saved.kind === "file" && saved.name === file.name && saved.size === file.size;
  try {
    if (!same) attach(await openSession());
    const here = page.watch;
    byId("name").textContent = file.name;
    placard(`Opening ${file.name}.`);
    Object.assign(video, { controls: true, muted: true });
    const can = await playable(video, file);
    if (page.watch !== here) return;
    if (!can) return await decodeThere(here, file);
    stage("video");
    timeline.length(video.duration);
    here.play(video, "file", { name: file.name, size: file.size, duration: video.duration });
    playFrom(same ? here.reached : null);
    drawState();
  } catch (error) {
    problem(error.message);
  }
}

async function decodeThere(here, file) {
  placard(`This browser cannot play ${file.name}. It is sent to the service, which decodes it and watches it all at once; narrations appear below.`);
  try {
    await here.upload(file);
  } catch (error) {
    // Of a session that was left, the stage shows something else by now.
    if (page.watch !== here) return;
    placard(`This browser cannot play ${file.name}, and the service cannot use it: ${error.message}`);
  }
}

async function takeLive(kind) {
  problem("");
  let stream;
  try {
    stream = await openLive(kind);
  } catch (error) {
    return problem(error.message);
  }
  try {
    const goesOn = page.watch && !page.watch.capture && page.watch.state !== "ended" && page.watch.saved.kind === kind;
    if (!goesOn) attach(await openSession());
    const name = kind === "camera" ? "Camera" : "Screen";
    byId("name").textContent = name;
    Object.assign(video, { controls: false, muted: true, srcObject: stream });
    stage("video");
    page.watch.play(video, kind, { name });
    stream.getVideoTracks()[0].addEventListener("ended", () => hears.tell("Sharing has ended. Ask about it, or begin a new session."));
    await video.play();
    drawState();
  } catch (error) {
    stream.getTracks().forEach((track) => track.stop());
    problem(error.message);
  }
}

/** Go on with the session that the address names, after a reload or from the list. */
async function resume(id) {
  try {
    attach(await call("GET", `v1/sessions/${encodeURIComponent(id)}`));
  } catch (error) {
    leave();
    return problem(`The session ${id} cannot be shown: ${error.message}`);
  }
  const { kind, name, duration } = page.watch.saved;
  timeline.length(duration ?? null);
  if (kind === "file") placard(`Choose ${name} again to go on where the model stands: a page cannot open a file by itself.`, `Choose ${name}`);
  else if (kind === "camera" || kind === "screen") placard("The session goes on. Its pictures ended with the page that sent them.", kind === "camera" ? "Use the camera again" : "Share the screen again");
  else if (kind === "uploaded") placard(`${name} was sent to the service, which watches it.`);
  else if (kind === "upload") placard(`It is not known whether ${name} reached the service. What is said appears below as it comes.`);
  else placard("Its video is not in this page. What is said appears below as it comes.");
}

async function closeSession(id) {
  if (page.watch?.id === id) leave();
  try {
    await call("DELETE", `v1/sessions/${encodeURIComponent(id)}`);
    sessionStorage.removeItem(`longreel.session.${id}`);
  } catch (error) {
    if (error.status !== 404) hears.tell(error.message);
  }
  await page.panels.refresh();
}

// Buttons

function play() {
  if (!isFile()) return;
  if (video.paused) video.play().catch(() => {});
  else video.pause();
}

function beside(way) {
  const entry = said.beside(now() ?? 0, way);
  if (entry) seek(entry.time);
}

function listen() {
  listenToKeys({
    " ": play, k: play, h: toggleHeat,
    ArrowLeft: () => seek(Math.max(0, video.currentTime - 5)),
    ArrowRight: () => seek(video.currentTime + 5),
    n: () => beside(1),
    p: () => beside(-1),
    o: () => byId("file").click(),
    "/": () => question.focus(),
  }, () => page.watch?.cancel());
  const click = { choose: () => byId("file").click(), camera: () => takeLive("camera"), screen: () => takeLive("screen"),
    leave, "key-open": async () => (await needKey(true)) && showModel(), "heat-toggle": toggleHeat, cancel: () => page.watch?.cancel(),
    again: () => (page.watch?.saved.kind === "file" ? byId("file").click() : takeLive(page.watch?.saved.kind)),
    skip: (event) => { event.preventDefault(); byId("stage").focus(); } };
  for (const [id, act] of Object.entries(click)) byId(id).addEventListener("click", act);
  byId("begin").addEventListener("submit", (event) => event.preventDefault());
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) takeFile(file);
  });
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = question.value.trim();
    if (!text || !page.watch) return;
    page.note = "";
    page.watch.ask(text);
    question.value = "";
  });
  // Anywhere on the page: a file that misses the stage would otherwise be opened in its place.
  addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("stage").classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? byId("stage").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    byId("stage").classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) takeFile(file);
  });
  for (const name of ["timeupdate", "seeked"]) video.addEventListener(name, () => { look(); drawState(); });
  for (const name of ["play", "pause", "ended"]) video.addEventListener(name, drawState);
  addEventListener("hashchange", () => follow());
}

function follow() {
  const id = new URLSearchParams(location.hash.slice(1)).get("s");
  if (id && id !== page.watch?.id) return resume(id);
  return id ? undefined : stage("begin");
}

onKeyNeeded((wrong) => new Promise((given) => {
  const [dialog, value] = [byId("key"), byId("key-value")];
  byId("key-open").hidden = false;
  byId("key-why").textContent = wrong
    ? "The key that this tab has is not accepted here. Give another."
    : "It is kept in this tab alone, until you close it.";
  value.value = "";
  dialog.returnValue = "";
  dialog.addEventListener("close", () => given(dialog.returnValue === "use" ? value.value.trim() : null), { once: true });
  dialog.showModal();
}));

async function showModel() {
  const facts = (pairs) => pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  try {
    [page.model] = (await call("GET", "v1/models")).data;
    const routes = page.model.keep_ratio < 1 && page.model.router !== "none";
    byId("model").replaceChildren(...facts([
      ["Model", page.model.id], ["Sees", `${page.model.fps} fps`],
      ["Router", routes ? page.model.router : "none"], ["Keeps", routes ? `${Math.round(100 * page.model.keep_ratio)} % of tokens` : "all tokens"],
    ]));
  } catch (error) {
    byId("model").replaceChildren(...facts([["Model", error.message]]));
  }
}

listen();
stage("begin");
drawState();
await showModel();
page.panels = startPanels({ open: resume, close: closeSession, watched: () => page.watch?.id, seen: () => page.watch?.transcript.seen ?? 0, tell: hears.tell });
await follow();

// Beside the video: sessions, jobs, files and the cluster, asked for anew while the page is seen.

import { ApiError, call } from "./api.js";
import { ago, byId, count, el, mss, show, size } from "./dom.js";

const EVERY_MS = 2500;
const path = (kind, id) => `v1/${kind}/${encodeURIComponent(id)}`;
const TONES = {
  live: "ok", idle: "", recovering: "partial", pending: "", running: "", succeeded: "ok",
  partial: "partial", failed: "failed", cancelled: "partial",
};

const pill = (word) => el("span", { className: `pill ${TONES[word] ?? ""}` }, word);
const what = (name, told, problem) =>
  el("div", { className: "what" }, el("strong", { title: name }, name), el("span", {}, told),
    problem ? el("span", { className: "problem" }, problem) : null);
const bar = (share, label, tone = "") => {
  const percent = Math.round(100 * Math.min(1, Math.max(0, share)));
  const fill = el("i");
  fill.style.width = `${percent}%`;
  return el("div", { className: `bar ${tone}`, role: "progressbar", "aria-label": label, "aria-valuenow": String(percent), "aria-valuemin": "0", "aria-valuemax": "100" }, fill);
};
const button = (word, label, key, click) =>
  el("button", { type: "button", "aria-label": label, "data-key": key, on: { click } }, word);
const nothing = (words) => [el("li", { className: "empty" }, words)];

class Panel {
  /** Shows what `read` finds in `list`, as `rows` has it; asks for nothing more once it `cannot`. */
  constructor(name, read, rows, empty) {
    Object.assign(this, { name, read, rows, empty, over: false });
    this.list = byId(name);
    this.n = byId(`${name}-count`);
  }

  async refresh() {
    if (this.over) return;
    let found;
    try {
      found = await this.read();
    } catch (error) {
      // What this service does not have will not come by asking again.
      this.over = error.status === 503 && /takes no|keeps no/.test(error.message);
      this.n.textContent = "";
      show(this.list, nothing(error.status === 401 ? "This needs a key." : error.message));
      return;
    }
    this.n.textContent = found.length ? String(found.length) : "";
    const rows = found.length ? found.map(this.rows) : nothing(this.empty);
    // Clicks are heard by what is in the page: rows that look alike are left as they are.
    show(this.list, rows);
  }
}

function jobTold(job) {
  const p = job.progress;
  if (!p) return job.output;
  const done = p.videos.ok + p.videos.partial + p.videos.failed;
  return `${done} of ${count(p.videos.total, "video")}, ${mss(p.video_seconds.done)} of ${mss(p.video_seconds.total)}`;
}

function jobRow(job) {
  const p = job.progress;
  const share = p && p.video_seconds.total ? p.video_seconds.done / p.video_seconds.total : 0;
  const goes = job.status === "running" || job.status === "pending";
  return el("li", {}, what(job.id, jobTold(job), job.error), pill(job.status),
    goes ? button("Cancel", `Cancel job ${job.id}`, `job-${job.id}`, () => act(jobs, "DELETE", path("jobs", job.id))) : null,
    bar(job.status === "succeeded" ? 1 : share, `Progress of job ${job.id}`, TONES[job.status]));
}

/** Of a session that another page feeds, the list counts the frames of its last snapshot alone. */
function sessionTold(session, frames) {
  const n = frames ? `, ${count(frames, "frame")}` : "";
  return `begun ${ago(session.created)}${n}`;
}

function replicaRow(replica) {
  const share = replica.cache_bytes / Math.max(1, replica.cache_capacity_bytes);
  const lag = replica.lag_s >= 0.05 ? `, ${replica.lag_s.toFixed(1)} s behind` : "";
  const waits = replica.waiting_frames + replica.waiting_questions;
  return el("li", {},
    what(replica.replica, `${count(replica.sessions, "session")}, ${size(replica.cache_bytes)} of ${size(replica.cache_capacity_bytes)} of cache${waits ? `, ${waits} waiting` : ""}${lag}`),
    el("span", { className: `pill ${replica.lag_s > 1 ? "partial" : "ok"}` }, replica.lag_s > 1 ? "behind" : "keeps up"),
    bar(share, `Cache of replica ${replica.replica}`, share > 0.9 ? "partial" : ""));
}

let jobs, files, sessions;
let tell = () => {};

async function act(panel, method, where) {
  try {
    await call(method, where);
  } catch (error) {
    if (error.status !== 404 && error.status !== 410) tell(error.message);
  } finally {
    await panel.refresh();
  }
}

/** Fill the panels. `hears` has `open(id)`, `close(id)`, `watched()`,
 *  `seen()` and `tell(text)`. */
export function startPanels(hears) {
  tell = hears.tell;
  sessions = new Panel("sessions", async () => (await call("GET", "v1/sessions")).data.sort((a, b) => b.created - a.created),
    (session) => {
      const here = session.id === hears.watched();
      return el("li", {},
        what(session.id, sessionTold(session, here ? hears.seen() : session.frames)),
        el("div", { className: "acts" },
          here ? el("span", { className: "pill" }, "here") : pill(session.state),
          here ? null : button("Open", `Open session ${session.id}`, `open-${session.id}`, () => hears.open(session.id)),
          button("Close", `Close session ${session.id}`, `close-${session.id}`, () => hears.close(session.id))));
    },
    "No session is open. Choose a video above to begin one.");
  jobs = new Panel("jobs", async () => (await call("GET", "v1/jobs")).data.reverse(), jobRow,
    "No job yet. A job narrates many videos into rows of Parquet.");
  files = new Panel("files", async () => (await call("GET", "v1/files")).data,
    (file) => el("li", {}, what(file.filename, `${size(file.bytes)}, ${ago(file.created_at)}, ${file.id}`),
      button("Delete", `Delete file ${file.filename}`, `file-${file.id}`, () => act(files, "DELETE", path("files", file.id)))),
    "No file is uploaded. Chats and programs name uploaded files by their id.");
  const cluster = new Panel("cluster", async () => (await call("GET", "v1/cluster")).replicas, replicaRow,
    "No replica reports. The service is starting, or scaled to none.");
  startJobForm();
  startUpload();
  const panels = [sessions, jobs, files, cluster];
  const all = async () => {
    if (!document.hidden) await Promise.allSettled(panels.map((panel) => panel.refresh()));
    setTimeout(all, EVERY_MS);
  };
  all();
  return { refresh: () => sessions.refresh() };
}

function startJobForm() {
  const [form, open, problem, send] = ["job", "job-open", "job-problem", "job-send"].map(byId);
  open.addEventListener("click", () => {
    form.hidden = !form.hidden;
    open.setAttribute("aria-expanded", String(!form.hidden));
    if (!form.hidden) byId("job-sources").focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.textContent = "";
    const [sources, output, prompt] = ["job-sources", "job-output", "job-prompt"].map((id) => byId(id).value.trim());
    const missing = !sources ? "job-sources" : !output ? "job-output" : null;
    if (missing) {
      problem.textContent = sources ? "Say where the rows go." : "Say which videos.";
      return byId(missing).focus();
    }
    send.disabled = true;
    try {
      await call("POST", "v1/jobs", { sources: sources.split(/\s+/), output, ...(prompt ? { prompt } : {}) });
      form.reset();
      form.hidden = true;
      open.setAttribute("aria-expanded", "false");
      open.focus();
    } catch (error) {
      problem.textContent = error instanceof ApiError ? error.message : String(error);
    } finally {
      send.disabled = false;
      jobs.over = false;
      await jobs.refresh();
    }
  });
}

function startUpload() {
  const [chosen, problem] = [byId("upload"), byId("files-problem")];
  byId("upload-open").addEventListener("click", () => chosen.click());
  chosen.addEventListener("change", async () => {
    const [file] = chosen.files;
    chosen.value = "";
    if (!file) return;
    const form = new FormData();
    form.append("purpose", "vision");
    form.append("file", file);
    problem.textContent = "";
    try {
      await call("POST", "v1/files", form);
    } catch (error) {
      problem.textContent = error.message;
    }
    await files.refresh();
  });
}

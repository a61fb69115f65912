// One session as this page watches it: its connection, its transcript, and where its frames come
// from. What the service does not keep, such as a question's words and which file it was, lies in
// this tab's storage, so that a reload goes on.

import { call } from "./api.js";
import { Link } from "./link.js";
import { Capture } from "./sources.js";
import { Transcript } from "./transcript.js";

const REASONS = {
  rate: "came faster than the session's frames a second",
  late: "came after a later one",
  lag: "came while too many waited for the model",
  unsent: "not sent: the connection was slower than the source",
  slow: "not taken: this page was slower than the source",
};

export class Watch {
  /** `hears` has `changed(entry)`, `progress()`, `state()`, `dropped(time, why)`, `tell(text)`. */
  constructor(session, model, hears) {
    Object.assign(this, { id: session.id, view: session, model, hears });
    this.transcript = new Transcript();
    this.saved = JSON.parse(sessionStorage.getItem(this.place) ?? "{}");
    this.saved.questions ??= {};
    this.sent = this.seen = 0;
    this.drops = {};
    this.before = this.first = null;
    this.state = "connecting";
    this.why = "";
    this.capture = null;
    this.asking = [];
    this.left = new AbortController();
    this.link = new Link(session.id, {
      view: (view) => { this.view = view; this.target ??= view.last_event; this.caught(); },
      state: (word, why, code) => this.turned(word, why, code),
      event: (event) => this.heard(event),
      receipt: (item, reply) => this.receipt(item, reply),
      refused: (item, error) => this.refused(item, error),
    });
  }

  get place() {
    return `longreel.session.${this.id}`;
  }

  keep(fields = {}) {
    Object.assign(this.saved, fields);
    sessionStorage.setItem(this.place, JSON.stringify(this.saved));
  }

  get fps() {
    return this.view.options.fps;
  }

  /** Whether all that had happened before this page came has been read. */
  get current() {
    return this.before !== null;
  }

  /** Seconds of the last frame that the session has; null where it has none. */
  get reached() {
    const known = [this.transcript.lastTime, this.saved.reached ?? null].filter((t) => t !== null);
    return known.length ? Math.max(...known) : null;
  }

  /** Frames that the session has and the model has not seen. */
  get behind() {
    return Math.max(0, Math.max(this.view.frames, this.accepted ?? 0) - this.transcript.seen);
  }

  /** How many frames were dropped, and what for. */
  get dropped() {
    const known = Object.entries(this.drops).map(([why, n]) => [REASONS[why] ?? why, n]);
    if (this.before) known.unshift(["before this page was loaded", this.before]);
    return known;
  }

  question(entry) {
    return this.saved.questions[entry.id];
  }

  /** The question that is being answered, or the first that waits for its turn. */
  get pending() {
    return this.transcript.said.find((entry) => entry.kind === "question" && !entry.done)?.id ?? this.asking[0] ?? null;
  }

  ask(text) {
    this.link.give({ text });
    this.hears.state();
  }

  cancel() {
    if (this.pending) this.link.cancel(this.pending);
  }

  /** Take frames from `video`: of a file its own times, else times that go on. */
  play(video, kind, named = {}) {
    this.keep({ kind, ...named });
    this.capture = new Capture(video, {
      fps: this.fps,
      live: kind !== "file",
      from: this.reached,
      hears: {
        room: () => this.link.room,
        frame: (jpeg, time) => { this.sent += 1; this.link.give({ jpeg, time }); },
        missed: (time, why) => this.drop(why, time),
        waits: (whether) => this.hears.tell(whether ? "Waiting for the service; the video goes on by itself." : ""),
      },
    });
  }

  /** Have the service decode a file that this browser cannot play. */
  async upload(file) {
    this.keep({ kind: "upload", name: file.name, size: file.size });
    this.link.hold();
    try {
      const type = file.type.startsWith("video/") ? file.type : "video/mp4";
      const where = `v1/sessions/${encodeURIComponent(this.id)}/frames?wait=false&time_s=0`;
      const told = await call("POST", where, file, { "Content-Type": type }, this.left.signal);
      this.keep({ kind: "uploaded" });
      for (const receipt of told.receipts) {
        if (receipt.outcome === "dropped") this.drop(receipt.reason, null);
        else this.accepted = receipt.frame + 1;
      }
      this.sent += told.receipts.length;
    } finally {
      await this.link.release();
      this.hears.progress();
    }
  }

  turned(word, why = "", code = "") {
    Object.assign(this, { state: word, why, code });
    if (word === "ended") this.capture?.stop();
    this.hears.state();
  }

  heard(event) {
    this.first ??= event.number;
    const entry = this.transcript.take(event);
    if (event.type === "response.created") this.asking = this.asking.filter((id) => id !== event.response);
    if (entry) this.hears.changed(entry);
    this.caught();
    this.hears.progress();
  }

  /** Once all of the past is read, what is missing of its numbers was dropped. */
  caught() {
    if (this.before !== null || this.link.after < this.target) return;
    const { answers } = this.transcript;
    const waiting = Object.keys(this.saved.questions).filter((id) => !answers.has(id)).length;
    // Where the service keeps the first events no more, nobody knows how many questions there were.
    const whole = (this.first ?? 1) === 1;
    this.before = whole ? Math.max(0, this.view.seq - this.view.frames - answers.size - waiting) : 0;
    this.hears.state();
  }

  receipt(item, reply) {
    if (reply.type === "response.accepted") {
      this.saved.questions[reply.response] = item.text;
      this.keep();
      const entry = this.transcript.answers.get(reply.response);
      if (entry) this.hears.changed(entry);
      else this.asking.push(reply.response);
      this.hears.state();
    } else if (reply.type === "frame.accepted") {
      this.accepted = reply.frame + 1;
      this.keep({ reached: item.time });
      this.hears.progress();
    } else {
      this.drop(reply.reason, item.time);
    }
  }

  drop(why, time) {
    this.drops[why] = (this.drops[why] ?? 0) + 1;
    if (time !== null) this.hears.dropped(time, `dropped: ${REASONS[why] ?? why}`);
    this.hears.progress();
  }

  refused(item, error) {
    if (item.text === undefined) this.drop(error.message, item.time);
    else this.hears.tell(`The question was not taken: ${error.message}`);
  }

  stop() {
    this.capture?.stop();
    this.link.stop();
    this.left.abort();
  }
}

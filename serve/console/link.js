// One session's connection. Frames and questions get their numbers here, are sent again under the
// same numbers after a connection broke, and so are never applied twice.

import { call, needKey, openSocket } from "./api.js";

/** Items without a reply, and items that wait to be sent behind them. */
const MOST_IN_FLIGHT = 8, MOST_QUEUED = 24, MOST_BUFFERED = 4 << 20;
/** Refusals after which the same is sent again, some time later. */
const LATER = ["overloaded", "unavailable"], LATER_MS = 1000, SOON_S = 60;
const isForLater = (said) => LATER.includes(said.code) || said.retry_after_s < SOON_S;
const FIRST_PAUSE_MS = 250, LAST_PAUSE_MS = 5000;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class Link {
  /**
   * `hears` has `view(session)` before anything else, `state(word, why)` with `connecting`, `live`,
   * `lost` or `ended`, `event(event)`, `receipt(item, reply)` for each frame and question, and
   * `refused(item, error)`.
   */
  constructor(session, hears) {
    Object.assign(this, { session, hears });
    this.after = 0;
    this.next = null;
    this.items = [];
    this.stopped = false;
    this.held = false;
    this.settling = false;
    this.socket = null;
    this.ready = false;
    this.running = this.run();
  }

  /** Whether another frame may be given; else nobody keeps it. */
  get room() {
    return this.items.length < MOST_QUEUED;
  }

  /** Give a frame (a JPEG) at `time` seconds, or a question. */
  give(item) {
    this.items.push({ sends: 0, flying: false, ...item });
    this.pump();
  }

  /** Send nothing while frames are given past this connection; `release` goes on after them. */
  hold() {
    this.held = true;
  }

  async release() {
    this.held = false;
    await this.settle();
  }

  cancel(response) {
    if (this.ready) this.say({ type: "response.cancel", response });
  }

  /** Leave; the session stays as it is. */
  stop() {
    this.stopped = true;
    this.socket?.close();
  }

  async run() {
    let wait = FIRST_PAUSE_MS;
    while (!this.stopped) {
      this.hears.state("connecting");
      try {
        const view = await call("GET", `v1/sessions/${encodeURIComponent(this.session)}`);
        if (this.stopped) return;
        this.next ??= view.seq + 1;
        this.hears.view(view);
        const began = Date.now();
        const end = await this.connected();
        if (this.stopped) return;
        if (end.code === 1000 || end.code === 4404 || end.code === 4410) return this.end(end.reason);
        if (end.code === 4401) await needKey();
        if (Date.now() - began > LAST_PAUSE_MS) wait = FIRST_PAUSE_MS;
      } catch (error) {
        if (this.stopped) return;
        if (error.status === 404 || error.status === 410) return this.end(error.message, error.code);
      }
      this.hears.state("lost");
      await pause(wait * (0.75 + Math.random() / 2));
      wait = Math.min(LAST_PAUSE_MS, wait * 2);
    }
  }

  end(why, code) {
    this.stopped = true;
    this.items = [];
    this.hears.state("ended", why, code);
  }

  /** Until the connection ends; how it ended. */
  connected() {
    const socket = this.socket = openSocket(this.session, { after: this.after, frames: true });
    return new Promise((ended) => {
      socket.onmessage = (message) => this.hear(JSON.parse(message.data));
      socket.onclose = (end) => {
        this.ready = this.settling = false;
        // Whether they were taken is not known: they are sent again, under their numbers.
        this.items.forEach((item) => { item.flying = false; });
        ended(end);
      };
    });
  }

  hear(said) {
    if (said.type === "session.created") {
      this.ready = true;
      this.settling = false;
      this.hears.state("live");
      this.pump();
    } else if (said.number !== undefined) {
      if (said.number <= this.after) return;
      this.after = said.number;
      this.hears.event(said);
    } else if (said.seq !== undefined) {
      this.replied(said);
    }
  }

  replied(said) {
    const item = this.items.find((each) => each.flying && each.seq === said.seq);
    if (!item) return;
    item.flying = false;
    const remove = () => { this.items = this.items.filter((each) => each !== item); };
    if (said.type !== "error") {
      if (said.repeated && item.sends === 1) {
        // Another page of this session was given the number first.
        this.settling = true;
      } else {
        remove();
        this.hears.receipt(item, said);
      }
    } else {
      this.settling = true;
      const again = said.code === "sequence_gap" || isForLater(said);
      if (!again && item.taken !== undefined) {
        remove();
        this.hears.refused(item, said);
      }
      if (!again) item.taken = true;  // its number may have been another's: once more with a new one
      // What flew behind it is told of a gap, and waits as long.
      this.slow ||= isForLater(said);
    }
    if (this.settling && !this.items.some((each) => each.flying)) this.settle(this.slow ? LATER_MS : 0);
    else this.pump();
  }

  /** Number anew what the session does not have; only while nothing is on its way. */
  async settle(wait = 0) {
    this.settling = true;
    this.slow = false;
    const { socket, ready } = this;
    if (wait) await pause(wait);
    try {
      const view = await call("GET", `v1/sessions/${encodeURIComponent(this.session)}`);
      // Of a connection that broke meanwhile, numbers may be taken: those stay as they are.
      const sure = (ready && this.ready && this.socket === socket) || this.items.every((item) => !item.sends);
      if (sure) {
        this.next = view.seq + 1;
        for (const item of this.items) Object.assign(item, { seq: undefined, sends: 0 });
      }
    } catch {
      socket?.close();
      return;
    }
    this.settling = false;
    this.pump();
  }

  pump() {
    if (!this.ready || this.held || this.settling) return;
    let flying = this.items.filter((item) => item.flying).length;
    for (const item of this.items) {
      if (item.flying) continue;
      if (flying >= MOST_IN_FLIGHT || this.socket.bufferedAmount > MOST_BUFFERED) return;
      item.seq ??= this.next++;
      item.flying = true;
      item.sends += 1;
      flying += 1;
      if (item.text !== undefined) {
        this.say({ type: "response.create", input: item.text, seq: item.seq });
      } else {
        this.say({ type: "frame", seq: item.seq, time_s: item.time });
        this.socket.send(item.jpeg);
      }
    }
  }

  say(message) {
    this.socket.send(JSON.stringify(message));
  }
}

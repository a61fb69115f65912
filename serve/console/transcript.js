// What happened in a session, from its events alone: read again from the first, it is the same. The
// service keeps the last events only, so that of a long session the first frames are not known.

export class Transcript {
  constructor() {
    /** Frames that were seen, from number `first` on: their times, and how much the model wished to speak (0-1). */
    this.first = null;
    this.times = [];
    this.wishes = [];
    /** Narrations, questions and errors in the order in which they began. */
    this.said = [];
    this.answers = new Map();
    this.narrating = null;
    this.closed = false;
  }

  get lastTime() {
    return this.times.length ? this.times[this.times.length - 1] : null;
  }

  /** How many frames were seen, with those that are not known. */
  get seen() {
    return (this.first ?? 0) + this.times.length;
  }

  /** Seconds of frame `number`; undefined where it is not known. */
  timeOf(number) {
    return this.times[number - this.first];
  }

  /** Take in an event; what it changed in `said`, if anything. */
  take(event) {
    switch (event.type) {
      case "frame.seen":
        this.first ??= event.frame;
        // Of a frame that failed nothing else is told: it stands where the next one does.
        while (this.seen <= event.frame) this.know(event.time_s, this.seen < event.frame ? 0 : 1 - event.p_silence);
        return null;
      case "narration.delta": {
        this.narrating ??= this.add({ kind: "narration", time: event.time_s, text: "", done: false });
        this.narrating.text += event.delta;
        return this.narrating;
      }
      case "narration": {
        const entry = this.narrating ?? this.add({ kind: "narration", time: event.time_s });
        this.narrating = null;
        return Object.assign(entry, { text: event.text, done: true, cancelled: event.cancelled });
      }
      case "response.created": {
        const time = this.lastTime ?? 0;
        const entry = this.add({ kind: "question", time, text: "", done: false, id: event.response });
        this.answers.set(event.response, entry);
        return entry;
      }
      case "response.delta": {
        const entry = this.answers.get(event.response);
        if (entry) entry.text += event.delta;
        return entry ?? null;
      }
      case "response.done": {
        const entry = this.answers.get(event.response);
        if (!entry) return null;
        return Object.assign(entry, { text: event.text, done: true, status: event.status });
      }
      case "error": {
        const time = this.timeOf(event.frame) ?? this.lastTime ?? 0;
        // Of a question, its answer ends as failed and says so.
        if (event.response) {
          const entry = this.answers.get(event.response);
          return entry ? Object.assign(entry, { error: event.message }) : null;
        }
        this.narrating = null;
        return this.add({ kind: "error", time, text: event.message, done: true });
      }
      case "session.closed":
        this.closed = true;
        return null;
      default:
        return null;
    }
  }

  know(time, wish) {
    this.times.push(time);
    this.wishes.push(wish);
  }

  /** Number of the last frame that was seen at or before `time`; -1 where none is known. */
  frameAt(time) {
    let [low, high] = [0, this.times.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.times[middle] <= time + 1e-3) low = middle + 1;
      else high = middle;
    }
    return low ? this.first + low - 1 : -1;
  }

  add(entry) {
    entry.number = this.said.length;
    this.said.push(entry);
    return entry;
  }
}

// The list of what was said and asked, in its order; a line leads to its time in the video.

import { byId, el, mss } from "./dom.js";

/** What an entry of the transcript stands for, in one line. */
export function words(entry, question) {
  switch (entry.kind) {
    case "question": return [`Question: ${question ?? "(its words are not in the events)"}`, entry.text].filter(Boolean).join(" ");
    case "error": return `Error: ${entry.text}`;
    default: return entry.text;
  }
}

const ENDS = { length: "cut at its bound", cancelled: "cancelled", failed: "failed" };

export class Said {
  /** `chosen(entry)` is called for a line that is clicked; `question(entry)` has a question's words. */
  constructor(chosen, question) {
    Object.assign(this, { chosen, question });
    this.list = byId("said");
    this.clear();
  }

  clear() {
    this.rows = [];
    this.now = null;
    this.list.replaceChildren();
    this.counted();
  }

  counted() {
    const n = this.rows.length;
    byId("said-count").textContent = n ? String(n) : "";
    byId("said-empty").hidden = n > 0;
  }

  /** Show an entry, or what has changed of it. */
  put(entry) {
    const { list } = this;
    // Whoever has scrolled up reads; the list follows only those who are at its end.
    const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
    let row = this.rows[entry.number];
    if (!row) {
      const line = el("div");
      const button = el("button", { type: "button", on: { click: () => this.chosen(entry) } }, el("time", {}, mss(entry.time)), line);
      row = this.rows[entry.number] = { entry, line, item: el("li", { className: entry.kind }, button) };
      list.append(row.item);
      this.counted();
    }
    row.item.classList.toggle("part", entry.done === false);
    if (entry.kind === "question") {
      const end = entry.error ?? ENDS[entry.status];
      const answer = entry.text || (entry.done ? "" : "…");
      row.line.replaceChildren(
        el("strong", {}, this.question(entry) ?? "A question (its words are not in the events)"),
        el("span", { className: "answer" }, answer), end ? el("small", {}, answer ? ` (${end})` : `(${end})`) : "",
      );
    } else {
      row.line.replaceChildren(entry.text, entry.cancelled ? el("small", {}, " (cancelled)") : "");
    }
    if (follows) list.scrollTop = list.scrollHeight;
  }

  /** Mark what was said last at `seconds`; null marks nothing. */
  at(seconds) {
    let found = null;
    if (seconds !== null) {
      for (const row of this.rows) if (row.entry.time <= seconds + 1e-3) found = row;
    }
    if (found === this.now) return;
    this.now?.item.classList.remove("now");
    found?.item.classList.add("now");
    this.now = found;
    if (!found || this.list.matches(":hover") || this.list.contains(document.activeElement)) return;
    const { item } = found;
    const [top, bottom] = [item.offsetTop - this.list.offsetTop, item.offsetTop - this.list.offsetTop + item.offsetHeight];
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    else if (bottom > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = bottom - this.list.clientHeight;
  }

  /** The entry after (1) or before (-1) `seconds`. */
  beside(seconds, way) {
    const entries = this.rows.map((row) => row.entry);
    return way > 0
      ? entries.find((entry) => entry.time > seconds + 0.05)
      : entries.findLast((entry) => entry.time < seconds - 0.3);
  }
}

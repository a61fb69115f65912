// The timeline: what was said and asked at its time, what the model has seen, and how much it
// wished to speak. One stop for the Tab key; the arrow keys walk along its marks.

import { el, mss } from "./dom.js";

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
const LEAST_S = 20;

/** The seconds that a timeline of unknown end shows: some more than there are. */
function rounded(seconds) {
  const step = STEPS_S.find((s) => s * 8 >= seconds) ?? 7200;
  return Math.max(LEAST_S, Math.ceil((seconds + step / 2) / step) * step);
}

export class Timeline {
  /** `hears` has `seek(seconds)` and `chosen(entry)`; `words(entry)` says what a mark stands for. */
  constructor(root, hears, words) {
    Object.assign(this, { root, hears, words });
    this.axis = el("div", { className: "axis", "aria-hidden": "true" });
    this.seen = el("div", { className: "seen" });
    this.wish = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.wish.setAttribute("class", "wish");
    this.wish.setAttribute("preserveAspectRatio", "none");
    this.wish.setAttribute("aria-hidden", "true");
    this.area = document.createElementNS("http://www.w3.org/2000/svg", "path");
    this.wish.append(this.area);
    this.marks = el("div", { className: "marks", role: "group", "aria-label": "Narrations and questions by time" });
    this.head = el("div", { className: "head", hidden: true });
    this.tip = el("div", { className: "tip", hidden: true, "aria-hidden": "true" });
    this.track = el("div", { className: "track" }, this.seen, this.wish, this.marks, this.head);
    root.append(this.axis, this.track, this.tip);
    this.listen();
    this.clear();
  }

  clear() {
    this.entries = [];
    this.lost = [];
    this.end = LEAST_S;
    this.known = null;
    this.marks.replaceChildren();
    this.area.setAttribute("d", "");
    this.seen.style.width = "0";
    this.head.hidden = true;
    this.hide();
    this.layOut();
  }

  /** The video's length in seconds; null where it has no end. */
  length(seconds) {
    this.known = Number.isFinite(seconds) && seconds > 0 ? seconds : null;
    this.reach(this.known ?? LEAST_S);
  }

  /** Make room for what happens at `seconds`. */
  reach(seconds) {
    const end = this.known !== null && seconds <= this.known ? this.known : rounded(seconds);
    if (end === this.end || (this.known === null && end < this.end)) return;
    this.end = end;
    this.layOut();
  }

  /** Show an entry of the transcript, or what has changed of it. */
  mark(entry) {
    this.reach(entry.time);
    let mark = this.entries[entry.number]?.mark;
    if (!mark) {
      mark = el("button", { type: "button", className: `mark ${entry.kind}`, tabIndex: this.marks.querySelector(".mark") ? -1 : 0 });
      mark.dataset.number = entry.number;
      this.entries[entry.number] = { entry, mark };
      this.marks.append(mark);
      mark.style.left = this.percent(entry.time);
    }
    mark.setAttribute("aria-label", `${mss(entry.time)} ${this.words(entry)}`);
  }

  /** A frame that was dropped, and why. */
  drop(time, why) {
    this.reach(time);
    const mark = el("div", { className: "lost", title: `${mss(time)} ${why}` });
    mark.style.left = this.percent(time);
    this.lost.push({ time, mark });
    this.marks.prepend(mark);
  }

  /** What was seen: times of frames, and of each how much the model wished to speak. */
  progress(times, wishes) {
    if (!times.length) return;
    const last = times[times.length - 1];
    this.reach(last);
    this.seen.style.width = this.percent(last);
    const every = Math.max(1, Math.floor(times.length / 1200));
    let path = `M${times[0]} 1`;
    for (let i = 0; i < times.length; i += every) {
      let most = 0;
      for (let j = i; j < Math.min(times.length, i + every); j++) most = Math.max(most, wishes[j] ?? 0);
      path += `L${times[i].toFixed(2)} ${(1 - most).toFixed(3)}`;
    }
    this.area.setAttribute("d", `${path}L${last} 1Z`);
  }

  /** Where the video stands. */
  at(seconds) {
    this.head.hidden = seconds === null;
    if (seconds !== null) this.head.style.left = this.percent(Math.min(seconds, this.end));
  }

  percent(seconds) {
    return `${(100 * seconds) / this.end}%`;
  }

  layOut() {
    const step = STEPS_S.find((s) => this.end / s <= 9) ?? 7200;
    const ticks = [];
    for (let t = 0; t < this.end - step * 0.4; t += step) ticks.push(t);
    this.axis.replaceChildren(
      ...[...ticks, this.end].map((t, i, all) => {
        const tick = el("span", { className: i === all.length - 1 ? "end" : "" }, mss(t));
        tick.style.left = this.percent(t);
        return tick;
      }),
    );
    this.wish.setAttribute("viewBox", `0 0 ${this.end} 1`);
    this.entries.forEach(({ entry, mark }) => { mark.style.left = this.percent(entry.time); });
    this.lost.forEach(({ time, mark }) => { mark.style.left = this.percent(time); });
  }

  listen() {
    const { track, marks } = this;
    const all = () => [...marks.querySelectorAll(".mark")];
    const of = (mark) => this.entries[Number(mark.dataset.number)].entry;
    marks.addEventListener("keydown", (event) => {
      const list = all();
      const i = list.indexOf(event.target);
      if (i < 0) return;
      if (event.key === "Escape") this.hide();
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: list.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      this.focus(list[Math.min(Math.max(to, 0), list.length - 1)]);
    });
    const under = (event) => {
      const box = track.getBoundingClientRect();
      const near = all().map((mark) => [Math.abs(box.left + (box.width * of(mark).time) / this.end - event.clientX), mark]);
      near.sort((a, b) => a[0] - b[0]);
      return near.length && near[0][0] < 8 ? near[0][1] : null;
    };
    track.addEventListener("pointermove", (event) => {
      const mark = under(event);
      if (mark) this.hint(mark);
      else this.hide();
    });
    track.addEventListener("pointerleave", () => this.hide());
    track.addEventListener("click", (event) => {
      // A click without a pointer is the Enter or Space key on a mark.
      const mark = event.detail ? under(event) : event.target.closest(".mark");
      if (mark) return this.hears.chosen(of(mark));
      const box = track.getBoundingClientRect();
      return this.hears.seek(((event.clientX - box.left) / box.width) * this.end);
    });
    marks.addEventListener("focusin", (event) => event.target.matches(".mark") && this.hint(event.target));
    marks.addEventListener("focusout", () => this.hide());
  }

  focus(mark) {
    this.marks.querySelectorAll(".mark").forEach((each) => { each.tabIndex = -1; });
    mark.tabIndex = 0;
    mark.focus();
  }

  hint(mark) {
    const { entry } = this.entries[Number(mark.dataset.number)];
    this.marks.querySelector(".on")?.classList.remove("on");
    mark.classList.add("on");
    this.tip.replaceChildren(el("time", {}, mss(entry.time)), this.words(entry));
    this.tip.hidden = false;
    const half = this.tip.offsetWidth / 2;
    const middle = (this.track.offsetWidth * entry.time) / this.end;
    this.tip.style.left = `${Math.min(Math.max(middle, half), Math.max(this.track.offsetWidth - half, half))}px`;
  }

  hide() {
    this.tip.hidden = true;
    this.marks.querySelector(".on")?.classList.remove("on");
  }
}

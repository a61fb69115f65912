// Which vision tokens the router kept, over the frame that is shown: what was skipped is dimmed,
// what ran is tinted the more, the more layers it ran in.

import { call } from "./api.js";
import { count, mss } from "./dom.js";

/** How a cell looks that ran in `share` (0-1) of the layers that route. */
export const tint = (share) => (share ? `rgb(255 176 32 / ${(0.16 + 0.44 * share).toFixed(2)})` : "rgb(8 10 16 / 0.55)");

export class Heat {
  /** `tell(layers, text)` says what is shown, or why nothing is. */
  constructor(canvas, video, tell) {
    Object.assign(this, { canvas, video, tell });
    this.on = false;
    this.forget(null);
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
  }

  /** Another session's frames come. */
  forget(session) {
    this.session = session;
    this.frames = new Map();
    this.asked = null;
    this.shown = null;
    this.draw();
  }

  /** Show frame `number`, at `time` seconds. */
  async frame(number, time) {
    if (!this.on || this.session === null || number < 0) return;
    this.wanted = [number, time];
    if (!this.frames.has(number)) {
      if (this.asked !== null) return;  // one at a time
      const session = this.session;
      this.asked = number;
      let found = null;
      try {
        found = await call("GET", `v1/sessions/${encodeURIComponent(session)}/kept?frame=${number}`);
      } catch (error) {
        found = { error: error.message, status: error.status };
      }
      if (session !== this.session) return;
      this.asked = null;
      if (found.status !== 0) this.frames.set(number, found);
      if (this.frames.size > 4096) this.frames.delete(this.frames.keys().next().value);
      // Meanwhile the video has gone on.
      if (this.wanted[0] !== number) return this.frame(...this.wanted);
    }
    const found = this.frames.get(number);
    if (!found || !this.on || this.shown === found) return;
    this.shown = found;
    this.draw();
    if (found.error) return this.tell(0, found.error);
    const ran = found.counts.filter((c) => c > 0).length;
    this.tell(
      found.layers,
      found.layers
        ? `${ran} of ${found.counts.length} tokens of the frame at ${mss(time)} ran in at least one of the ${count(found.layers, "layer")} that route`
        : "This model routes nothing: every token runs in every layer.",
    );
  }

  hide() {
    this.on = false;
    this.shown = null;
    this.draw();
  }

  draw() {
    const { canvas, video, shown } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const ratio = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.max(1, width * ratio), Math.max(1, height * ratio)];
    if (!this.on || !shown?.layers) return;
    // The picture lies in the middle of its box, as large as it fits.
    const scale = Math.min(width / (video.videoWidth || width), height / (video.videoHeight || height));
    const [w, h] = [(video.videoWidth || width) * scale, (video.videoHeight || height) * scale];
    const [left, top] = [(width - w) / 2, (height - h) / 2];
    const paint = canvas.getContext("2d");
    paint.scale(ratio, ratio);
    const [cw, ch] = [w / shown.columns, h / shown.rows];
    shown.counts.forEach((n, i) => {
      const [x, y] = [left + (i % shown.columns) * cw, top + Math.floor(i / shown.columns) * ch];
      paint.fillStyle = tint(n / shown.layers);
      paint.fillRect(x, y, cw, ch);
      if (!n) return;
      paint.strokeStyle = "rgb(255 190 70 / 0.9)";
      paint.lineWidth = Math.min(2, cw / 12);
      paint.strokeRect(x + 1, y + 1, cw - 2, ch - 2);
    });
  }
}

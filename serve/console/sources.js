// Where frames come from: a file that plays here, a camera, a screen. Each becomes a JPEG on the
// grid of the session's fps, in real time.

const MOST_SIDE = 640, QUALITY = 0.85;
/** Of a grid step: times that were rounded still hit their step. */
const ROUNDING = 1e-3;

/** Why a camera or screen cannot be had, in words for whoever asked for it. */
function refusal(error, what) {
  if (!window.isSecureContext) {
    return `Browsers give a page the ${what} only over https, or on localhost. Open this page there.`;
  }
  switch (error?.name) {
    case "NotAllowedError":
      return what === "screen"
        ? "Sharing the screen was not allowed. Choose it again, and pick what to share."
        : "Using the camera was not allowed. Allow it for this page in the browser, then try again.";
    case "NotFoundError": return `There is no ${what} to use.`;
    case "NotReadableError": return `The ${what} is in use by another program.`;
    case undefined: return `This browser cannot share a ${what}.`;
    default: return `The ${what} cannot be used: ${error.message}`;
  }
}

/** The camera's or screen's stream of pictures. */
export async function openLive(kind) {
  const devices = navigator.mediaDevices;
  const video = { frameRate: { ideal: 15 }, width: { ideal: 1280 } };
  const open = kind === "camera" ? devices?.getUserMedia : devices?.getDisplayMedia;
  if (!open) throw new Error(refusal(undefined, kind));
  try {
    return await open.call(devices, { video, audio: false });
  } catch (error) {
    throw new Error(refusal(error, kind));
  }
}

/** Show `file` in `video`; whether this browser can play its pictures. */
export function playable(video, file) {
  return new Promise((told) => {
    const tell = (can) => {
      video.removeEventListener("loadeddata", loaded);
      video.removeEventListener("error", failed);
      told(can);
    };
    const loaded = () => tell(video.videoWidth > 0);
    const failed = () => tell(false);
    video.addEventListener("loadeddata", loaded);
    video.addEventListener("error", failed);
    video.srcObject = null;
    video.src = URL.createObjectURL(file);
    video.load();
  });
}

export class Capture {
  /**
   * Takes frames from `video` while it plays.
   *
   * `live`: times go on from `from` by the clock; else they are the video's own, and frames up to
   * `from` were seen before. `hears` has `frame(jpeg, time)`, `room()`, `missed(time, why)` of a
   * live frame that was not taken (`unsent`: nobody has room for it; `slow`: this page was too
   * late), and `waits(whether)` of a file that waits for room.
   */
  constructor(video, { fps, live, from, hears }) {
    Object.assign(this, { video, fps, live, hears });
    this.canvas = document.createElement("canvas");
    this.last = from === null ? -1 : Math.floor(from * fps + ROUNDING);
    this.began = this.returning = null;
    this.busy = this.waiting = this.stopped = this.sought = false;
    this.each = () => {
      if (this.stopped) return;
      this.tick();
      this.asked = video.requestVideoFrameCallback?.(this.each);
    };
    // Whether the user leapt ahead: what lies between is then not missed.
    this.seeks = () => { this.sought = !live && this.step() > this.last + 1; };
    video.addEventListener("seeking", this.seeks);
    this.asked = video.requestVideoFrameCallback?.(this.each);
    // Browsers draw no frames of a page that is hidden; its clock still runs.
    this.timer = setInterval(() => this.tick(), Math.min(250, 1000 / fps / 3));
  }

  /** Whether a file stands still for the sake of the model, and not because the user paused it. */
  get holds() {
    return this.waiting || this.returning !== null;
  }

  /** Seconds at which the last frame was taken; null before the first. */
  get reached() {
    return this.last < 0 ? null : this.last / this.fps;
  }

  tick() {
    const { video } = this;
    if (this.waiting && this.hears.room()) this.wait(false);
    if (this.stopped || this.busy || video.seeking || video.readyState < 2) return;
    if (this.returning !== null) return this.returned();
    if (video.paused && !(video.ended && !this.live)) return;
    const step = this.step();
    if (step <= this.last) return;
    const room = this.hears.room();
    if (!room && !this.live) return this.wait(true);
    if (step > this.last + 1 && !this.sought) {
      if (!this.live) return this.goBack(this.last + 1);
      for (let at = this.last + 1; at < step; at++) this.hears.missed(at / this.fps, "slow");
    }
    this.sought = false;
    this.last = step;
    if (room) this.take(step / this.fps);
    else this.hears.missed(step / this.fps, "unsent");
  }

  /** On the grid, where the source stands. */
  step() {
    const now = performance.now() / 1000;
    this.began ??= now - (this.last + 1) / this.fps;
    const at = (time) => Math.floor(time * this.fps + ROUNDING);
    if (this.live) return at(now - this.began);
    // At its very end a file has no frame.
    const end = Math.ceil(this.video.duration * this.fps - ROUNDING) - 1;
    return Math.min(at(this.video.currentTime), Math.max(0, end));
  }

  /** A file need not lose what this page was too late for. */
  goBack(step) {
    this.returning = step;
    this.video.pause();
    this.video.currentTime = (step + 2 * ROUNDING) / this.fps;
  }

  returned() {
    const step = this.step();
    if (step === this.returning) {
      this.last = step;
      this.take(step / this.fps);
    }
    // Else the user went elsewhere meanwhile.
    this.returning = null;
    this.video.play().catch(() => {});
  }

  /** A file is stopped while nobody has room for its frames. */
  wait(whether) {
    this.waiting = whether;
    this.hears.waits(whether);
    if (whether) this.video.pause();
    else this.video.play().catch(() => {});
  }

  take(time) {
    const { video, canvas } = this;
    const scale = Math.min(1, MOST_SIDE / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.max(1, Math.round(video.videoWidth * scale));
    canvas.height = Math.max(1, Math.round(video.videoHeight * scale));
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    this.busy = true;
    canvas.toBlob((jpeg) => {
      this.busy = false;
      if (jpeg && !this.stopped) this.hears.frame(jpeg, time);
    }, "image/jpeg", QUALITY);
  }

  stop() {
    this.stopped = true;
    clearInterval(this.timer);
    this.video.removeEventListener("seeking", this.seeks);
    this.video.cancelVideoFrameCallback?.(this.asked);
    this.video.srcObject?.getTracks().forEach((track) => track.stop());
  }
}

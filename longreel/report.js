"use strict";
// Adds hints to the timelines and pictures to the lists. Everything is set as text or copied from
// the page itself, so nothing a narration says can become markup.
(() => {
  const MOST = 3;

  // A list shows its scene's keyframe; the bytes stand once in the page, in the filmstrip.
  const picture = (slot) => {
    const source = document.getElementById(slot.dataset.of);
    if (!source || source.tagName !== "IMG" || slot.firstChild) return;
    const image = source.cloneNode();
    image.removeAttribute("id");
    image.alt = "";
    slot.append(image);
  };
  const fill = (root) => root.querySelectorAll(".thumb[data-of]").forEach(picture);
  document.querySelectorAll("section > .scenes").forEach(fill);
  document.querySelectorAll("details.rest").forEach((each) =>
    each.addEventListener("toggle", () => each.open && fill(each)));

  const rows = (mark) => {
    const [, card, first] = mark.hash.match(/^#(v\d+)n(\d+)$/);
    const found = [];
    for (let i = 0; i < Math.min(Number(mark.dataset.n), MOST); i++) {
      const row = document.getElementById(`${card}n${Number(first) + i}`);
      if (row) found.push(row);
    }
    return found;
  };

  const show = (time, mark) => {
    const tip = time.querySelector(".tip");
    time.querySelector(".mark.on")?.classList.remove("on");
    mark.classList.add("on");
    const lines = rows(mark).map((row) => {
      const line = document.createElement("p");
      const when = document.createElement("time");
      when.textContent = row.querySelector("time").textContent;
      line.append(when, row.querySelector("span").textContent);
      return line;
    });
    const more = Number(mark.dataset.n) - lines.length;
    if (more > 0) {
      const line = document.createElement("p");
      line.className = "more";
      line.textContent = `and ${more} more here`;
      lines.push(line);
    }
    tip.replaceChildren(...lines);
    tip.hidden = false;
    const track = time.querySelector(".track");
    const half = tip.offsetWidth / 2;
    const middle = mark.offsetLeft + mark.offsetWidth / 2;
    const left = Math.min(Math.max(middle, half), Math.max(track.offsetWidth - half, half));
    tip.style.left = `${left}px`;
    tip.style.top = `${track.offsetTop - tip.offsetHeight - 8}px`;
    nearest(time, parseFloat(mark.style.left));
  };

  // The keyframe on screen at that moment: the last one before it.
  const nearest = (time, at) => {
    const shots = [...time.querySelectorAll(".strip > li")];
    const links = [...time.querySelectorAll(".links > path")];
    const before = shots.filter((each) => Number(each.dataset.left) <= at + 1e-6).length - 1;
    shots.forEach((each, i) => each.classList.toggle("on", i === before));
    links.forEach((each, i) => each.classList.toggle("on", i === before));
  };

  const hide = (time) => {
    time.querySelector(".tip").hidden = true;
    time.querySelectorAll(".on").forEach((each) => each.classList.remove("on"));
  };

  document.querySelectorAll(".time").forEach((time) => {
    const track = time.querySelector(".track");
    const marks = [...track.querySelectorAll(".mark")];
    if (!marks.length) return;
    // One stop for the Tab key per timeline; the arrow keys walk along it.
    marks.forEach((mark, i) => { mark.tabIndex = i ? -1 : 0; });
    const go = (i) => {
      marks.forEach((mark) => { mark.tabIndex = -1; });
      const mark = marks[Math.min(Math.max(i, 0), marks.length - 1)];
      mark.tabIndex = 0;
      mark.focus();
    };
    track.addEventListener("keydown", (event) => {
      const i = marks.indexOf(event.target);
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: marks.length - 1 }[event.key];
      if (event.key === "Escape") hide(time);
      if (to === undefined || i < 0) return;
      event.preventDefault();
      go(to);
    });
    const under = (event) => {
      const box = track.getBoundingClientRect();
      const at = event.clientX - box.left;
      const away = (mark) => Math.max(
        mark.offsetLeft - at, at - mark.offsetLeft - mark.offsetWidth, 0);
      return marks.reduce((best, mark) => (away(mark) < away(best) ? mark : best));
    };
    let touched = false;
    track.addEventListener("pointerdown", (event) => { touched = event.pointerType !== "mouse"; });
    track.addEventListener("pointermove", (event) => show(time, under(event)));
    track.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide(time));
    track.addEventListener("click", (event) => {
      // Enter on a focused mark follows its link; so does a mouse. A finger only looks.
      const mark = event.detail ? under(event) : event.target.closest(".mark");
      if (!mark) return;
      event.preventDefault();
      if (touched) show(time, mark);
      else location.hash = mark.hash;
    });
    track.addEventListener("focusin", (event) => show(time, event.target));
    track.addEventListener("focusout", () => hide(time));
  });

  document.addEventListener("pointerdown", (event) => {
    document.querySelectorAll(".time:has(.mark.on)").forEach((time) =>
      time.contains(event.target) || hide(time));
  });

  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const list = target && target.closest("details");
    if (!list) return;
    list.open = true;
    target.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Paper cannot be tapped.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("article details:not([open])")];
    closed.forEach((each) => { each.open = true; fill(each); });
  });
  addEventListener("afterprint", () => closed.forEach((each) => { each.open = false; }));
})();

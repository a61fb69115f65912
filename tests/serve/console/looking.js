// What tests of the console look at, in the page: `looking`.

globalThis.looking = {
  /** The control that has the focus: what it is, its name, and whether one sees that it has it. */
  focused() {
    const at = document.activeElement;
    if (at === document.body) return null;
    const titled = document.getElementById(at.getAttribute("aria-labelledby"));
    const name = at.getAttribute("aria-label") ?? (at.labels?.[0] ?? titled ?? at).innerText;
    const kind = at.matches(".mark") ? "mark" : at.closest("#said") ? "line" : at.dataset.key;
    const { outlineStyle, outlineWidth } = getComputedStyle(at);
    // The browser's own buttons on a video are drawn by it.
    const seen = (outlineStyle !== "none" && parseFloat(outlineWidth) >= 2) || at.tagName === "VIDEO";
    return { key: at.id || kind || name, name: name.trim(), seen };
  },

  /** Visible texts whose contrast to what lies behind is below 4.5 (WCAG 2.1, 1.4.3). */
  faint() {
    const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = (colour) => {
      const [r, g, b] = colour.map((v) => linear(v / 255));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (at) => {
      for (; at; at = at.parentElement) {
        const colour = numbers(getComputedStyle(at).backgroundColor);
        if (colour.length < 4 || colour[3] > 0.5) return colour;
      }
      return [255, 255, 255];
    };
    const faint = [];
    for (const at of document.querySelectorAll("body *")) {
      const own = [...at.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
      // What is disabled is exempt.
      if (!own || !at.checkVisibility({ visibilityProperty: true }) || at.matches(":disabled")) continue;
      const pair = [numbers(getComputedStyle(at).color), behind(at)].map(light);
      const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
      if (ratio < 4.5) faint.push(`${at.id || at.className} ${at.textContent.trim()} ${ratio.toFixed(2)}`);
    }
    return faint;
  },

  /** Of each cell of a 3x3 grid over a square picture, whether the heat map makes it orange. */
  tinted() {
    const canvas = document.getElementById("heat");
    const paint = canvas.getContext("2d");
    const [w, h] = [canvas.width, canvas.height];
    const edge = Math.min(w, h);
    return [...Array(9).keys()].map((i) => {
      const x = (w - edge) / 2 + (((i % 3) + 0.5) * edge) / 3;
      const y = (h - edge) / 2 + ((Math.floor(i / 3) + 0.5) * edge) / 3;
      const [r, , b, a] = paint.getImageData(x, y, 1, 1).data;
      return a > 0 && r > 2 * b;
    });
  },
};

// The result: image, classes over it, a pointer that tells class and probability, a legend that picks classes.

import { blobOf, inflate } from "./service.js";

const percent = (share) => share >= 0.9995 ? "100 %" : share >= 0.0995 ? `${(100 * share).toFixed(0)} %` : `${(100 * share).toFixed(1)} %`;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Viewer {
  constructor() {
    const find = (id) => document.getElementById(id);
    this.box = find("viewer");
    this.image = find("base-image");
    this.canvas = find("classes");
    this.cross = find("cross");
    this.readout = find("readout");
    this.list = find("class-list");
    this.box.addEventListener("pointermove", (event) => this.pointAt(event));
    this.box.addEventListener("pointerdown", (event) => this.pointAt(event));
    this.box.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") this.leave(); });
    this.box.addEventListener("keydown", (event) => this.step(event));
  }

  async show(answer) {
    const { width, height } = answer.size;
    this.answer = answer;
    this.index = expand(answer.runs, width * height);
    this.confidence = await inflate(answer.confidence);
    this.hidden = new Set();
    this.only = null;
    this.place = null;
    Object.values(this.urls ?? {}).forEach(URL.revokeObjectURL);
    const views = Object.entries(answer.views).filter(([, view]) => view);
    this.urls = Object.fromEntries(views.map(([field, view]) => [field, URL.createObjectURL(blobOf(view))]));
    this.canvas.width = width;
    this.canvas.height = height;
    this.box.style.aspectRatio = `${width} / ${height}`;
    this.box.style.setProperty("--shape", width / height);
    this.draw();
    this.leave();
    this.writeLegend();
  }

  async setBase(field) {
    this.image.src = this.urls[field] ?? Object.values(this.urls)[0];
    await this.image.decode();
  }

  setOpacity(share) { this.canvas.style.opacity = share; }

  draw() {
    const table = new Uint32Array(256), rims = new Uint32Array(256);
    const bytes = new Uint8Array(table.buffer), rimBytes = new Uint8Array(rims.buffer);
    for (const { index, color } of this.answer.classes) {
      const black = color.every((channel) => channel === 0);  // the unlabeled class would veil the picture
      const faint = this.only !== null && this.only !== index;
      const alpha = this.hidden.has(index) || (black && this.only !== index) ? 0 : faint ? 40 : 255;
      bytes.set([...(black ? [255, 255, 255] : color), alpha], 4 * index);
      rimBytes.set([...color.map((channel) => 150 + channel * 105 / 255), alpha], 4 * index);
    }
    const { width, height } = this.canvas, classes = this.index;
    const pixels = new Uint32Array(classes.length);
    const reach = Math.max(1, Math.round(width / 640));  // a bright rim tells dark classes from dark ground
    for (let y = 0, i = 0; y < height; y++) {
      const above = y < reach ? 0 : -reach * width, below = y >= height - reach ? 0 : reach * width;
      for (let x = 0; x < width; x++, i++) {
        const here = classes[i];
        const rim = classes[i + above] !== here || classes[i + below] !== here
          || (x >= reach && classes[i - reach] !== here) || (x < width - reach && classes[i + reach] !== here);
        pixels[i] = (rim ? rims : table)[here];
      }
    }
    this.canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  }

  pointAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * this.canvas.width);
    const y = Math.floor((event.clientY - box.top) / box.height * this.canvas.height);
    if (x >= 0 && y >= 0 && x < this.canvas.width && y < this.canvas.height) this.read(x, y);
  }

  step(event) {
    const arrow = ARROWS[event.key];
    if (event.key === "Escape") this.leave();
    if (!arrow) return;
    event.preventDefault();
    const { width, height } = this.canvas;
    const stride = event.shiftKey ? 1 : Math.max(1, Math.round(width / 64));
    const [x, y] = this.place ?? [width >> 1, height >> 1];
    this.read(Math.min(Math.max(x + stride * arrow[0], 0), width - 1), Math.min(Math.max(y + stride * arrow[1], 0), height - 1));
  }

  read(x, y) {
    this.place = [x, y];
    const at = y * this.canvas.width + x;
    const kind = this.answer.classes[this.index[at]];
    const swatch = element("span", "swatch");
    swatch.style.background = `rgb(${kind.color})`;
    this.readout.replaceChildren(
      swatch,
      element("strong", "", kind.name),
      element("span", "probability", percent(this.confidence[at] / 255)),
      element("span", "where", `x ${x}, y ${y}`),
    );
    this.cross.hidden = false;
    this.cross.style.left = `${100 * (x + 0.5) / this.canvas.width}%`;
    this.cross.style.top = `${100 * (y + 0.5) / this.canvas.height}%`;
  }

  leave() {
    this.place = null;
    this.cross.hidden = true;
    this.readout.textContent = "Point at the picture, or move over it with the arrow keys, for class and probability.";
  }

  writeLegend() {
    const classes = [...this.answer.classes].sort((a, b) => b.share - a.share || a.index - b.index);
    const most = Math.max(...classes.map((kind) => kind.share));
    this.list.replaceChildren(...classes.map((kind) => {
      const button = element("button", "class");
      button.type = "button";
      button.disabled = kind.pixels === 0;
      button.setAttribute("aria-pressed", "true");
      button.title = "Show or hide this class";
      const swatch = element("span", "swatch");
      swatch.style.background = `rgb(${kind.color})`;
      const bar = element("span", "bar");
      bar.style.width = `${100 * kind.share / most}%`;
      const sure = kind.mean_confidence === null ? "" : `mean probability ${percent(kind.mean_confidence)}`;
      const share = element("span", "share", kind.pixels ? percent(kind.share) : "none");
      button.append(swatch, element("span", "name", kind.name), share, element("span", "sure", sure), bar);
      button.addEventListener("click", () => this.toggle(kind.index, button));
      for (const [event, only] of [["pointerenter", kind.index], ["focus", kind.index], ["pointerleave", null], ["blur", null]]) {
        button.addEventListener(event, () => { this.only = only; this.draw(); });
      }
      const item = element("li");
      item.append(button);
      return item;
    }));
  }

  toggle(index, button) {
    const showing = this.hidden.delete(index);
    if (!showing) this.hidden.add(index);
    button.setAttribute("aria-pressed", String(showing));
    this.draw();
  }

  // The picture as it is seen now.
  async overlay() {
    const copy = document.createElement("canvas");
    copy.width = this.canvas.width;
    copy.height = this.canvas.height;
    const context = copy.getContext("2d");
    context.drawImage(this.image, 0, 0, copy.width, copy.height);
    context.globalAlpha = Number(this.canvas.style.opacity);
    context.drawImage(this.canvas, 0, 0);
    return new Promise((done) => copy.toBlob(done, "image/png"));
  }
}

function expand({ values, lengths }, size) {
  const index = new Uint8Array(size);
  let at = 0;
  values.forEach((value, run) => index.fill(value, at, at += lengths[run]));
  return index;
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

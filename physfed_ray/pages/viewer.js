/* A viewer of CT slices on canvas: no library, no network. Python packs the pixels
   (viewer_pixels.py), viewer_fragment.html holds the controls, docs/viewer.md the manual. */
(function () {
"use strict";

const PAD = 2, KEPT_PX = 24, LOUPE_PX = 95, LOUPE_ZOOM = 4, FLICKER_MS = 500;
const DIFFERENCE_HU = 200, MOST_ZOOM = 24, STEP_KEY = 1.15;
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const hu = (x) => (Math.round(x) || 0).toString().replace("-", "\u2212");

/* ---- Pixels: the exact inverse of viewer_pixels.py ---- */

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function unpack(bytes, data) {
  const [height, width] = data.shape, wide = width + 2 * PAD, size = height * width;
  const { own, before, one } = data.places, images = [];
  let at = 0, last = null;
  for (let k = 0; k < data.names.length; k++) {
    const places = last ? own.concat(before) : own;
    const view = new DataView(bytes.buffer, bytes.byteOffset + at, 2 * places.length);
    const weights = places.map((_, i) => view.getInt16(2 * i, true));
    const moves = places.map(([row, column]) => row * wide + column);
    at += 2 * places.length;
    const padded = new Int32Array(wide * (height + 2 * PAD)), image = new Int16Array(size);
    for (let i = 0, y = 0; y < height; y++) {
      for (let x = 0, p = (y + PAD) * wide + PAD; x < width; x++, p++, i++) {
        let sum = one / 2, n = 0;
        for (; n < own.length; n++) sum += weights[n] * padded[p + moves[n]];
        for (; n < weights.length; n++) sum += weights[n] * last[p + moves[n]];
        const folded = bytes[at + i] | (bytes[at + size + i] << 8);
        const missed = (folded >>> 1) ^ -(folded & 1);
        image[i] = Math.floor(sum / one) + missed;
        padded[p] = image[i];
      }
    }
    at += 2 * size;
    images.push(image);
    last = padded;
  }
  return images;
}

/* ---- One viewer ---- */

class Viewer {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(root.querySelector(".viewer-data").textContent);
    this.wholePage = root.hasAttribute("data-whole-page");
    this.stage = root.querySelector(".viewer-stage");
    this.chart = root.querySelector(".viewer-profile");
    [this.height, this.width] = this.data.shape;
    this.slices = new Map();
    this.slice = 0;
    this.pointers = new Map();
    this.wheel = 0;
    this.picture = Object.assign(document.createElement("canvas"),
      { width: this.width, height: this.height });
    for (const part of root.querySelectorAll("[hidden]")) part.hidden = false;
    this.clear();
    this.listen();
    this.show(this.wholePage ? Math.floor(this.data.chunks.length / 2) : 0).then(() => this.readAhead());
  }

  /* Begin anew, in everything but the slice. */
  clear() {
    const names = this.data.names, run = this.data.windows["Soft tissue"];
    this.image = Math.min(1, names.length - 1);
    this.reference = names.length > 2 ? names.length - 1 : 0;
    this.window = [(run[0] + run[1]) / 2, run[1] - run[0]];
    this.differenceWidth = DIFFERENCE_HU;
    this.difference = false;
    this.tool = "window";
    this.zoom = 1;
    this.centre = [this.width / 2, this.height / 2];
    this.line = this.point = this.lineFrom = null;
    this.flicker(false);
  }

  /* ---- Slices ---- */

  async load(k) {
    if (!this.slices.has(k)) {
      this.slices.set(k, inflate(this.data.chunks[k]).then((bytes) => unpack(bytes, this.data)));
    }
    return this.slices.get(k);
  }

  async show(k) {
    this.slice = clamp(k, 0, this.data.chunks.length - 1);
    const wanted = this.slice;
    try {
      const images = await this.load(wanted);
      if (wanted !== this.slice) return;
      this.images = images;
      this.draw();
    } catch (problem) {
      this.failed = "The images cannot be unpacked (" + problem.message + "). This page needs a "
        + "browser of 2023 or later.";
      this.root.querySelector(".viewer-status").textContent = this.failed;
    }
  }

  async readAhead() {
    for (let k = 0; k < this.data.chunks.length && !this.failed; k++) await this.load(k);
  }

  /* HU of an image in a pixel, NaN beside it. */
  value(image, x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return NaN;
    return this.images[image][y * this.width + x] * this.data.step;
  }

  /* HU between the centres of four pixels; pixel (x, y) has its centre at (x + 0.5, y + 0.5). */
  between(image, x, y) {
    x = clamp(x - 0.5, 0, this.width - 1);
    y = clamp(y - 0.5, 0, this.height - 1);
    const x0 = Math.min(Math.floor(x), this.width - 2), y0 = Math.min(Math.floor(y), this.height - 2);
    const u = x - x0, v = y - y0, at = (i, j) => this.value(image, x0 + i, y0 + j);
    return (1 - v) * ((1 - u) * at(0, 0) + u * at(1, 0)) + v * ((1 - u) * at(0, 1) + u * at(1, 1));
  }

  /* Millimetres and HU of every image along the line, or null. */
  profile() {
    if (!this.line || !this.images) return null;
    const [[x0, y0], [x1, y1]] = this.line, [high, wide] = this.data.spacing[this.slice];
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0)));
    const length = Math.hypot((x1 - x0) * wide, (y1 - y0) * high);
    const along = Array.from({ length: steps + 1 }, (_, i) => i / steps);
    return {
      mm: along.map((t) => t * length),
      hu: this.images.map((_, k) =>
        along.map((t) => this.between(k, x0 + t * (x1 - x0), y0 + t * (y1 - y0)))),
    };
  }

  /* ---- Geometry: image pixels and places on the screen (CSS pixels) ---- */

  measure() {
    const [high, wide] = this.data.spacing[this.slice];
    const box = this.stage.getBoundingClientRect();
    this.ratio = (this.height * high) / (this.width * wide);
    const most = Math.max(240, 0.86 * window.innerHeight);
    this.size = [box.width, Math.min(box.width * this.ratio, most)];
    const fit = Math.min(this.size[0] / (this.width * wide), this.size[1] / (this.height * high));
    this.scale = [fit * wide * this.zoom, fit * high * this.zoom];
  }

  toScreen([x, y]) {
    return [this.size[0] / 2 + (x - this.centre[0]) * this.scale[0],
      this.size[1] / 2 + (y - this.centre[1]) * this.scale[1]];
  }

  toImage([x, y]) {
    return [this.centre[0] + (x - this.size[0] / 2) / this.scale[0],
      this.centre[1] + (y - this.size[1] / 2) / this.scale[1]];
  }

  /* Change the zoom, and keep what lies at a place of the screen where it is. */
  zoomTo(zoom, place = [this.size[0] / 2, this.size[1] / 2]) {
    const under = this.toImage(place);
    this.zoom = clamp(zoom, 1, MOST_ZOOM);
    this.measure();
    const now = this.toImage(place);
    this.moveTo([this.centre[0] + under[0] - now[0], this.centre[1] + under[1] - now[1]]);
  }

  moveTo([x, y]) {
    const free = [0, 1].map((k) => {
      const length = k ? this.height : this.width;
      return Math.max(0, length / 2 - this.size[k] / this.scale[k] / 2 + (this.zoom > 1 ? 8 : 0));
    });
    this.centre = [clamp(x, this.width / 2 - free[0], this.width / 2 + free[0]),
      clamp(y, this.height / 2 - free[1], this.height / 2 + free[1])];
    this.draw();
  }

  /* ---- What the reader changes ---- */

  choose(image) {
    const count = this.data.names.length;
    this.image = (image + count) % count;
    this.draw();
  }

  flicker(on) {
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => this.choose(this.image + 1), FLICKER_MS) : null;
  }

  setWindow(level, width) {
    if (this.difference) this.differenceWidth = clamp(width, 2, 8000);
    else this.window = [clamp(level, -4000, 8000), clamp(width, 1, 20000)];
    this.draw();
  }

  get level() { return this.difference ? 0 : this.window[0]; }
  get span() { return this.difference ? this.differenceWidth : this.window[1]; }

  act(name) {
    if (name === "flicker") this.flicker(!this.timer);
    else if (name === "difference") this.difference = !this.difference;
    else if (name === "reset") this.clear();
    else if (name === "in") return this.zoomTo(this.zoom * 1.4);
    else if (name === "out") return this.zoomTo(this.zoom / 1.4);
    return this.draw();
  }

  /* ---- Drawing ---- */

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      if (!this.images) return;
      this.paint();
      this.paintStage();
      this.paintChart();
      this.tell();
    });
  }

  /* Fill the picture with grey values, or with the colours of a difference. */
  paint() {
    const pixels = new ImageData(this.width, this.height), out = new Uint32Array(pixels.data.buffer);
    const shown = this.images[this.image], other = this.images[this.reference];
    const low = this.level - this.span / 2, step = this.data.step, span = this.span;
    for (let i = 0; i < out.length; i++) {
      const value = step * (this.difference ? shown[i] - other[i] : shown[i]);
      const t = clamp((value - low) / span, 0, 1);
      out[i] = this.difference ? colour(2 * t - 1) : 0xff000000 | (0x010101 * Math.round(255 * t));
    }
    this.picture.getContext("2d").putImageData(pixels, 0, 0);
  }

  paintStage() {
    this.measure();
    const pen = prepared(this.stage, this.size[0], this.size[1]);
    pen.fillStyle = this.difference ? "#f7f7f7" : "#000";
    pen.fillRect(0, 0, ...this.size);
    pen.imageSmoothingEnabled = Math.max(...this.scale) < 6;
    pen.imageSmoothingQuality = "high";
    this.place(pen);
    if (this.line) this.paintLine(pen);
    this.paintWords(pen);
    if (this.tool === "loupe" && this.point) this.paintLoupe(pen);
    else if (this.point && this.byKeys) cross(pen, this.toScreen(this.point));
  }

  place(pen) {
    const [x, y] = this.toScreen([0, 0]);
    pen.drawImage(this.picture, x, y, this.width * this.scale[0], this.height * this.scale[1]);
  }

  paintLine(pen) {
    const ends = this.line.map((p) => this.toScreen(p));
    for (const [style, width] of [["#000", 4], ["#ffd23f", 2]]) {
      pen.strokeStyle = style;
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(...ends[0]);
      pen.lineTo(...ends[1]);
      pen.stroke();
    }
    pen.fillStyle = "#ffd23f";
    for (const [x, y] of ends) pen.fillRect(x - 3, y - 3, 6, 6);
  }

  paintWords(pen) {
    const [wide, high] = this.size, names = this.data.names;
    const what = this.difference
      ? names[this.image] + " minus " + names[this.reference] : names[this.image];
    write(pen, what, 10, 22, "left", "600 16px");
    write(pen, this.slice + 1 + " / " + this.data.chunks.length, wide - 10, 22, "right");
    const range = "level " + hu(this.level) + ", width " + hu(this.span) + " HU";
    write(pen, this.difference ? "\u00b1" + hu(this.span / 2) + " HU" : range, 10, high - 12, "left");
    const mm = [200, 100, 50, 20, 10, 5, 2, 1].find((m) => this.onScreen(m) < wide / 3) || 1;
    const bar = this.onScreen(mm);
    write(pen, mm + " mm", wide - 10, high - 18, "right");
    for (const [style, width] of [["#000", 4], ["#fff", 2]]) {
      pen.strokeStyle = style;
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(wide - 10 - bar, high - 11);
      pen.lineTo(wide - 10, high - 11);
      pen.stroke();
    }
  }

  onScreen(mm) { return (mm / this.data.spacing[this.slice][1]) * this.scale[0]; }

  paintLoupe(pen) {
    const [x, y] = this.toScreen(this.point);
    const top = this.touched ? clamp(y - 130, LOUPE_PX, this.size[1]) : y;
    const left = clamp(x, 0, this.size[0]);
    pen.save();
    pen.beginPath();
    pen.arc(left, top, LOUPE_PX, 0, 2 * Math.PI);
    pen.fillStyle = "#000";
    pen.fill();
    pen.clip();
    pen.imageSmoothingEnabled = false;
    pen.translate(left, top);
    pen.scale(LOUPE_ZOOM, LOUPE_ZOOM);
    pen.translate(-x, -y);
    this.place(pen);
    pen.restore();
    pen.strokeStyle = "#ffd23f";
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(left, top, LOUPE_PX, 0, 2 * Math.PI);
    pen.stroke();
    cross(pen, [left, top]);
  }

  paintChart() {
    const box = this.chart.getBoundingClientRect();
    const pen = prepared(this.chart, box.width, box.height);
    pen.clearRect(0, 0, box.width, box.height);
    const style = getComputedStyle(this.root), ink = style.getPropertyValue("--soft");
    const found = this.profile();
    pen.font = "13px system-ui, sans-serif";
    if (!found) {
      pen.fillStyle = ink;
      pen.fillText("Choose \u201cLine profile\u201d and draw a line.", 4, 20);
      return;
    }
    const all = found.hu.flat(), length = found.mm[found.mm.length - 1];
    const low = Math.min(...all), high = Math.max(low + 1, ...all), room = 0.06 * (high - low);
    const frame = { left: 48, right: box.width - 8, top: 8, bottom: box.height - 36 };
    const x = (mm) => frame.left + (mm / (length || 1)) * (frame.right - frame.left);
    const y = (v) => frame.bottom
      - ((v - low + room) / (high - low + 2 * room)) * (frame.bottom - frame.top);
    axes(pen, frame, x, y, [low, high], length, style);
    found.hu.forEach((values, k) => {
      pen.strokeStyle = style.getPropertyValue("--curve-" + (k % 4));
      pen.lineWidth = k === this.image ? 2.4 : 1.3;
      pen.beginPath();
      values.forEach((v, i) => pen.lineTo(x(found.mm[i]), y(v)));
      pen.stroke();
    });
  }

  /* ---- Words and states of the controls ---- */

  tell() {
    const names = this.data.names, find = (what) => this.root.querySelectorAll(what);
    for (const b of find("[data-image]")) press(b, Number(b.dataset.image) === this.image);
    for (const b of find("[data-tool]")) press(b, b.dataset.tool === this.tool);
    for (const b of find("[data-low]")) {
      const low = Number(b.dataset.low), high = Number(b.dataset.high);
      press(b, !this.difference && this.level === (low + high) / 2 && this.span === high - low);
    }
    for (const b of find("[data-do=flicker]")) press(b, Boolean(this.timer));
    for (const b of find("[data-do=difference]")) press(b, this.difference);
    const set = { level: Math.round(this.level), width: Math.round(this.span), slice: this.slice,
      caption: this.slice, reference: this.reference };
    for (const c of find("[data-set]")) {
      if (c !== document.activeElement || c.type !== "number") c.value = set[c.dataset.set];
      if (c.dataset.set === "level") c.disabled = this.difference;
      if (c.type === "range") c.setAttribute("aria-valuetext", this.data.captions[this.slice]);
    }
    this.tellValues(find(".viewer-values tbody tr"));
    const status = names[this.image] + (this.difference ? " minus " + names[this.reference] : "")
      + ", " + this.data.captions[this.slice];
    const said = this.root.querySelector(".viewer-status");
    if (!this.timer && said.textContent !== status) said.textContent = status;
  }

  tellValues(rows) {
    const found = this.profile(), place = this.root.querySelector(".viewer-place");
    const at = this.point && this.point.map(Math.floor), [high, wide] = this.data.spacing[this.slice];
    const inside = at && !Number.isNaN(this.value(0, ...at));
    rows.forEach((row, k) => {
      const [mean, sd] = found ? moments(found.hu[k]) : [NaN, NaN];
      const values = [inside ? this.value(k, ...at) : NaN, mean, sd];
      values.forEach((v, i) => {
        row.cells[i + 1].textContent = Number.isNaN(v) ? "\u2013" : i ? v.toFixed(1) : hu(v);
      });
    });
    place.textContent = inside
      ? "Column " + at[0] + ", row " + at[1] + " (" + ((at[0] + 0.5) * wide).toFixed(1) + ", "
        + ((at[1] + 0.5) * high).toFixed(1) + " mm)"
      : "Point at the image to read its HU.";
    this.chart.setAttribute("aria-label", found
      ? "Line profile over " + found.mm[found.mm.length - 1].toFixed(1) + " mm; mean and standard "
        + "deviation of each image are in the table" : "Line profile: no line is drawn");
  }

  /* ---- Events ---- */

  listen() {
    const stage = this.stage;
    stage.addEventListener("pointerdown", (e) => this.down(e));
    stage.addEventListener("pointermove", (e) => this.move(e));
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (e) => this.up(e));
    stage.addEventListener("pointerleave", () => this.leave());
    stage.addEventListener("wheel", (e) => this.roll(e), { passive: false });
    stage.addEventListener("contextmenu", (e) => e.preventDefault());
    (this.wholePage ? document : this.root).addEventListener("keydown", (e) => this.key(e));
    this.root.addEventListener("click", (e) => this.click(e));
    for (const kind of ["input", "change"]) this.root.addEventListener(kind, (e) => this.input(e));
    new ResizeObserver(() => this.draw()).observe(this.root);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  where(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (!this.images) return;
    this.stage.setPointerCapture(event.pointerId);
    this.stage.focus({ preventScroll: true });
    this.touched = event.pointerType === "touch";
    this.byKeys = false;
    const at = this.where(event);
    this.pointers.set(event.pointerId, at);
    this.point = this.toImage(at);
    this.start = { at, level: this.level, width: this.span, centre: this.centre };
    if (this.pointers.size === 2) this.pinch = this.fingers();
    else if (this.tool === "line") this.line = [this.point, this.point];
    this.draw();
  }

  /* Distance and middle of two fingers, and the zoom that they began with. */
  fingers() {
    const [a, b] = [...this.pointers.values()];
    return { apart: Math.hypot(a[0] - b[0], a[1] - b[1]) || 1, zoom: this.zoom,
      middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2] };
  }

  move(event) {
    if (!this.images) return;
    const at = this.where(event);
    this.point = this.toImage(at);
    this.byKeys = false;
    if (this.pointers.has(event.pointerId)) {
      this.pointers.set(event.pointerId, at);
      if (this.pointers.size === 2) this.pinched();
      else if (this.pointers.size === 1 && !this.pinch) this.dragged(at);
    }
    this.draw();
  }

  pinched() {
    const now = this.fingers(), before = this.pinch.middle;
    const [x, y] = this.centre;
    this.moveTo([x - (now.middle[0] - before[0]) / this.scale[0],
      y - (now.middle[1] - before[1]) / this.scale[1]]);
    this.pinch.middle = now.middle;
    this.zoomTo((this.pinch.zoom * now.apart) / this.pinch.apart, now.middle);
  }

  dragged(at) {
    const { at: from, level, width, centre } = this.start;
    const across = at[0] - from[0], down = at[1] - from[1];
    if (this.tool === "window") {
      this.setWindow(Math.round(level + (down * width) / 256),
        Math.max(1, Math.round(width * 2 ** (across / 128))));
    } else if (this.tool === "move") {
      this.moveTo([centre[0] - across / this.scale[0], centre[1] - down / this.scale[1]]);
    } else if (this.tool === "line") {
      this.line = [this.line[0], this.point];
    }
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.pinch = null;
    if (this.line && this.line[0] === this.line[1]) this.line = null;
    this.draw();
  }

  leave() {
    if (this.pointers.size || this.byKeys) return;
    this.point = null;
    this.draw();
  }

  roll(event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.zoomTo(this.zoom * 2 ** (-event.deltaY / 240), this.where(event));
      return;
    }
    if (!this.wholePage && !this.root.contains(document.activeElement)) return;
    event.preventDefault();
    const turned = event.deltaY * (event.deltaMode ? 16 : 1);
    this.wheel = Math.abs(turned) >= KEPT_PX ? turned : this.wheel + turned;
    if (Math.abs(this.wheel) < KEPT_PX) return;
    this.show(this.slice + Math.sign(this.wheel));
    this.wheel = 0;
  }

  click(event) {
    const button = event.target.closest("button");
    if (!button) return;
    const d = button.dataset;
    if (d.image) this.choose(Number(d.image));
    else if (d.do) this.act(d.do);
    else if (d.tool) this.use(d.tool);
    else if (d.low) this.preset(button);
  }

  preset(button) {
    const low = Number(button.dataset.low), high = Number(button.dataset.high);
    this.difference = false;
    this.setWindow((low + high) / 2, high - low);
  }

  use(tool) {
    this.tool = tool;
    this.draw();
  }

  input(event) {
    const what = event.target.dataset.set, value = Number(event.target.value);
    if (!what || event.target.value === "" || Number.isNaN(value)) return;
    if (what === "slice" || what === "caption") this.show(value);
    else if (what === "level") this.setWindow(value, this.span);
    else if (what === "width") this.setWindow(this.level, value);
    else this.reference = value;
    this.draw();
  }

  key(event) {
    const target = event.target, name = target.tagName;
    if (event.ctrlKey || event.metaKey || event.altKey || !this.images) return;
    if (name === "SELECT" || name === "INPUT" && target.type === "number") return;
    if (name === "INPUT" && /^(Arrow|Page|Home|End)/.test(event.key)) return;
    if ((name === "BUTTON" || name === "SUMMARY" || name === "A")
      && (event.key === " " || event.key === "Enter")) return;
    if (event.shiftKey && event.key.startsWith("Arrow")) this.movePoint(event.key);
    else if (!this.pressed(event.key)) return;
    event.preventDefault();
    this.draw();
  }

  pressed(key) {
    const last = this.data.chunks.length - 1, tools = { w: "window", m: "move", l: "line", z: "loupe" };
    const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -5, PageDown: 5, Home: -last, End: last };
    const turns = { ArrowLeft: -1, ArrowRight: 1, " ": 1 };
    const acts = { f: "flicker", d: "difference", r: "reset", "+": "in", "=": "in", "-": "out" };
    const windows = { "[": [0, 1 / STEP_KEY], "]": [0, STEP_KEY], ",": [-0.05, 1], ".": [0.05, 1] };
    const small = key.toLowerCase(), number = Number(key);
    if (key in steps) this.show(this.slice + steps[key]);
    else if (key in turns) this.choose(this.image + turns[key]);
    else if (number >= 1 && number <= this.data.names.length) this.choose(number - 1);
    else if (small in tools) this.use(tools[small]);
    else if (small in acts) this.act(acts[small]);
    else if (key in windows) {
      const [up, times] = windows[key], span = this.span;
      this.setWindow(Math.round(this.level + up * span), Math.max(1, Math.round(span * times)));
    } else if (key === "Enter") this.markLine();
    else return false;
    return true;
  }

  movePoint(key) {
    const [x, y] = this.point || [this.width / 2, this.height / 2];
    const across = { ArrowLeft: -1, ArrowRight: 1 }[key] || 0;
    const down = { ArrowUp: -1, ArrowDown: 1 }[key] || 0;
    this.point = [clamp(Math.floor(x) + across, 0, this.width - 1) + 0.5,
      clamp(Math.floor(y) + down, 0, this.height - 1) + 0.5];
    this.byKeys = true;
  }

  markLine() {
    if (!this.point) return;
    if (this.lineFrom) this.line = [this.lineFrom, this.point];
    this.lineFrom = this.lineFrom ? null : this.point;
  }
}

/* ---- Small things ---- */

function press(button, on) { button.setAttribute("aria-pressed", String(on)); }

/* Blue below 0, white, red above; t from -1 to 1; the bytes of a pixel in memory. */
function colour(t) {
  const end = t < 0 ? [33, 102, 172] : [178, 24, 43], part = Math.abs(t);
  const [r, g, b] = end.map((e) => Math.round(247 + (e - 247) * part));
  return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
}

/* Give a canvas as many pixels as the screen has there; draw in CSS pixels. */
function prepared(canvas, width, height) {
  const dense = window.devicePixelRatio || 1;
  const [w, h] = [Math.max(1, Math.round(width * dense)), Math.max(1, Math.round(height * dense))];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const pen = canvas.getContext("2d");
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  return pen;
}

function write(pen, text, x, y, side, font = "13px") {
  pen.font = font + " system-ui, sans-serif";
  pen.textAlign = side;
  pen.lineJoin = "round";
  pen.lineWidth = 3;
  pen.strokeStyle = "#000";
  pen.strokeText(text, x, y);
  pen.fillStyle = "#fff";
  pen.fillText(text, x, y);
}

function cross(pen, [x, y]) {
  pen.strokeStyle = "#ffd23f";
  pen.lineWidth = 1;
  pen.beginPath();
  for (const [a, b] of [[1, 0], [0, 1], [-1, 0], [0, -1]]) {
    pen.moveTo(x + 4 * a, y + 4 * b);
    pen.lineTo(x + 12 * a, y + 12 * b);
  }
  pen.stroke();
}

function moments(values) {
  const mean = values.reduce((a, v) => a + v, 0) / values.length;
  return [mean, Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / values.length)];
}

/* Round numbers in a range, about so many. */
function ticks(low, high, count) {
  const raw = (high - low) / count, ten = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * ten).find((s) => s >= raw) || raw;
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(Number((k * step).toPrecision(6)));
  return found;
}

function axes(pen, frame, x, y, [low, high], length, style) {
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.fillStyle = style.getPropertyValue("--soft");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  for (const v of ticks(low, high, 5)) {
    pen.fillText(String(v).replace("-", "\u2212"), frame.left - 6, y(v) + 4);
    pen.beginPath();
    pen.moveTo(frame.left, y(v));
    pen.lineTo(frame.right, y(v));
    pen.stroke();
  }
  pen.textAlign = "center";
  for (const mm of ticks(0, length || 1, 5)) pen.fillText(String(mm), x(mm), frame.bottom + 16);
  pen.textAlign = "right";
  pen.fillText("HU along the line, mm", frame.right, frame.bottom + 32);
}

for (const root of document.querySelectorAll(".viewer")) root.viewer = new Viewer(root);
})();

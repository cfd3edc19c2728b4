// The viewer: planes linked by one cursor, their pointer and key handling, and the 3D picture.

import { AXIS, PLANES, layout, pixelSize, toMillimeters } from "./geometry.js";
import { drawPlane } from "./render.js";
import { Drawing } from "./drawing.js";
import { areasOf, percentiles } from "./study.js";
import { Surface } from "./surface.js";
import { $, h } from "./dom.js";
import { buildControls } from "./controls.js";

const BRUSHES = ["brush", "erase", "threshold"];
export const PRESETS = { all: [0, 100], wide: [0.5, 99.5], soft: [2, 98], bright: [40, 99.9], dark: [0.5, 80] };

export class Viewer {
  constructor(root, { onchange }) {
    this.root = root;
    this.onchange = onchange;
    this.scene = null;
    this.active = "axial";
    this.panes = Object.fromEntries(PLANES.map((plane) => [plane, this.#pane(plane)]));
    this.pair = Object.assign(this.#pane("axial"), { reads: true }); // another version's mask beside the drawn one
    this.pair.box.classList.add("pair");
    this.surface = new Surface();
    this.stage = h("div", { class: "stage" }, PLANES.map((plane) => this.panes[plane].box), this.pair.box, this.surface.box);
    this.readout = h("p", { class: "readout" });
    this.controls = buildControls(this);
    root.append(this.controls.top, this.stage, this.readout, this.controls.scroll, this.controls.bottom);
    root.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  // Shows a study without a mask.
  show(study) {
    const largest = study.shape.map((count) => count >> 1);
    const windows = study.channels.map((channel) => this.#window(channel, "wide"));
    this.scene = {
      study, cursor: largest, channel: study.shown, windows, get window() { return this.windows[this.channel]; },
      mirrored: false, smooth: true, crosshair: false, hidden: new Set(), classes: [], opacity: 0.35,
      views: Object.fromEntries(PLANES.map((plane) => [plane, { zoom: 1, pan: [0, 0] }])),
      layers: { mask: true, probability: false, reference: true, other: true },
      drawing: null, probability: null, reference: null, other: null, ruler: null,
      tool: "look", label: 1, radius: 6, ball: false, range: null,
    };
    this.areas = null;
    this.readout.textContent = "";
    this.active = "axial";
    this.arrange(study.shape[0] >= 8 && study.spacing_mm ? "four" : "one");
    this.controls.reset();
    this.draw();
  }

  get empty() { return !this.scene; }

  // Shows a mask for viewing and correction; labels: [{value, name, color}].
  setMask(labels, classes) {
    const { scene } = this;
    scene.drawing = new Drawing(labels, scene.study.shape);
    scene.drawing.onchange = () => this.#changed();
    scene.classes = classes;
    scene.label = classes[0].value;
    this.#changed();
    const areas = this.areas.axial, most = areas.indexOf(Math.max(...areas));
    if (areas[most]) this.center(most);
    this.controls.reset();
  }

  setLayer(name, volume) {
    this.scene[name] = volume;
    this.controls.reset();
    this.draw();
  }

  // Moves the cursor to the center of the labeled voxels of an axial slice.
  center(slice) {
    const { cursor, study: { shape: [, H, W] }, drawing: { labels } } = this.scene;
    let rows = 0, columns = 0, count = 0;
    for (let r = 0; r < H; r++) for (let c = 0; c < W; c++) if (labels[(slice * H + r) * W + c]) { rows += r; columns += c; count++; }
    cursor[0] = slice;
    if (count) { cursor[1] = Math.round(rows / count); cursor[2] = Math.round(columns / count); }
    this.draw();
  }

  arrange(how) {
    this.how = how;
    this.scene.crosshair = how === "four";
    this.stage.dataset.how = how;
    for (const plane of PLANES) this.panes[plane].box.hidden = how !== "four" && plane !== this.active;
    this.pair.plane = this.active;
    this.pair.box.hidden = how !== "pair";
    this.surface.box.hidden = how !== "four";
    this.controls.mark();
    this.draw();
  }

  activate(plane) {
    this.active = plane;
    for (const each of PLANES) this.panes[each].box.classList.toggle("active", each === plane);
    if (this.how !== "four") this.arrange(this.how);
    this.controls.mark();
  }

  get index() { return this.scene.cursor[AXIS[this.active]]; }
  get last() { return this.scene.study.shape[AXIS[this.active]] - 1; }

  goTo(index) {
    this.scene.cursor[AXIS[this.active]] = Math.max(0, Math.min(this.last, index));
    this.draw();
    this.#tell();
  }

  #window(channel, preset) {
    const [low, high] = percentiles(channel, PRESETS[preset]);
    return { preset, low: channel instanceof Int16Array || channel instanceof Float32Array ? low : Math.min(low, preset === "wide" ? 0 : low), high: Math.max(high, low + 1e-6) };
  }

  preset(name) {
    const { scene } = this;
    scene.windows[scene.channel] = this.#window(scene.study.channels[scene.channel], name);
    this.draw();
  }

  #changed() {
    const { drawing, study } = this.scene;
    this.areas = areasOf(drawing.labels, study.shape);
    this.surface.show(this.scene);
    this.controls.mark();
    this.draw();
    this.onchange(drawing);
  }

  draw() {
    if (!this.scene || this.frame) return;
    this.frame = requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    this.frame = null;
    if (!this.scene) return;
    const { scene } = this, alone = this.how === "pair" ? { ...scene, other: null } : scene;
    for (const pane of [...Object.values(this.panes), this.pair]) {
      if (pane.box.hidden) continue;
      const { plane } = pane;
      pane.drawn = drawPlane(pane.canvas, pane.reads ? { ...alone, drawing: { labels: scene.other }, probability: null } : alone, plane);
      const index = this.scene.cursor[AXIS[plane]], count = this.scene.study.shape[AXIS[plane]], own = this.scene.study.slices[index];
      const text = `${index + 1} of ${count}${plane === "axial" && own !== index + 1 ? `, number ${own}` : ""}`;
      const whose = this.how !== "pair" ? "" : pane.reads ? `${scene.otherName}: ` : "Now: ";
      pane.where.textContent = `${whose}${plane[0].toUpperCase()}${plane.slice(1)} ${text}`;
      pane.canvas.setAttribute("aria-label", `${whose}${plane} slice ${text}. Arrow keys scroll, Home and End go to the ends.`);
      const scaled = plane !== "axial" && !this.scene.study.spacing_mm;
      pane.remark.textContent = scaled ? "height not to scale: spacing unknown" : "";
    }
    if (this.how === "four") this.surface.draw();
    this.controls.scrolled();
  }

  #pane(plane) {
    const canvas = h("canvas", { tabindex: "0", role: "img" });
    const where = h("span", { class: "where" }), remark = h("span", { class: "remark" }), ring = h("span", { class: "ring", hidden: true });
    const box = h("div", { class: "pane", "data-plane": plane }, canvas, where, remark, ring);
    const pane = { box, canvas, where, remark, ring, plane, drawn: null, pointers: new Map() };
    canvas.addEventListener("focus", () => this.activate(pane.plane));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event, pane), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event, pane));
    canvas.addEventListener("pointermove", (event) => this.#move(event, pane));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#up(event, pane));
    canvas.addEventListener("pointerleave", () => { ring.hidden = true; });
    return pane;
  }

  #wheel(event, pane) {
    event.preventDefault();
    if (!this.scene) return;
    this.activate(pane.plane);
    if (event.ctrlKey) this.zoom(pane, event.deltaY < 0 ? 1.15 : 1 / 1.15, event.offsetX, event.offsetY);
    else this.goTo(this.index + (event.deltaY < 0 ? 1 : -1));
  }

  // Zooms with the point (x, y) fixed.
  zoom(pane, factor, x = pane.canvas.clientWidth / 2, y = pane.canvas.clientHeight / 2) {
    const view = this.scene.views[pane.plane], next = Math.max(0.5, Math.min(20, view.zoom * factor)), ratio = next / view.zoom;
    const middle = [pane.canvas.clientWidth / 2, pane.canvas.clientHeight / 2];
    view.pan = [x, y].map((at, k) => at - middle[k] - (at - middle[k] - view.pan[k]) * ratio);
    view.zoom = next;
    this.draw();
  }

  fit() {
    for (const view of Object.values(this.scene.views)) Object.assign(view, { zoom: 1, pan: [0, 0] });
    this.draw();
  }

  #down(event, pane) {
    if (!this.scene || !pane.drawn) return;
    event.preventDefault();
    pane.canvas.focus({ preventScroll: true });
    this.activate(pane.plane);
    pane.canvas.setPointerCapture(event.pointerId);
    pane.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (pane.pointers.size === 2) { this.#finish(pane); pane.act = "pinch"; return; }
    const { scene } = this, tool = pane.reads && BRUSHES.includes(scene.tool) ? "look" : scene.tool;
    pane.act = event.button === 2 ? "window" : event.button === 1 || event.shiftKey ? "move" : tool;
    pane.from = pane.last = [event.offsetX, event.offsetY];
    if (pane.act === "look") this.#look(pane, event);
    if (BRUSHES.includes(pane.act)) {
      if (!scene.drawing) { pane.act = null; return; }
      pane.erasing = event.ctrlKey || event.metaKey || pane.act === "erase";
      scene.drawing.begin();
      this.#paint(pane, pane.last, pane.last);
    }
    if (pane.act === "ruler") {
      const at = pane.drawn.where.toPixel(...pane.from);
      scene.ruler = { plane: pane.plane, index: this.index, ends: [at, at] };
    }
  }

  #move(event, pane) {
    if (!this.scene || !pane.drawn) return;
    const at = [event.offsetX, event.offsetY];
    this.#ring(pane, at);
    if (pane.pointers.has(event.pointerId)) {
      if (pane.act === "pinch") this.#pinch(pane, event.pointerId, at);
      pane.pointers.set(event.pointerId, at);
    }
    this.#tell(pane, at);
    if (!pane.last || !pane.act || pane.act === "pinch") return;
    const [dx, dy] = [at[0] - pane.last[0], at[1] - pane.last[1]], { scene } = this;
    if (pane.act === "look") this.#look(pane, event);
    else if (pane.act === "window") this.#drag(dx, dy);
    else if (pane.act === "move") { const view = scene.views[pane.plane]; view.pan = [view.pan[0] + dx, view.pan[1] + dy]; }
    else if (BRUSHES.includes(pane.act)) this.#paint(pane, pane.last, at);
    else if (pane.act === "ruler") scene.ruler.ends = [scene.ruler.ends[0], pane.drawn.where.toPixel(...at)];
    pane.last = at;
    this.draw();
  }

  #up(event, pane) {
    pane.pointers.delete(event.pointerId);
    if (pane.pointers.size === 0) this.#finish(pane);
  }

  #finish(pane) {
    if (BRUSHES.includes(pane.act) && this.scene.drawing?.stroke) this.scene.drawing.end();
    pane.act = pane.last = null;
    this.controls.mark();
  }

  // Ends a stroke whose mask is about to be replaced, though the pointer is still down.
  letGo() {
    if (this.scene) for (const pane of Object.values(this.panes)) this.#finish(pane);
  }

  #pinch(pane, id, at) {
    const before = pane.pointers.get(id), other = [...pane.pointers].find(([key]) => key !== id)?.[1];
    if (!other) return;
    const apart = (p) => Math.max(10, Math.hypot(p[0] - other[0], p[1] - other[1]));
    this.zoom(pane, apart(at) / apart(before), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
    const view = this.scene.views[pane.plane];
    view.pan = view.pan.map((value, k) => value + (at[k] - before[k]) / 2);
  }

  // Horizontal drags change the window's width, vertical ones its level.
  #drag(dx, dy) {
    const { window } = this.scene, width = window.high - window.low, step = Math.max(width, 1e-3) / 250;
    const center = (window.low + window.high) / 2 + dy * step, wide = Math.max(1e-3, width + dx * step);
    Object.assign(window, { preset: "own", low: center - wide / 2, high: center + wide / 2 });
    this.controls.mark();
  }

  #look(pane, event) {
    const { where, shape } = pane.drawn, [r, c] = where.toPixel(event.offsetX, event.offsetY).map(Math.floor);
    if (r < 0 || c < 0 || r >= shape.rows || c >= shape.columns) return;
    this.scene.cursor = shape.voxel(r, c);
    this.draw();
  }

  #paint(pane, from, to) {
    const { scene } = this, { where, size } = pane.drawn, shape = layout(scene.study.shape, pane.plane, scene.cursor[AXIS[pane.plane]], scene.mirrored);
    const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / Math.max(1, scene.radius / where.mm / 2)));
    for (let k = 1; k <= steps; k++) {
      const at = where.toPixel(from[0] + ((to[0] - from[0]) * k) / steps, from[1] + ((to[1] - from[1]) * k) / steps);
      this.#stamp(shape, at, size, pane.erasing, pane.act === "threshold");
    }
    this.draw();
  }

  #stamp(shape, at, size, erasing, bounded) {
    const { scene } = this, { drawing } = scene, channel = scene.study.channels[scene.channel], range = scene.range;
    const allows = bounded && range ? (k) => channel[k] >= range[0] && channel[k] <= range[1] : null;
    const only = erasing ? null : allows;
    if (scene.ball && scene.study.spacing_mm) {
      const [r, c] = at.map(Math.floor);
      if (r >= 0 && c >= 0 && r < shape.rows && c < shape.columns) drawing.ball(shape.voxel(r, c), scene.radius, scene.study.spacing_mm, erasing ? 0 : scene.label, only);
    } else drawing.stamp(shape, at, scene.radius, size, erasing ? 0 : scene.label, only);
  }

  #ring(pane, [x, y]) {
    const { scene } = this, shown = BRUSHES.includes(scene.tool) && !pane.reads;
    pane.ring.hidden = !shown;
    if (!shown) return;
    const side = (2 * scene.radius) / pane.drawn.where.mm;
    for (const [key, value] of [["width", side], ["height", side], ["left", x - side / 2], ["top", y - side / 2]]) pane.ring.style.setProperty(key, `${value}px`);
  }

  // The voxel under the pointer, or under the cursor after a key moved it.
  #tell(pane = null, at = null) {
    const { scene } = this, { study } = scene;
    let voxel = scene.cursor;
    if (pane) {
      const { where, shape } = pane.drawn, [r, c] = where.toPixel(...at).map(Math.floor);
      if (r < 0 || c < 0 || r >= shape.rows || c >= shape.columns) return;
      voxel = shape.voxel(r, c);
    }
    const k = (voxel[0] * study.shape[1] + voxel[1]) * study.shape[2] + voxel[2];
    const parts = [`${study.names[scene.channel]} ${Number(study.channels[scene.channel][k].toPrecision(5))}`, `slice ${voxel[0] + 1}, row ${voxel[1] + 1}, column ${voxel[2] + 1}`];
    if (study.affine) parts.push(toMillimeters(study.affine, voxel).map((mm, axis) => `${Math.abs(mm).toFixed(1)} ${mm >= 0 ? "RAS"[axis] : "LPI"[axis]}`).join(" ") + " mm");
    const label = scene.drawing?.labels[k];
    if (label) parts.push(scene.classes.find((each) => each.value === label)?.name ?? `label ${label}`);
    if (scene.probability) parts.push(`probability ${(scene.probability[k] / 255).toFixed(2)}`);
    this.readout.textContent = parts.join("  ·  ");
  }

  undo() { if (this.scene?.drawing?.undo()) this.draw(); }
  redo() { if (this.scene?.drawing?.redo()) this.draw(); }

  resize(factor) {
    this.scene.radius = Math.max(0.5, Math.min(60, this.scene.radius * factor));
    this.controls.mark();
  }

  #key(event) {
    if (!this.scene || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
    const pane = this.panes[this.active], { scene } = this, ctrl = event.ctrlKey || event.metaKey, inPane = event.target.tagName === "CANVAS";
    if (event.shiftKey && event.key.startsWith("Arrow") && inPane) return this.#nudge(event, pane);
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
    const tools = { v: "look", w: "window", h: "move", b: "brush", e: "erase", t: "threshold", r: "ruler" };
    let done = true;
    if (ctrl) done = false;
    else if (event.key in steps) this.goTo(this.index + steps[event.key]);
    else if (event.key === "Home") this.goTo(0);
    else if (event.key === "End") this.goTo(this.last);
    else if (event.key === "[") this.resize(1 / 1.25);
    else if (event.key === "]") this.resize(1.25);
    else if (event.key === "+" || event.key === "=") this.zoom(pane, 1.25);
    else if (event.key === "-") this.zoom(pane, 0.8);
    else if (event.key === "0") this.fit();
    else if (event.key === "m") { scene.layers.mask = !scene.layers.mask; this.controls.mark(); this.draw(); }
    else if (event.key in tools) this.controls.choose(tools[event.key]);
    else if ((event.key === "Enter" || event.key === " ") && inPane && BRUSHES.includes(scene.tool) && scene.drawing) this.#dab(pane);
    else done = false;
    if (done) event.preventDefault();
  }

  #nudge(event, pane) {
    event.preventDefault();
    const { shape } = pane.drawn, [r, c] = shape.pixel(...this.scene.cursor);
    const [dr, dc] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (r + dr >= 0 && c + dc >= 0 && r + dr < shape.rows && c + dc < shape.columns) this.scene.cursor = shape.voxel(r + dr, c + dc);
    this.scene.crosshair = true;
    this.draw();
    this.#tell();
  }

  // Draws at the cursor, for drawing with keys.
  #dab(pane) {
    const { scene } = this, { shape, size } = pane.drawn, [r, c] = shape.pixel(...scene.cursor);
    scene.drawing.begin();
    this.#stamp(shape, [r + 0.5, c + 0.5], size, scene.tool === "erase", scene.tool === "threshold");
    scene.drawing.end();
  }

  picture() {
    return new Promise((done) => this.panes[this.active].canvas.toBlob(done));
  }
}

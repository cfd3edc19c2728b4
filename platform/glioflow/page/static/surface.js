// A 3D picture of the tumor inside the head, computed in software.

import { h } from "./dom.js";
import { decodeRuns, labeled } from "./study.js";

const SIDE = 360;

export class Surface {
  constructor() {
    this.canvas = h("canvas", { width: SIDE, height: SIDE, tabindex: "0", role: "img", "aria-label": "The tumor in 3D. Arrow keys turn it." });
    this.box = h("div", { class: "pane surface" }, this.canvas, h("span", { class: "where" }, "3D"), this.remark = h("span", { class: "remark" }));
    this.turn = [0.6, 0.35];
    this.points = null;
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); this.from = [event.offsetX, event.offsetY]; });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!this.from) return;
      this.rotate((event.offsetX - this.from[0]) / 120, (event.offsetY - this.from[1]) / 120);
      this.from = [event.offsetX, event.offsetY];
    });
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => { this.from = null; });
    this.canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
      if (by) { event.preventDefault(); event.stopPropagation(); this.rotate(...by); }
    });
  }

  rotate(right, down) {
    this.changed = true;
    this.turn = [this.turn[0] + right, Math.max(-1.5, Math.min(1.5, this.turn[1] + down))];
    this.draw();
  }

  // Collects the surface voxels of the labels, and once those of the head.
  show(scene) {
    this.changed = true;
    const { study, drawing, classes, hidden, layers } = scene;
    this.remark.textContent = study.spacing_mm ? "" : "needs the spacing, which is unknown";
    if (!study.spacing_mm) { this.points = null; return; }
    if (this.study !== study) { this.study = study; this.head = study.brain ? shell(decodeRuns({ 1: study.brain }, study.size), study.shape, () => true, Math.max(2, Math.round(study.shape[2] / 70))) : []; }
    const colors = new Map(classes.map(({ value, color }) => [value, [1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16))]));
    const wanted = (value) => colors.has(value) && !hidden.has(value) && layers.mask;
    this.points = drawing ? shell(drawing.labels, study.shape, wanted, 1) : [];
    this.colors = colors;
  }

  // Redraws if something changed.
  draw() {
    if (this.box.hidden || !this.changed) return;
    this.changed = false;
    const context = this.canvas.getContext("2d"), image = context.createImageData(SIDE, SIDE), pixels = new Uint32Array(image.data.buffer);
    pixels.fill(0xff000000);
    if (this.points) this.#splat(pixels);
    context.putImageData(image, 0, 0);
  }

  #splat(pixels) {
    const { shape: [S, H, W], spacing_mm: [ds, dh, dw] } = this.study, size = Math.hypot(S * ds, H * dh, W * dw), scale = (SIDE * 1.9) / size;
    const [yaw, pitch] = this.turn, [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const depth = new Float32Array(SIDE * SIDE).fill(-Infinity), half = SIDE / 2;
    // Seen from the front: x toward the patient's left, y upward, z toward the viewer.
    const project = (s, r, c) => {
      const x = (c - W / 2) * dw, y = (s - S / 2) * ds, z = -(r - H / 2) * dh;
      const x1 = cy * x + sy * z, z1 = -sy * x + cy * z;
      return [half + x1 * scale, half - (cp * y - sp * z1) * scale, sp * y + cp * z1];
    };
    for (let k = 0; k < this.head.length; k += 7) {
      const [x, y, z] = project(this.head[k], this.head[k + 1], this.head[k + 2]);
      const first = Math.round(y) * SIDE + Math.round(x);
      for (const at of [first, first + 1, first + SIDE, first + SIDE + 1]) {
        if (at < 0 || at >= pixels.length) continue;
        const g = Math.min(130, (pixels[at] & 255) + (z > 0 ? 30 : 14));
        pixels[at] = (0xff000000 | ((g + 12) << 16) | (g << 8) | g) >>> 0;
      }
    }
    const wide = Math.ceil(Math.max(ds, dh, dw) * scale) + 1;
    for (let k = 0; k < this.points.length; k += 7) {
      const [x, y, z] = project(this.points[k], this.points[k + 1], this.points[k + 2]);
      const n = [this.points[k + 5] / dw, this.points[k + 3] / ds, -this.points[k + 4] / dh];
      const n1 = [cy * n[0] + sy * n[2], n[1], -sy * n[0] + cy * n[2]], length = Math.hypot(...n1) || 1;
      const light = 0.35 + 0.65 * Math.max(0, (0.35 * n1[0] + 0.5 * (cp * n1[1] - sp * n1[2]) + 0.8 * (sp * n1[1] + cp * n1[2])) / length);
      const [r, g, b] = this.colors.get(this.points[k + 6]), color = (0xff000000 | ((b * light) << 16) | ((g * light) << 8) | (r * light)) >>> 0;
      for (let v = 0; v < wide; v++)
        for (let u = 0; u < wide; u++) {
          const px = Math.round(x - wide / 2) + u, py = Math.round(y - wide / 2) + v, at = py * SIDE + px;
          if (px < 0 || py < 0 || px >= SIDE || py >= SIDE || z <= depth[at]) continue;
          depth[at] = z;
          pixels[at] = color;
        }
    }
  }
}

// [s, r, c, outward direction, label] of each voxel that has a neighbor outside, one in `step` along each axis.
function shell(labels, [S, H, W], wanted, step) {
  const found = [], is = (k) => (labels[k] && wanted(labels[k]) ? 1 : 0);
  for (const k of labeled(labels)) {
    const s = Math.floor(k / (H * W)), r = Math.floor(k / W) % H, c = k % W;
    if (r % step || c % step || !wanted(labels[k])) continue;
    const below = s ? is(k - H * W) : 0, above = s < S - 1 ? is(k + H * W) : 0, front = r ? is(k - W) : 0, back = r < H - 1 ? is(k + W) : 0;
    const right = c ? is(k - 1) : 0, left = c < W - 1 ? is(k + 1) : 0;
    if (below + above + front + back + right + left < 6) found.push(s, r, c, below - above, front - back, right - left, labels[k]);
  }
  return Float32Array.from(found);
}

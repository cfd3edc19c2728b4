// A mask being corrected: strokes over (S, H, W) with undo and redo, and labels that can be locked.

const MOST_UNDONE = 100, MOST_VOXELS = 40e6;

export class Drawing {
  constructor(labels, shape) {
    this.labels = labels;
    this.shape = shape;
    this.counts = new Float64Array(256);
    for (let k = 0; k < labels.length; k++) this.counts[labels[k]]++;
    this.locked = new Set();
    this.done = [];
    this.undone = [];
    this.strokes = 0;
    this.forgotten = 0; // the last stroke that can no longer be undone
    this.stroke = null;
    this.onchange = () => {};
  }

  // Which mask this is: the number of the last stroke in it, 0 for the mask as it came; no two strokes have one number.
  get state() { return this.done.at(-1)?.number ?? this.forgotten; }
  get changed() { return this.state !== 0; }

  begin() { this.stroke = new Map(); }

  // Sets a voxel's label, unless its present label is locked.
  set(k, label) {
    const old = this.labels[k];
    if (old === label || this.locked.has(old)) return;
    if (!this.stroke.has(k)) this.stroke.set(k, old);
    this.labels[k] = label;
    this.counts[old]--;
    this.counts[label]++;
  }

  end() {
    const stroke = this.stroke;
    this.stroke = null;
    if (!stroke?.size) return false;
    this.done.push({ number: ++this.strokes, places: Uint32Array.from(stroke.keys()), old: Uint8Array.from(stroke.values()) });
    this.undone = [];
    while (this.done.length > MOST_UNDONE || this.done.reduce((sum, each) => sum + each.places.length, 0) > MOST_VOXELS) this.forgotten = this.done.shift().number;
    this.onchange();
    return true;
  }

  undo() { return this.#swap(this.done, this.undone); }
  redo() { return this.#swap(this.undone, this.done); }

  #swap(from, to) {
    if (this.stroke) this.end();
    const step = from.pop();
    if (!step) return false;
    const { number, places, old } = step, now = new Uint8Array(places.length);
    for (let k = places.length - 1; k >= 0; k--) {
      now[k] = this.labels[places[k]];
      this.labels[places[k]] = old[k];
      this.counts[now[k]]--;
      this.counts[old[k]]++;
    }
    to.push({ number, places, old: now });
    this.onchange();
    return true;
  }

  // Replaces the whole mask in one step that can be undone.
  replace(labels) {
    this.begin();
    for (let k = 0; k < labels.length; k++) if (labels[k] !== this.labels[k]) this.set(k, labels[k]);
    return this.end();
  }

  // Draws a disk around pixel (row, column) of a plane, round in millimeters, or a ball across slices.
  stamp(plane, [row, column], radius, [ph, pw], label, allows) {
    const ry = radius / ph, rx = radius / pw;
    const top = Math.max(0, Math.ceil(row - ry - 0.5)), bottom = Math.min(plane.rows - 1, Math.floor(row + ry - 0.5));
    for (let r = top; r <= bottom; r++) {
      const dy = (r + 0.5 - row) / ry, half = rx * Math.sqrt(Math.max(0, 1 - dy * dy));
      const first = Math.max(0, Math.ceil(column - half - 0.5)), last = Math.min(plane.columns - 1, Math.floor(column + half - 0.5));
      for (let c = first; c <= last; c++) this.#touch(plane.at(r, c), label, allows);
    }
    const r = Math.floor(row), c = Math.floor(column);
    if (r >= 0 && c >= 0 && r < plane.rows && c < plane.columns) this.#touch(plane.at(r, c), label, allows);
  }

  ball([s, h, w], radius, [ds, dh, dw], label, allows) {
    const [S, H, W] = this.shape;
    for (let z = Math.max(0, Math.ceil(s - radius / ds)); z <= Math.min(S - 1, s + radius / ds); z++)
      for (let y = Math.max(0, Math.ceil(h - radius / dh)); y <= Math.min(H - 1, h + radius / dh); y++)
        for (let x = Math.max(0, Math.ceil(w - radius / dw)); x <= Math.min(W - 1, w + radius / dw); x++)
          if (((z - s) * ds) ** 2 + ((y - h) * dh) ** 2 + ((x - w) * dw) ** 2 <= radius * radius) this.#touch((z * H + y) * W + x, label, allows);
  }

  #touch(k, label, allows) {
    if (!allows || allows(k)) this.set(k, label);
  }

  // Interpolates a label between the axial slices that have it, by distances to its outlines; keeps other labels.
  fillBetween(label) {
    const [S, H, W] = this.shape, area = H * W, slices = [];
    for (let s = 0; s < S; s++) if (this.labels.subarray(s * area, (s + 1) * area).includes(label)) slices.push(s);
    this.begin();
    for (let k = 0; k + 1 < slices.length; k++) {
      const [from, to] = [slices[k], slices[k + 1]];
      if (to - from < 2) continue;
      const [near, far] = [from, to].map((s) => signedDistance(this.labels.subarray(s * area, (s + 1) * area), label, H, W));
      for (let s = from + 1; s < to; s++) {
        const share = (s - from) / (to - from);
        for (let p = 0; p < area; p++)
          if ((1 - share) * near[p] + share * far[p] > 0 && this.labels[s * area + p] === 0) this.set(s * area + p, label);
      }
    }
    return this.end();
  }

  clearPlane(plane, label) {
    this.begin();
    for (let r = 0; r < plane.rows; r++) for (let c = 0; c < plane.columns; c++) if (this.labels[plane.at(r, c)] === label) this.set(plane.at(r, c), 0);
    return this.end();
  }
}

// Signed distance in pixels, positive inside; accurate to a few percent (chamfer 3-4).
export function signedDistance(labels, label, H, W) {
  const inside = chamfer(labels, (value) => value !== label, H, W), outside = chamfer(labels, (value) => value === label, H, W);
  return inside.map((value, k) => value - outside[k]);
}

function chamfer(labels, isGoal, H, W) {
  const far = 3 * (H + W), d = new Float32Array(H * W);
  for (let k = 0; k < d.length; k++) d[k] = isGoal(labels[k]) ? 0 : far;
  const at = (r, c) => (r < 0 || c < 0 || r >= H || c >= W ? far : d[r * W + c]);
  for (let r = 0; r < H; r++)
    for (let c = 0; c < W; c++) {
      const k = r * W + c;
      if (d[k]) d[k] = Math.min(d[k], at(r, c - 1) + 3, at(r - 1, c) + 3, at(r - 1, c - 1) + 4, at(r - 1, c + 1) + 4);
    }
  for (let r = H - 1; r >= 0; r--)
    for (let c = W - 1; c >= 0; c--) {
      const k = r * W + c;
      if (d[k]) d[k] = Math.min(d[k], at(r, c + 1) + 3, at(r + 1, c) + 3, at(r + 1, c + 1) + 4, at(r + 1, c - 1) + 4);
    }
  return d.map((value) => value / 3);
}

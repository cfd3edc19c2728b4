// Geometry of planes in an (S, H, W) array: S upward, H toward posterior, W toward the patient's left.

export const PLANES = ["axial", "coronal", "sagittal"];
export const AXIS = { axial: 0, coronal: 1, sagittal: 2 };
const LETTERS = { axial: ["A", "P", "R", "L"], coronal: ["S", "I", "R", "L"], sagittal: ["S", "I", "A", "P"] };

// A plane at an index: its size, the offset of pixel (row, column), and conversions to and from voxels.
export function layout([S, H, W], plane, index, mirrored = false) {
  const flip = mirrored && plane !== "sagittal";
  if (plane === "axial") {
    const w = flip ? (c) => W - 1 - c : (c) => c;
    return { rows: H, columns: W, at: (r, c) => (index * H + r) * W + w(c), voxel: (r, c) => [index, r, w(c)], pixel: (s, y, x) => [y, w(x)] };
  }
  if (plane === "coronal") {
    const w = flip ? (c) => W - 1 - c : (c) => c;
    return { rows: S, columns: W, at: (r, c) => ((S - 1 - r) * H + index) * W + w(c), voxel: (r, c) => [S - 1 - r, index, w(c)], pixel: (s, y, x) => [S - 1 - s, w(x)] };
  }
  return { rows: S, columns: H, at: (r, c) => ((S - 1 - r) * H + c) * W + index, voxel: (r, c) => [S - 1 - r, c, index], pixel: (s, y) => [S - 1 - s, y] };
}

// Height and width of a plane's pixel in millimeters, or in pixels if unknown, where side views are not to scale.
export function pixelSize({ shape, spacing_mm }, plane) {
  const [S, , W] = shape;
  const [s, h, w] = spacing_mm ?? [Math.max(1, (0.75 * W) / S), 1, 1];
  return plane === "axial" ? [h, w] : plane === "coronal" ? [s, w] : [s, h];
}

// Letters at top, bottom, left and right; none if the files do not state the orientation.
export function letters(study, plane, mirrored) {
  if (!study.affine) return ["", "", "", ""];
  const [top, bottom, left, right] = LETTERS[plane];
  return mirrored && plane !== "sagittal" ? [top, bottom, right, left] : [top, bottom, left, right];
}

export function toMillimeters(affine, [s, h, w]) {
  return affine.slice(0, 3).map((row) => row[0] * s + row[1] * h + row[2] * w + row[3]);
}

// A plane's rectangle in a canvas: fitted, then zoomed and panned.
export function place(study, plane, shape, width, height, { zoom, pan }) {
  const [ph, pw] = pixelSize(study, plane);
  const scale = Math.min(width / (shape.columns * pw), height / (shape.rows * ph)) * zoom;
  const w = shape.columns * pw * scale, h = shape.rows * ph * scale;
  const left = (width - w) / 2 + pan[0], top = (height - h) / 2 + pan[1];
  return {
    left, top, width: w, height: h,
    toPixel: (x, y) => [((y - top) / h) * shape.rows, ((x - left) / w) * shape.columns],
    toScreen: (r, c) => [left + (c / shape.columns) * w, top + (r / shape.rows) * h],
    mm: 1 / scale,
  };
}

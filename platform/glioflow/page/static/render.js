// Draws one plane of a scene on a canvas: image, probability, masks, crosshair, ruler. Handles no input.

import { AXIS, layout, letters, pixelSize, place } from "./geometry.js";

const OUTLINES = { reference: "#f4f1de", other: "#9ef01a" };
const scratch = new Map();

const rgb = (color) => [1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16));

function canvasOf(name, columns, rows) {
  if (!scratch.has(name)) scratch.set(name, document.createElement("canvas"));
  const canvas = scratch.get(name);
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d", { willReadFrequently: false });
  return { canvas, context, image: context.createImageData(columns, rows) };
}

// Fills a canvas of the plane's size with one color (ABGR) per voxel.
function paint(name, shape, color) {
  const { canvas, context, image } = canvasOf(name, shape.columns, shape.rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let r = 0, k = 0; r < shape.rows; r++) for (let c = 0; c < shape.columns; c++, k++) pixels[k] = color(shape.at(r, c));
  context.putImageData(image, 0, 0);
  return canvas;
}

export function gray(channel, { low, high }) {
  const factor = 255 / Math.max(1e-9, high - low);
  return (k) => {
    const value = (channel[k] - low) * factor, g = value <= 0 ? 0 : value >= 255 ? 255 : value | 0;
    return 0xff000000 | (g << 16) | (g << 8) | g;
  };
}

// Dark violet through red to yellow; opacity increases with probability.
const HEAT = Uint32Array.from({ length: 256 }, (_, p) => {
  const t = p / 255, r = Math.min(255, 90 + 330 * t), g = Math.max(0, 255 * (1.4 * t - 0.45)), b = Math.max(0, 140 * (1 - 1.6 * t));
  return p < 13 ? 0 : (((70 + 150 * t) << 24) | (Math.min(255, b) << 16) | (Math.min(255, g) << 8) | r) >>> 0;
});

// Outlines between wanted voxels and others; collinear segments are joined.
function outline(labels, shape, at, wanted) {
  const path = new Path2D(), { rows, columns } = shape, inside = new Uint8Array((rows + 2) * (columns + 2)), wide = columns + 2;
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) if (wanted(labels[shape.at(r, c)])) inside[(r + 1) * wide + c + 1] = 1;
  const line = (r0, c0, r1, c1) => { path.moveTo(...at(r0, c0)); path.lineTo(...at(r1, c1)); };
  const edges = (outer, inner, differs, draw) => {
    for (let o = 0; o <= outer; o++)
      for (let i = 0, from = -1; i <= inner; i++) {
        const edge = i < inner && differs(o, i);
        if (edge && from < 0) from = i;
        else if (!edge && from >= 0) { draw(o, from, i); from = -1; }
      }
  };
  edges(rows, columns, (r, c) => inside[r * wide + c + 1] !== inside[(r + 1) * wide + c + 1], (r, from, to) => line(r, from, r, to));
  edges(columns, rows, (c, r) => inside[(r + 1) * wide + c] !== inside[(r + 1) * wide + c + 1], (c, from, to) => line(from, c, to, c));
  return path;
}

export function drawPlane(canvas, scene, plane) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return null;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  const { study, layers } = scene, shape = layout(study.shape, plane, scene.cursor[AXIS[plane]], scene.mirrored);
  const where = place(study, plane, shape, width, height, scene.views[plane]);
  const context = canvas.getContext("2d"), box = [where.left, where.top, where.width, where.height];
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingEnabled = scene.smooth;
  context.imageSmoothingQuality = "medium";
  context.drawImage(paint("image", shape, gray(study.channels[scene.channel], scene.window)), ...box);
  context.imageSmoothingEnabled = false;
  if (layers.probability && scene.probability) context.drawImage(paint("heat", shape, (k) => HEAT[scene.probability[k]]), ...box);
  if (layers.mask && scene.drawing) drawMask(context, box, where, shape, scene);
  for (const kind of ["reference", "other"]) {
    if (!layers[kind] || !scene[kind]) continue;
    context.lineWidth = 1.6;
    context.setLineDash(kind === "other" ? [5, 3] : []);
    context.strokeStyle = OUTLINES[kind];
    context.stroke(outline(scene[kind], shape, where.toScreen, (value) => value > 0));
    context.setLineDash([]);
  }
  drawCrosshair(context, where, shape, scene, width, height);
  drawRuler(context, where, scene, plane);
  drawLetters(context, scene, plane, width, height);
  return { shape, where, size: pixelSize(study, plane) };
}

function drawMask(context, box, where, shape, scene) {
  const { labels } = scene.drawing, colors = new Uint32Array(256), alpha = Math.round(255 * scene.opacity) << 24;
  const shown = scene.classes.filter((each) => !scene.hidden.has(each.value));
  for (const { value, color } of shown) { const [r, g, b] = rgb(color); colors[value] = (alpha | (b << 16) | (g << 8) | r) >>> 0; }
  context.drawImage(paint("mask", shape, (k) => colors[labels[k]]), ...box);
  context.lineWidth = 1.4;
  for (const { value, color } of shown) {
    context.strokeStyle = color;
    context.stroke(outline(labels, shape, where.toScreen, (each) => each === value));
  }
}

function drawCrosshair(context, where, shape, scene, width, height) {
  if (!scene.crosshair) return;
  const [r, c] = shape.pixel(...scene.cursor), [x, y] = where.toScreen(r + 0.5, c + 0.5), gap = 9;
  context.strokeStyle = "rgb(120 220 230 / 55%)";
  context.lineWidth = 1;
  context.beginPath();
  for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, width, y], [x, 0, x, y - gap], [x, y + gap, x, height]]) { context.moveTo(x0, y0); context.lineTo(x1, y1); }
  context.stroke();
}

function drawRuler(context, where, { ruler, study, cursor }, plane) {
  if (ruler?.plane !== plane || ruler.index !== cursor[AXIS[plane]]) return;
  const [from, to] = ruler.ends.map(([r, c]) => where.toScreen(r, c));
  context.strokeStyle = context.fillStyle = "#ffe66d";
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
  for (const [x, y] of [from, to]) context.fillRect(x - 2.5, y - 2.5, 5, 5);
  context.font = "600 13px system-ui, sans-serif";
  context.textAlign = "left";
  context.fillText(rulerText(study, ruler), to[0] + 8, to[1] - 8);
}

export function rulerText(study, { plane, ends: [[r0, c0], [r1, c1]] }) {
  const [ph, pw] = pixelSize(study, plane), length = Math.hypot((r1 - r0) * ph, (c1 - c0) * pw);
  if (study.spacing_mm) return `${length.toFixed(1)} mm`;
  return plane === "axial" ? `${length.toFixed(1)} px` : "length unknown: no spacing";
}

function drawLetters(context, scene, plane, width, height) {
  const [top, bottom, left, right] = letters(scene.study, plane, scene.mirrored);
  context.font = "600 13px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = 3;
  for (const [text, x, y] of [[top, width / 2, 12], [bottom, width / 2, height - 12], [left, 12, height / 2], [right, width - 12, height / 2]]) {
    context.strokeStyle = "#000";
    context.strokeText(text, x, y);
    context.fillStyle = "#c9d6d8";
    context.fillText(text, x, y);
  }
  context.textBaseline = "alphabetic";
}

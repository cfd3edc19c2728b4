// Scrolls through a study that is wholly in the browser. Gets its data from page_viewer.py, asks nothing back.

const AXES = { axial: 0, coronal: 1, sagittal: 2 };
// Rows run toward posterior, columns toward the patient's left; from the side, up is up.
const LETTERS = { axial: ["A", "P", "R", "L"], coronal: ["S", "I", "R", "L"], sagittal: ["S", "I", "A", "P"] };

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// How a plane lies in the volume: its size, and the offset of its pixel (row, column).
function layout([S, H, W], plane, index) {
  if (plane === "axial") return { rows: H, columns: W, at: (r, c) => (index * H + r) * W + c };
  if (plane === "coronal") return { rows: S, columns: W, at: (r, c) => ((S - 1 - r) * H + index) * W + c };
  return { rows: S, columns: H, at: (r, c) => ((S - 1 - r) * H + c) * W + index };
}

// Height of a plane over its width as it lies in the patient.
function proportion({ shape, spacing }, plane) {
  const length = shape.map((count, axis) => count * (spacing ? spacing[axis] : 1));
  if (plane === "axial") return length[1] / length[2];
  if (!spacing) return 0.75; // nobody knows: said in the picture
  return length[0] / (plane === "coronal" ? length[2] : length[1]);
}

function areasOf(labels, [S, H, W], axis) {
  const areas = new Float64Array([S, H, W][axis]);
  for (let k = 0; k < labels.length; k++)
    if (labels[k]) areas[axis === 0 ? Math.floor(k / (H * W)) : axis === 1 ? Math.floor(k / W) % H : k % W]++;
  return areas;
}

function middle(areas) {
  let best = areas.length >> 1;
  areas.forEach((area, index) => { if (area > areas[best]) best = index; });
  return best;
}

function canvasOf(image) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function drawImage(data, volume, view) {
  const { rows, columns, at } = view.layout;
  const image = new ImageData(columns, rows);
  const size = data.shape[0] * data.shape[1] * data.shape[2];
  for (let r = 0, k = 0; r < rows; r++)
    for (let c = 0; c < columns; c++, k += 4) {
      image.data.fill(volume.image[view.channel * size + at(r, c)], k, k + 3);
      image.data[k + 3] = 255;
    }
  return canvasOf(image);
}

// Fills the visible classes, and outlines them between the pixels: thin however the pixels are stretched.
function drawMask(context, [left, top, width, height], data, volume, view) {
  const { rows, columns, at } = view.layout;
  const image = new ImageData(columns, rows);
  const shown = data.classes.filter((each) => !view.hidden.has(each.value));
  const paint = new Map(shown.map(({ value, color }) =>
    [value, { outline: new Path2D(), color, rgb: [1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16)) }]));
  const label = (r, c) => (r < 0 || c < 0 || r >= rows || c >= columns ? 0 : volume.labels[at(r, c)]);
  const x = (c) => left + (c * width) / columns, y = (r) => top + (r * height) / rows;
  for (let r = 0, k = 0; r < rows; r++)
    for (let c = 0; c < columns; c++, k += 4) {
      const own = label(r, c), brush = paint.get(own);
      if (!brush) continue;
      image.data.set([...brush.rgb, 255 * view.strength], k);
      const line = (...ends) => { brush.outline.moveTo(ends[0], ends[1]); brush.outline.lineTo(ends[2], ends[3]); };
      if (label(r - 1, c) !== own) line(x(c), y(r), x(c + 1), y(r));
      if (label(r + 1, c) !== own) line(x(c), y(r + 1), x(c + 1), y(r + 1));
      if (label(r, c - 1) !== own) line(x(c), y(r), x(c), y(r + 1));
      if (label(r, c + 1) !== own) line(x(c + 1), y(r), x(c + 1), y(r + 1));
    }
  context.imageSmoothingEnabled = false;
  context.drawImage(canvasOf(image), left, top, width, height);
  context.lineWidth = 2.5;
  context.lineCap = "round";
  context.globalAlpha = Math.min(1, 2 * view.strength);
  for (const { outline, color } of paint.values()) { context.strokeStyle = color; context.stroke(outline); }
  context.globalAlpha = 1;
}

function draw(root, data, volume, view) {
  view.layout = layout(data.shape, view.plane, view.index[view.plane]);
  const canvas = root.querySelector(".picture"), context = canvas.getContext("2d");
  const ratio = proportion(data, view.plane), side = canvas.width;
  const [width, height] = ratio > 1 ? [side / ratio, side] : [side, side * ratio];
  const place = [(side - width) / 2, (side - height) / 2, width, height];
  context.clearRect(0, 0, side, side);
  context.imageSmoothingQuality = "high";
  context.imageSmoothingEnabled = true;
  context.drawImage(drawImage(data, volume, view), ...place);
  if (view.strength) drawMask(context, place, data, volume, view);
  const index = view.index[view.plane], axial = view.plane === "axial";
  const number = axial && data.numbers[index] !== index + 1 ? `, number ${data.numbers[index]}` : "";
  root.querySelector(".where").textContent = `Slice ${index + 1} of ${data.shape[AXES[view.plane]]}${number}`;
  root.querySelector(".slice").value = index;
  drawAreas(root, data, view);
}

function drawAreas(root, data, view) {
  const canvas = root.querySelector(".areas"), context = canvas.getContext("2d");
  const areas = view.areas[view.plane], most = Math.max(...areas);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const inset = 14, step = (canvas.width - 2 * inset) / Math.max(1, areas.length - 1);
  areas.forEach((area, index) => {
    if (!area) return;
    const height = 4 + (canvas.height - 4) * (area / most);
    context.fillStyle = data.classes[0].color;
    context.globalAlpha = index === view.index[view.plane] ? 1 : 0.45;
    context.fillRect(inset + (index - 0.5) * step, canvas.height - height, Math.max(1.5, step - 1), height);
  });
}

function buttons(parent, entries, pressed, act) {
  parent.replaceChildren(...entries.map(({ name, value, color }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    if (color) button.style.setProperty("--color", color);
    const mark = () => button.setAttribute("aria-pressed", pressed(value));
    button.onclick = () => { act(value); parent.childNodes.forEach((each) => each.mark()); };
    button.mark = mark;
    mark();
    return button;
  }));
}

function connect(root, data, volume, view) {
  const redraw = () => draw(root, data, volume, view);
  const slider = root.querySelector(".slice"), stage = root.querySelector(".stage");
  const turnTo = (plane) => {
    view.plane = plane;
    slider.max = data.shape[AXES[plane]] - 1;
    const letters = data.oriented ? LETTERS[plane] : ["", "", "", ""];
    ["top", "bottom", "left", "right"].forEach((side, k) => { root.querySelector(`.${side}`).textContent = letters[k]; });
    const remarks = [plane !== "axial" && !data.spacing ? "height not to scale: spacing unknown" : "",
      data.shrink > 1 ? `shown at 1/${data.shrink} of its size` : ""];
    root.querySelector(".remark").textContent = remarks.filter(Boolean).join("; ");
    redraw();
  };
  const move = (by) => {
    const last = data.shape[AXES[view.plane]] - 1;
    view.index[view.plane] = Math.min(last, Math.max(0, view.index[view.plane] + by));
    redraw();
  };
  const named = (name, value = name) => ({ name: name[0].toUpperCase() + name.slice(1), value });
  buttons(root.querySelector(".planes"), data.planes.length > 1 ? data.planes.map((p) => named(p)) : [],
    (plane) => plane === view.plane, turnTo);
  buttons(root.querySelector(".channels"), data.channels.length > 1 ? data.channels.map((c, k) => ({ name: c, value: k })) : [],
    (channel) => channel === view.channel, (channel) => { view.channel = channel; redraw(); });
  buttons(root.querySelector(".classes"), data.classes, (value) => !view.hidden.has(value), (value) => {
    view.hidden.has(value) ? view.hidden.delete(value) : view.hidden.add(value);
    redraw();
  });
  slider.oninput = () => { view.index[view.plane] = Number(slider.value); redraw(); };
  const strength = root.querySelector(".strength"), said = root.querySelector(".opacity output");
  strength.value = 100 * view.strength;
  strength.oninput = () => { view.strength = strength.value / 100; said.value = `${strength.value} %`; redraw(); };
  said.value = `${strength.value} %`;
  stage.onwheel = (event) => { event.preventDefault(); move(Math.sign(event.deltaY)); };
  stage.onkeydown = (event) => {
    const by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (by) { event.preventDefault(); move(by); }
  };
  drag(stage, () => data.shape[AXES[view.plane]], move);
  root.querySelector(".save").onclick = () => save(root, data, view);
  turnTo(view.plane);
}

// Dragging across the whole picture goes through the whole study.
function drag(stage, count, move) {
  let from = null;
  stage.onpointerdown = (event) => { if (!event.target.closest("button")) from = event.clientX; };
  stage.onpointermove = (event) => {
    if (from === null) return;
    const by = Math.trunc(((event.clientX - from) / stage.clientWidth) * count());
    if (by) { move(by); from = event.clientX; }
  };
  stage.onpointerup = stage.onpointerleave = stage.onpointercancel = () => { from = null; };
}

function save(root, data, view) {
  root.querySelector(".picture").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${data.name}_${view.plane}_${view.index[view.plane] + 1}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

export default async function ({ data, parentElement }) {
  const root = parentElement.querySelector(".viewer");
  if (root.dataset.shown === data.key) return; // the page ran again about the same study
  root.dataset.shown = data.key;
  const [image, labels] = await Promise.all([unpack(data.image), unpack(data.labels)]);
  if (root.dataset.shown !== data.key) return; // another study came meanwhile
  const areas = Object.fromEntries(data.planes.map((plane) => [plane, areasOf(labels, data.shape, AXES[plane])]));
  const index = Object.fromEntries(data.planes.map((plane) => [plane, middle(areas[plane])]));
  const view = { plane: "axial", channel: data.first, hidden: new Set(), strength: 0.4, index, areas };
  connect(root, data, { image, labels }, view);
}

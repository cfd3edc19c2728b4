// The toolbars around the planes: layout, window, tool, slice and layers.

import { PLANES, AXIS } from "./geometry.js";
import { percentiles } from "./study.js";
import { h, options, $ } from "./dom.js";

const TOOLS = [
  ["look", "Look", "Click moves the cursor in all planes (V)"],
  ["window", "Window", "Drag sideways for contrast, up and down for brightness; also with the right button (W)"],
  ["move", "Move", "Drag to move the picture; also with Shift (H)"],
  ["ruler", "Ruler", "Drag to measure (R)"],
  ["brush", "Brush", "Draw the label; Ctrl erases, [ and ] change the size (B)"],
  ["erase", "Eraser", "Remove labels (E)"],
  ["threshold", "Threshold brush", "Draw only where the value is in a range (T)"],
];
const WINDOWS = [["wide", "0.5–99.5 %"], ["all", "0–100 %"], ["soft", "2–98 %"], ["bright", "40–99.9 %"], ["dark", "0.5–80 %"], ["own", "dragged"]];
const capital = (text) => text[0].toUpperCase() + text.slice(1);

function toggles(label, entries, act) {
  const buttons = entries.map(([value, text, title]) => h("button", { type: "button", title, "aria-pressed": "false", "data-value": value, onclick: () => act(value) }, text));
  const group = h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
  group.mark = (value) => buttons.forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.value === String(value))));
  return group;
}

export function buildControls(viewer) {
  const scene = () => viewer.scene;
  const arrange = toggles("Arrangement", [["one", "One"], ["pair", "Side by side"], ["four", "Linked"]], (how) => viewer.arrange(how));
  const planes = toggles("Plane", PLANES.map((plane) => [plane, capital(plane)]), (plane) => viewer.activate(plane));
  const sequences = h("div", { class: "choice", role: "group", "aria-label": "Sequence" });
  const windows = h("select", { "aria-label": "Window, by percentiles of the values", title: "Window, by percentiles of the values", onchange: () => { if (windows.value !== "own") viewer.preset(windows.value); } }, options(WINDOWS));
  const side = h("select", { "aria-label": "Side of the patient", onchange: () => { scene().mirrored = side.value === "neurological"; viewer.draw(); } },
    options([["radiological", "Radiological"], ["neurological", "Neurological"]]));
  const zoom = h("div", { class: "choice", role: "group", "aria-label": "Zoom" },
    [["−", "Zoom out (-)", () => viewer.zoom(viewer.panes[viewer.active], 0.8)], ["Fit", "Fit to the pane (0)", () => viewer.fit()], ["+", "Zoom in (+)", () => viewer.zoom(viewer.panes[viewer.active], 1.25)]]
      .map(([text, title, act]) => h("button", { type: "button", title, "aria-label": title, onclick: act }, text)));
  const tools = toggles("Tool", TOOLS, choose);
  const undo = h("button", { type: "button", title: "Undo (Ctrl+Z)", onclick: () => viewer.undo() }, "Undo");
  const redo = h("button", { type: "button", title: "Redo (Ctrl+Y)", onclick: () => viewer.redo() }, "Redo");
  const label = h("select", { "aria-label": "Label to draw", onchange: () => { scene().label = Number(label.value); mark(); } });
  const lock = h("label", { class: "check", title: "Strokes leave this label as it is" }, h("input", { type: "checkbox", onchange: (event) => { const { locked } = scene().drawing; event.target.checked ? locked.add(scene().label) : locked.delete(scene().label); } }), "Lock");
  const size = h("input", { type: "range", min: "0.5", max: "40", step: "0.5", "aria-label": "Brush radius", oninput: () => { scene().radius = Number(size.value); mark(); } });
  const sizeText = h("output");
  const ball = h("label", { class: "check", title: "The brush is a ball through the slices" }, h("input", { type: "checkbox", onchange: (event) => { scene().ball = event.target.checked; } }), "Ball");
  const low = h("input", { type: "number", step: "any", "aria-label": "Lowest value", onchange: range }), high = h("input", { type: "number", step: "any", "aria-label": "Highest value", onchange: range });
  const bounds = h("span", { class: "bounds", hidden: true }, "from", low, "to", high);
  const fill = h("button", { type: "button", title: "Fill the label between the axial slices that have it", onclick: () => { scene().drawing.fillBetween(scene().label); } }, "Fill between slices");
  const wipe = h("button", { type: "button", title: "Remove the label from this slice", onclick: () => { scene().drawing.clearPlane(viewer.panes[viewer.active].drawn.shape, scene().label); } }, "Clear slice");
  const editing = h("div", { class: "bar editing" }, label, lock, h("label", { class: "check" }, "Size", size, sizeText), ball, bounds, fill, wipe);
  const slider = h("input", { type: "range", min: "0", step: "1", "aria-label": "Slice", oninput: () => viewer.goTo(Number(slider.value)) });
  const areas = h("canvas", { class: "areas", "aria-hidden": "true" });
  const layers = h("div", { class: "choice layers", role: "group", "aria-label": "Layers" });
  const opacity = h("input", { type: "range", min: "0", max: "100", step: "5", "aria-label": "Opacity of the mask", oninput: () => { scene().opacity = opacity.value / 100; viewer.draw(); } });

  function choose(tool) {
    if (["brush", "erase", "threshold"].includes(tool) && !scene().drawing) return;
    scene().tool = tool;
    if (tool === "threshold" && !scene().range) suggest();
    mark();
  }

  // A range around the label's present intensities, or the brightest fifth.
  function suggest() {
    const { study, channel, drawing, label: wanted } = scene(), values = study.channels[channel], inside = [];
    for (let k = 0; k < values.length; k += 3) if (drawing.labels[k] === wanted) inside.push(values[k]);
    const [from, to] = inside.length > 50 ? percentiles(Float64Array.from(inside), [5, 99]) : percentiles(values, [80, 100]);
    [low.value, high.value] = [from, to].map((value) => Number(value.toPrecision(4)));
    range();
  }

  function range() { scene().range = [Number(low.value), Number(high.value)]; }

  function reset() {
    const { study, classes } = scene();
    const known = study.names.length > 1;
    sequences.replaceChildren(...(known ? study.names.map((name, k) => h("button", { type: "button", "data-value": k, onclick: () => { scene().channel = k; scene().range = null; choose(scene().tool); viewer.draw(); } }, name)) : []));
    sequences.hidden = !known;
    label.replaceChildren(...options(classes.map(({ value, name }) => [value, name])));
    side.value = scene().mirrored ? "neurological" : "radiological";
    side.hidden = !study.affine;
    ball.hidden = !study.spacing_mm;
    $("input", ball).checked = scene().ball;
    opacity.value = 100 * scene().opacity;
    arrange.hidden = study.shape[0] < 2 && !scene().other;
    layers.replaceChildren(...layerButtons());
    mark();
  }

  function layerButtons() {
    const { classes, drawing, probability, reference, other, layers: on, hidden } = scene();
    const button = (text, kind, color, isOn, flip) => h("button", { type: "button", class: kind, style: { "--color": color }, "aria-pressed": String(isOn()), onclick: (event) => { flip(); event.currentTarget.setAttribute("aria-pressed", String(isOn())); viewer.draw(); viewer.surface.show(scene()); viewer.surface.draw(); } }, text);
    const layer = (name, text, color) => button(text, name, color, () => on[name], () => { on[name] = !on[name]; });
    return [
      ...(drawing ? classes.map(({ value, name, color }) => button(name, "class", color, () => !hidden.has(value), () => { hidden.has(value) ? hidden.delete(value) : hidden.add(value); })) : []),
      ...(probability ? [layer("probability", "Probability", "#ffb52e")] : []),
      ...(reference ? [layer("reference", "Reference", "#f4f1de")] : []),
      ...(other ? [layer("other", scene().otherName ?? "Other version", "#9ef01a")] : []),
    ];
  }

  function mark() {
    if (!scene()) return;
    const { drawing, tool, radius, study, channel, window, label: wanted } = scene();
    windows.value = window.preset;
    arrange.mark(viewer.how);
    planes.mark(viewer.active);
    $("[data-value=pair]", arrange).hidden = !scene().other;
    planes.hidden = viewer.how === "four" || study.shape[0] < 2;
    tools.mark(tool);
    sequences.childNodes.forEach((each, k) => each.setAttribute("aria-pressed", String(k === channel)));
    editing.hidden = !drawing;
    editing.classList.toggle("away", !["brush", "erase", "threshold"].includes(tool)); // the picture stays where it is
    bounds.hidden = tool !== "threshold";
    size.value = radius;
    sizeText.value = `${radius.toFixed(1)} ${study.spacing_mm ? "mm" : "px"}`;
    label.value = wanted;
    if (drawing) $("input", lock).checked = drawing.locked.has(wanted);
    undo.disabled = !drawing?.done.length;
    redo.disabled = !drawing?.undone.length;
    for (const each of tools.childNodes) each.disabled = !drawing && ["brush", "erase", "threshold"].includes(each.dataset.value);
    slider.max = viewer.last;
  }

  function scrolled() {
    slider.max = viewer.last;
    slider.value = viewer.index;
    slider.setAttribute("aria-valuetext", `${viewer.active} slice ${viewer.index + 1} of ${viewer.last + 1}`);
    drawAreas();
  }

  function drawAreas() {
    const width = areas.clientWidth, height = areas.clientHeight, context = areas.getContext("2d");
    if (!width) return;
    Object.assign(areas, { width, height });
    const counts = viewer.areas?.[viewer.active];
    if (!counts) return;
    const most = Math.max(...counts, 1), inset = 8, step = (width - 2 * inset) / Math.max(1, counts.length - 1);
    context.fillStyle = scene().classes[0].color;
    counts.forEach((area, index) => {
      if (!area) return;
      context.globalAlpha = index === viewer.index ? 1 : 0.5;
      const tall = 3 + (height - 3) * (area / most);
      context.fillRect(inset + (index - 0.5) * step, height - tall, Math.max(1.5, step - 1), tall);
    });
  }

  return {
    top: h("div", { class: "bars" },
      h("div", { class: "bar" }, arrange, planes, sequences, windows, side, zoom),
      h("div", { class: "bar" }, tools, h("div", { class: "choice", role: "group", "aria-label": "History" }, undo, redo)),
      editing),
    scroll: h("div", { class: "scroll" }, areas, slider),
    bottom: h("div", { class: "bar" }, layers, h("label", { class: "check" }, "Opacity", opacity)),
    reset, mark, scrolled, choose,
  };
}

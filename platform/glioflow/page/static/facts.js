// The answer in words and numbers: verdict, uncertainty, volumes, features, survival, model.

import { h, number, thousands } from "./dom.js";

const UNITS = { px: "px", mm: "mm", mm2: "mm²", mm3: "mm³", fraction: "fraction", slice: "slice" };
const SPOKEN = {
  asd: "Angular standard deviation (ASD)", mf: "Margin fluctuation (MF)", bevr: "Bounding ellipsoid volume ratio (BEVR)",
  side: "Side of the brain (−1: lower columns, 1: higher)", largest_slice: "Largest slice", num_slices_with_tumor: "Slices with tumor", num_components: "Separate parts",
};
const EVENTS = { death01: "death", overall_survival: "death", progression_free: "progression or death" };
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const percent = (value) => `${Math.round(100 * value)} %`;
const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

export const modelName = ({ name, version }) => (version === null ? name : `${name}, version ${version}`);

// A volume in cm³ if the spacing is known, otherwise in pixels.
export const volumeText = (voxels, spacing) => (spacing ? `${((voxels * spacing[0] * spacing[1] * spacing[2]) / 1000).toFixed(1)} cm³` : `${thousands(voxels)} px`);

// The ends of an interval in few letters, for a table.
export function shortInterval({ interval, level, unit }) {
  if (!interval || !level) return "";
  const [low, high] = interval.map((end) => (unit === "mm3" ? (end / 1000).toFixed(1) : thousands(end)));
  return `${percent(level)}: ${low}–${high} ${unit === "mm3" ? "cm³" : "px"}`;
}

export function intervalText({ interval, level, unit }) {
  if (!interval || !level) return "";
  const ends = unit === "mm3" ? `${(interval[0] / 1000).toFixed(1)} to ${(interval[1] / 1000).toFixed(1)} cm³` : `${thousands(interval[0])} to ${thousands(interval[1])} px`;
  return `${percent(level)} interval ${ends}`;
}

const fact = (title, value, remark, kind = "") => h("div", { class: `fact ${kind}` }, h("small", {}, title), h("b", {}, value), remark ? h("small", {}, remark) : null);

export function verdict(answer) {
  const { tumor, uncertainty, study, timing_ms, model } = answer, found = tumor.detected, promised = uncertainty.expected_dice, ensemble = uncertainty.ensemble;
  const size = tumor.volume.unit === "mm3" ? `${(tumor.volume.value / 1000).toFixed(1)} cm³` : `${thousands(tumor.volume.value)} px`;
  return h("section", { class: "verdict", "aria-label": "Verdict" },
    h("div", { class: "facts" },
      fact("Tumor", found ? "Found" : "None found", `in ${tumor.slices.length} of ${study.slices.length} slices`, found ? "found" : "none"),
      fact("Volume", found ? size : "0", intervalText(tumor.volume) || (tumor.volume.unit === "px" ? "spacing unknown" : "")),
      fact("Expected Dice", promised === null ? "–" : promised.toFixed(2), promised === null ? "undefined without a tumor" : "from the model's probabilities"),
      fact("Highest probability", tumor.probability.toFixed(2), `${thousands(uncertainty.uncertain_px)} px between 0.1 and 0.9`),
      ensemble ? fact("Networks", String(ensemble.num_members), `masks differ by ${percent(ensemble.mask_disagreement)}`) : null),
    doubts(study.warnings),
    h("p", { class: "by" }, `Study ${study.id}, answered by ${modelName(model)} in ${duration(timing_ms.total)}.`));
}

export function doubts(warnings) {
  if (!warnings.length) return null;
  return h("ul", { class: "doubts", "aria-label": "Warnings" }, warnings.map((warning) => h("li", {}, capital(warning))));
}

// ---- features ----

function spoken(name) {
  const parts = name.split("_"), last = parts.at(-1);
  if (SPOKEN[name]) return [SPOKEN[name], name === "largest_slice" ? "slice" : ""];
  const unit = parts.length > 1 ? UNITS[last] ?? "" : "";
  const words = (unit ? parts.slice(0, -1) : parts).join(" ").replace(/^num /, "").replace(/ std/, " standard deviation");
  return [capital(words), unit];
}

function rows(features, numbers) {
  return Object.entries(features.volume)
    .filter(([name]) => !name.startsWith("box_") && !name.includes("_position") && !name.endsWith("_number"))
    .map(([name, value]) => {
      const [spelled, unit] = spoken(name), words = /^centroid_(row|column)/.test(name) ? `${spelled}, from 0` : spelled, slice = ["largest_slice", "centroid_slice"].includes(name) && value !== null;
      return { words, unit, value: slice ? between(numbers, value) : value, note: features.undefined[name] ?? "undefined" };
    });
}

// The slice number at a position, which may be between two slices.
function between(numbers, at) {
  const low = Math.floor(at), high = Math.min(numbers.length - 1, low + 1);
  return numbers[low] + (at - low) * (numbers[high] - numbers[low]);
}

const table = (head, body) => h("table", {}, h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))),
  h("tbody", {}, body.map((cells) => h("tr", {}, cells.map((cell, k) => (k ? h("td", {}, cell) : h("th", { scope: "row" }, cell)))))));

export function featuresView(features, numbers, about) {
  const all = rows(features, numbers), known = all.filter((row) => row.value !== null), missing = all.filter((row) => row.value === null);
  const slices = features.slices.map(({ slice, number: _n, position: _p, position_mm: _m, ...rest }) => [String(numbers[slice]), ...Object.values(rest).map((value) => (value === null ? "–" : number(value)))]);
  const names = features.slices.length ? Object.keys(features.slices[0]).filter((name) => !["slice", "number", "position", "position_mm"].includes(name)) : [];
  const notes = [...new Set(missing.map((row) => row.note))];
  return h("div", {},
    about ? h("p", { class: "by" }, about) : null,
    table(["Feature", "Value", "Unit"], known.map((row) => [row.words, number(row.value), row.unit])),
    slices.length ? h("details", {}, h("summary", {}, `By slice (${slices.length})`), h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Features by slice" }, table(["slice", ...names.map((name) => spoken(name).filter(Boolean).join(", "))], slices))) : null,
    missing.length ? h("details", {}, h("summary", {}, `Without a value (${missing.length})`), notes.map((note) => h("p", {}, h("b", {}, `${capital(note)}: `), missing.filter((row) => row.note === note).map((row) => row.words).join(", ")))) : null);
}

export function featuresCsv(features) {
  const lines = Object.entries(features.volume).map(([name, value]) => `${name},${value ?? ""},${spoken(name)[1]}`);
  return `feature,value,unit\n${lines.join("\n")}\n`;
}

// ---- survival ----

export function survivalView(survival) {
  if (!survival) return h("p", {}, "This model has no survival stage.");
  const warnings = survival.warnings.map(String), used = survival.basis.join(", ") || "no value of this patient";
  return h("div", {},
    survival.beats_baselines ? null : h("p", { class: "bad" }, "No better than its baselines in cross-validation: it does not predict reliably for this patient."),
    doubts(warnings),
    statement(survival),
    survival.curve ? curve(survival.curve) : null,
    survival.beats_baselines ? h("p", {}, "The model beats its baselines in cross-validation.") : null,
    h("p", {}, `Computed from: ${used}.${survival.imputed.length ? ` Imputed: ${survival.imputed.join(", ")}.` : ""}`),
    h("p", {}, `Risk score ${survival.risk_score.toFixed(2)}; higher is worse.`));
}

function statement({ predicted_days: days, probability, interval, category, horizon_days: horizon, task }) {
  if (days !== null) {
    const remark = [interval ? `95 % interval ${interval[0].toFixed(0)} to ${interval[1].toFixed(0)} days` : "", category ?? ""].filter(Boolean).join("; ");
    return h("div", { class: "facts" }, fact("Predicted survival", `${days.toFixed(0)} days`, remark));
  }
  if (probability === null) return null;
  const until = horizon === null ? "at any time" : `within ${horizon.toFixed(0)} days`;
  const card = fact(`Probability of ${EVENTS[task] ?? "the event"} ${until}`, percent(probability), interval ? `95 % interval ${Math.round(100 * interval[0])} to ${Math.round(100 * interval[1])} %` : "");
  const [low, high] = interval ?? [probability, probability];
  card.append(h("div", { class: "range", "aria-hidden": "true" }, h("i", { style: { left: `${100 * low}%`, width: `${100 * (high - low)}%` } }), h("b", { style: { left: `${100 * probability}%` } })));
  return h("div", { class: "facts" }, card);
}

function curve({ days, survival, low, high }) {
  const svg = (tag, attributes, ...children) => { const e = document.createElementNS("http://www.w3.org/2000/svg", tag); Object.entries(attributes).forEach(([k, v]) => e.setAttribute(k, v)); e.append(...children); return e; };
  const last = Math.max(...days, 1), x = (day) => 34 + (day / last) * 270, y = (part) => 8 + (1 - part) * 120;
  const steps = (values) => values.map((value, k) => (k ? `H${x(days[k])}V${y(value)}` : `M${x(days[0])} ${y(value)}`)).join("") + `H${x(last)}`;
  const back = [...low.keys()].reverse().map((k) => `${k === low.length - 1 ? `V${y(low[k])}` : `V${y(low[k])}`}H${x(days[k])}`).join("");
  return h("figure", {}, svg("svg", { viewBox: "0 0 316 158", role: "img", "aria-label": `Survival curve over ${last.toFixed(0)} days, with its interval` },
    svg("path", { d: `${steps(high)}${back}Z`, class: "band" }), svg("path", { d: steps(survival), class: "line" }),
    ...[0, 0.5, 1].map((part) => svg("text", { x: 28, y: y(part) + 4, "text-anchor": "end" }, String(part))),
    svg("text", { x: 34, y: 150 }, "0"), svg("text", { x: 304, y: 150, "text-anchor": "end" }, `${last.toFixed(0)} days`)),
    h("figcaption", {}, "No event until then, with its interval"));
}

// ---- the model ----

export function modelView(answer, card) {
  if (!card) return h("p", {}, "The endpoint does not answer.");
  const { model: now, origin, metrics } = card, given = answer?.model;
  const changed = given && JSON.stringify(given) !== JSON.stringify(now);
  const patients = Object.entries(origin.num_patients).map(([part, count]) => `${count} ${part}`).join(", ");
  const entries = {
    Model: now.name, Version: now.version, Run: now.run_id,
    Network: ["architecture", "encoder"].map((key) => card.architecture[key]).filter(Boolean).join(" "),
    Parameters: thousands(card.num_parameters), Input: card.input.channels.join(", "), Output: target(card.target),
    "Trained on": `${origin.cohort_format} cohort ${origin.fingerprint.slice(0, 12)}; patients: ${patients}`, ...quality(metrics),
    Challenger: card.serving?.challenger ? `version ${card.serving.challenger.version}` : null,
  };
  const timing = answer ? Object.entries(answer.timing_ms).map(([stage, ms]) => `${stage} ${duration(ms)}`).join(", ") : null;
  return h("div", {},
    changed ? h("p", { class: "bad" }, `${modelName(given)} gave this answer. ${modelName(now)} is served now, and described here.`) : null,
    h("dl", {}, Object.entries(entries).filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))])),
    timing ? h("p", { class: "by" }, `Time: ${timing}`) : null,
    h("details", {}, h("summary", {}, "The whole card"), h("pre", { tabindex: "0" }, JSON.stringify(card, null, 1))));
}

const target = ({ kind, regions, labels }) => (kind === "binary" ? "tumor, one label" : Object.keys(regions ?? {}).join(", ") || (labels ?? []).map((value) => `label ${value}`).join(", "));

// Scores on test patients, or on validation patients if it was not tested.
function quality(metrics) {
  const part = metrics["test/dice_mean"] !== undefined && metrics["test/dice_mean"] !== null ? "test" : "val", value = (name) => metrics[`${part}/${name}`] ?? null;
  if (value("dice_mean") === null) return {};
  const [low, high] = [value("dice_ci95_low"), value("dice_ci95_high")], whose = part === "test" ? "test patients" : "validation patients, which chose it";
  const within = low === null || high === null ? "" : `, 95 % interval ${low.toFixed(2)} to ${high.toFixed(2)}`;
  return { Dice: `${value("dice_mean").toFixed(3)} on ${whose}${within}`, IoU: value("iou_mean")?.toFixed(3) ?? null };
}

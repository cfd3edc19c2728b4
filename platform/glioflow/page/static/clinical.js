// The fields for clinical values, if the model has a survival stage.

import { h, options, $ } from "./dom.js";

const FIELDS = {
  gender: ["Sex", ["female", "male"]],
  grade: ["Grade", [1, 2, 3, 4]],
  histology: ["Histology", ["astrocytoma", "oligoastrocytoma", "oligodendroglioma"]],
  resection: ["Resection", ["gtr", "str", "na"]],
};

export function fillClinical(place, card, onchange) {
  if (!card.survival || place.childElementCount) return;
  const age = h("input", { type: "number", min: "0", max: "120", name: "age_years", placeholder: "unknown", onchange });
  place.replaceChildren(h("label", {}, "Age in years", age),
    ...Object.entries(FIELDS).map(([name, [title, choices]]) => h("label", {}, title, h("select", { name, onchange }, options([["", "unknown"], ...choices.map((each) => [each, String(each)])])))),
    h("p", { class: "hint" }, "The survival model uses the values it was fitted on, and imputes those that are missing."));
}

export function readClinical() {
  const values = {};
  for (const field of $("#clinical").querySelectorAll("input, select"))
    if (field.value !== "") values[field.name] = field.name === "age_years" || field.name === "grade" ? Number(field.value) : field.value;
  return values;
}

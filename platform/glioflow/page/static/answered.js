// One open study: its answer, corrections of the mask, and what happens to them.

import * as api from "./api.js";
import { $, h, number, renew, save, say, thousands } from "./dom.js";
import { doubts, featuresCsv, featuresView, modelName, modelView, shortInterval, survivalView, verdict, volumeText } from "./facts.js";
import { chosen } from "./files.js";
import { askAndSend } from "./send.js";
import { countLabels, decodeRuns, dice, encodeRuns, matchReference, parseStudy, unpackBytes } from "./study.js";
import { drop, get, put } from "./store.js";
import { zip } from "./zip.js";

// Which files the endpoint reads as the reference of a study of this kind.
const REFERENCE_OF = {
  tiff: "Give a mask for each slice, named <name>_mask.tif.",
  png: "Give a mask for each slice, named <name>_mask.png.",
  nifti: "Give one volume on the study's grid, in NIfTI.",
  "dicom-seg": "Give DICOM-SEG, or NIfTI on the study's grid.",
};

const MEASURE_MS = 700, KEEP_MS = 1500;

export class Answered {
  static colors = ["#ff7a59"];
  static sequences = {};

  constructor({ entry, viewer, card, place, clinical, onstate }) {
    Object.assign(this, { entry, viewer, card, place, clinical, onstate, opened: Date.now(), answer: null, predicted: null, other: null, reference: null, tab: "Features" });
  }

  showStudy(buffer) {
    this.study = parseStudy(buffer);
    this.viewer.show(this.study);
    if (this.study.reference) this.reference = decodeRuns(this.study.reference, this.study.size);
  }

  async showAnswer(answer) {
    const { study, viewer } = this;
    this.answer = answer;
    if (answer && String(answer.mask.shape) !== String(study.shape)) throw new api.Refusal(500, { rule: `the endpoint answered with a mask of ${answer.mask.shape} for a study of ${study.shape}` });
    const names = answer ? answer.mask.names : await this.legend();
    const values = Object.keys(names).map(Number);
    this.classes = values.map((value) => ({ value, name: names[value], color: Answered.colors[(value - 1) % Answered.colors.length] }));
    this.regions = answer ? answer.mask.regions : {};
    this.predicted = answer ? decodeRuns(answer.mask.data, study.size) : null;
    this.predictedCounts = this.predicted ? countLabels(this.predicted) : null;
    viewer.setMask(this.predicted ? this.predicted.slice() : new Uint8Array(study.size), this.classes);
    if (answer?.probability) viewer.setLayer("probability", await unpackBytes(answer.probability.data));
    if (this.reference) this.setReference(this.reference);
    this.build();
    await this.offerDraft();
  }

  // The labels if no model answered: those of the reference, or one tumor.
  async legend() {
    const found = this.reference ? [...new Set(this.reference)].filter(Boolean).sort((a, b) => a - b) : [];
    return found.length > 1 ? Object.fromEntries(found.map((value) => [value, `label ${value}`])) : { [found[0] ?? 1]: "tumor" };
  }

  get drawing() { return this.viewer.scene.drawing; }
  get edited() { return this.drawing.changed; }
  get mask() { return { shape: this.study.shape, data: encodeRuns(this.drawing.labels), names: Object.fromEntries(this.classes.map(({ value, name }) => [value, name])) }; }

  // ---- the answer's column ----

  build() {
    const { answer, place } = this;
    this.correction = h("section", { class: "correction", "aria-label": "Mask" });
    this.tabs = Object.fromEntries(["Features", "Survival", "Model", "Save"].map((name) => [name, h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", onclick: () => this.turnTo(name), onkeydown: (event) => this.#tabKey(event) }, name)]));
    this.panel = h("div", { id: "panel", role: "tabpanel" });
    this.features = answer?.features ?? null;
    this.measured = 0; // the state of the drawing that the features are of
    this.clinicalChanged = h("p", { class: "bad", hidden: true }, "This answer was given with other clinical values. Analyze again.");
    place.replaceChildren(...[
      answer ? verdict(answer) : h("section", { class: "verdict" }, h("p", {}, h("b", {}, "Read without a model. "), `Study ${this.study.id}: ${this.study.shape[0]} slices.`), doubts(this.study.warnings)),
      this.clinicalChanged, this.reading(), this.correction, h("div", { role: "tablist", "aria-label": "Details" }, Object.values(this.tabs)), this.panel,
    ].filter(Boolean));
    this.showVolumes();
    this.turnTo(answer ? "Features" : "Save");
    place.scrollTop = 0;
  }

  // The roles of the files as the endpoint read them, which override the browser's guess by names.
  reading() {
    const { study } = this, named = study.files.filter((file) => file.channel);
    const differs = named.some((file) => { const own = this.entry.files.find((each) => each.name === file.name); return own?.channel && Answered.sequences[file.channel.toLowerCase()] !== own.channel; });
    return h("details", { class: "reading", open: differs }, h("summary", {}, `Read as ${study.names.join(", ")}: ${study.shape.join(" × ")}${study.spacing_mm ? `, ${study.spacing_mm.map((mm) => number(mm, 3)).join(" × ")} mm` : ""}`),
      h("ul", {}, (named.length ? named : study.files.slice(0, 20)).map((file) => h("li", {}, `${file.name}${file.channel ? `: ${file.channel}` : ""}`))),
      study.left_out.length ? h("p", {}, `Too large to show all of it: ${study.left_out.join(", ")} left out.`) : null);
  }

  turnTo(name) {
    this.tab = name;
    for (const [each, button] of Object.entries(this.tabs)) { button.setAttribute("aria-selected", String(each === name)); button.tabIndex = each === name ? 0 : -1; }
    this.panel.setAttribute("aria-labelledby", `tab-${name}`);
    const about = this.measured !== this.drawing.state ? "Of the mask before its last strokes." : this.edited ? "Of the mask as it is corrected now." : null;
    const make = {
      Features: () => (this.features ? featuresView(this.features, this.study.slices, about) : h("p", {}, "Draw a mask to measure it.")),
      Survival: () => survivalView(this.answer?.survival ?? null),
      Model: () => modelView(this.answer, this.card),
      Save: () => this.saving(),
    };
    this.panel.replaceChildren(make[name]());
  }

  #tabKey(event) {
    const names = Object.keys(this.tabs), at = names.indexOf(this.tab), by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = names[(at + by + names.length) % names.length];
    this.turnTo(next);
    this.tabs[next].focus();
  }

  // Volumes of the drawn mask, computed in the browser; Dice if there is a reference.
  showVolumes() {
    const { drawing, study, answer, predicted, reference, classes, regions } = this, spacing = study.spacing_mm;
    const parts = Object.keys(regions).length > 1 ? Object.entries(regions) : classes.map(({ value, name }) => [name, [value]]);
    const sum = (counts, values) => values.reduce((total, value) => total + counts[value], 0);
    const head = ["", ...(answer ? ["Model"] : []), "Now", ...(reference ? ["Reference", "Dice"] : [])];
    const rows = parts.map(([name, values]) => [name,
      ...(answer ? [this.modelVolume(name, sum(this.predictedCounts, values))] : []),
      volumeText(sum(drawing.counts, values), spacing),
      ...(reference ? [volumeText(sum(this.referenceCounts, values), spacing), this.diceText(drawing.labels, values)] : [])]);
    const modelDice = reference && predicted ? `Dice of the model's own mask: ${parts.map(([name, values]) => `${name} ${this.diceText(predicted, values)}`).join(", ")}.` : null;
    const loaded = this.card?.serving?.challenger;
    renew(this.correction, ...[
      h("table", {}, h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, k) => (k ? h("td", {}, cell) : h("th", { scope: "row" }, cell))))))),
      ...this.missingIntervals(),
      modelDice ? h("p", { class: "by" }, modelDice) : null,
      this.otherText ? h("p", { class: "by" }, this.otherText) : null,
      h("div", { class: "row" },
        h("button", { type: "button", id: "send", class: "main", disabled: !drawing.counts.some((count, value) => value && count) && !this.edited, onclick: () => this.send() }, "Send correction…"),
        this.edited && predicted ? h("button", { type: "button", title: "Can be undone", onclick: () => drawing.replace(predicted) }, "Back to the model's") : null,
        reference ? h("button", { type: "button", title: "Can be undone", onclick: () => drawing.replace(reference) }, "Use the reference") : null,
        h("label", { class: "button" }, "Load reference…", h("input", { type: "file", multiple: true, id: "reference", onchange: (event) => this.loadReference(chosen(event.target.files)) })),
        answer && loaded ? h("button", { type: "button", onclick: () => this.compare() }, `Compare version ${this.comparedVersion().version}`) : null),
    ].filter(Boolean));
  }

  // A region as the model measured it, with its interval below.
  modelVolume(name, count) {
    const region = this.answer.tumor.regions?.[name], { unit, level } = this.answer.tumor.volume;
    const interval = shortInterval({ interval: region?.interval, level, unit });
    return h("span", {}, volumeText(region?.volume_px ?? count, this.study.spacing_mm), interval ? h("small", { class: "under" }, interval) : null);
  }

  // Why volumes have no interval, a sentence for each reason.
  missingIntervals() {
    const reasons = new Map();
    for (const [name, { no_interval: why }] of Object.entries(this.answer?.tumor.regions ?? {})) if (why) reasons.set(why, [...(reasons.get(why) ?? []), name]);
    return [...reasons].map(([why, names]) => h("p", { class: "by" }, `No interval for ${names.join(", ")}: ${why}.`));
  }

  diceText(labels, values) {
    const value = dice(labels, this.reference, values);
    return value === null ? "–" : value.toFixed(3);
  }

  // ---- corrections ----

  changed() {
    if (!this.correction) return;
    this.showVolumes();
    clearTimeout(this.measuring);
    clearTimeout(this.keeping);
    this.measuring = setTimeout(() => this.measure(), MEASURE_MS);
    this.keeping = setTimeout(() => this.keepNow(), KEEP_MS);
    if (this.entry.state !== "corrected") this.onstate("corrected");
  }

  async measure() {
    const { shape, data } = this.mask, { spacing_mm, slices, brain } = this.study, drawn = this.drawing.state;
    try {
      const features = await api.measure({ shape, data, spacing_mm, slices, brain });
      if (drawn !== this.drawing.state) return; // there are newer strokes
      Object.assign(this, { features, measured: drawn });
      if (this.tab === "Features") this.turnTo("Features");
    } catch (error) {
      if (!(error instanceof api.Refusal)) throw error;
      if (this.tab === "Features") this.turnTo("Features");
      say(`The features could not be measured. ${error.sentence}`, "bad");
    }
  }

  async keepNow() {
    clearTimeout(this.keeping);
    if (!this.correction || !this.edited || this.sent === this.drawing.state) return;
    await put("drafts", this.study.digest, { data: this.mask.data, shape: this.study.shape, time: Date.now() }).catch(() => say("This browser keeps no drafts: save the mask before you close the page.", "bad"));
  }

  async leave() {
    this.viewer.letGo();
    clearTimeout(this.measuring);
    await this.keepNow();
  }

  async offerDraft() {
    const draft = await get("drafts", this.study.digest);
    if (!draft || String(draft.shape) !== String(this.study.shape)) return;
    const box = h("p", { class: "draft", role: "status" }, `A correction of this study was not sent (${new Date(draft.time).toLocaleString("en")}). `,
      h("button", { type: "button", onclick: () => { this.drawing.replace(decodeRuns(draft.data, this.study.size)); box.remove(); } }, "Continue with it"),
      h("button", { type: "button", onclick: () => { drop("drafts", this.study.digest); box.remove(); } }, "Discard"));
    this.place.prepend(box);
  }

  send() {
    const correction = { id: this.study.digest, key: this.entry.key, title: this.study.id, files: this.files(), mask: this.mask, patient: this.study.patient, version: this.answer?.model.version ?? null, opened: this.opened }, drawn = this.drawing.state;
    askAndSend(correction, { takes: this.card?.feedback, done: (answer) => this.showSent(answer, drawn), download: () => this.saveMask(this.study.native) });
  }

  // The mask as the endpoint read it back from disk, from which a model would learn.
  showSent(answer, drawn) {
    this.sent = drawn;
    this.opened = Date.now();
    const kept = decodeRuns(answer.mask.data, this.study.size), differ = kept.reduce((count, value, k) => count + (value !== this.drawing.labels[k]), 0);
    this.viewer.scene.otherName = "As stored";
    this.otherText = null; // the dashed outline is no longer the compared version's
    this.viewer.setLayer("other", kept);
    drop("drafts", this.study.digest);
    this.onstate("sent");
    this.showVolumes();
    const text = differ ? `${thousands(differ)} voxels differ from what is drawn now` : "it is what you drew, voxel by voxel";
    this.place.prepend(h("p", { class: "sent", role: "status" }, `Sent as ${answer.id}, in quarantine. The dashed outline is the mask as it was stored: ${text}. `, h("code", {}, `glioflow feedback accept ${answer.id}`)));
    this.place.scrollTop = 0;
  }

  files() { const own = this.entry.files.filter((each) => each.role === "image"); return (own.length ? own : this.entry.files).map(({ file, name }) => ({ file, name })); }

  // ---- references and other versions ----

  setReference(labels) {
    this.reference = matchReference(labels, this.classes.map((each) => each.value));
    this.referenceCounts = countLabels(this.reference);
    this.viewer.setLayer("reference", this.reference);
  }

  async loadReference(files) {
    if (!files.length) return;
    const masks = files.map(({ file, name }) => ({ file, name: /\.nii(\.gz)?$/i.test(name) ? `reference_mask${/\.nii(\.gz)?$/i.exec(name)[0]}` : name }));
    try {
      const read = parseStudy(await api.readStudy([...this.files(), ...masks], { image: false }));
      if (!read.reference) return say(`No mask of this study is among these files. ${REFERENCE_OF[this.study.native] ?? REFERENCE_OF.nifti}`, "bad");
      this.setReference(decodeRuns(read.reference, this.study.size));
      this.showVolumes();
      say("The reference is drawn as a light outline.");
    } catch (error) {
      if (!(error instanceof api.Refusal)) throw error;
      say(`The reference could not be read. ${error.sentence}`, "bad");
    }
  }

  // Whichever of champion and challenger did not answer.
  comparedVersion() {
    const { challenger } = this.card.serving, answeredBy = this.answer.model.version;
    return answeredBy === challenger.version ? { ...this.card.model, which: "champion" } : { ...challenger, which: "challenger" };
  }

  async compare() {
    const { which, version } = this.comparedVersion();
    say(`Version ${version} is asked…`);
    try {
      const answer = await api.predict(this.files(), { clinical: this.clinical, version: which, probability: false });
      const labels = decodeRuns(answer.mask.data, this.study.size), all = this.classes.map((each) => each.value);
      const promised = answer.uncertainty.expected_dice;
      this.otherText = `Version ${answer.model.version} (on the right, or dashed): ${volumeText(labels.reduce((count, value) => count + (value > 0), 0), this.study.spacing_mm)}, expected Dice ${promised === null ? "–" : promised.toFixed(2)}; Dice to version ${this.answer.model.version}: ${dice(labels, this.predicted, all)?.toFixed(3) ?? "–"}${this.reference ? `, to the reference: ${this.diceText(labels, all)}` : ""}.`;
      this.viewer.scene.otherName = `Version ${answer.model.version}`;
      this.viewer.setLayer("other", labels);
      this.viewer.arrange("pair");
      this.showVolumes();
      say("");
    } catch (error) {
      if (!(error instanceof api.Refusal)) throw error;
      say(error.sentence, "bad");
    }
  }

  cardChanged(card) {
    const offered = JSON.stringify(this.card?.serving?.challenger);
    this.card = card;
    if (this.correction && JSON.stringify(card.serving?.challenger) !== offered) this.showVolumes();
    const answered = this.answer?.model, loaded = [card.model, card.serving?.challenger].map((each) => JSON.stringify(each));
    if (answered && !loaded.includes(JSON.stringify(answered)) && !this.toldOfVersion) {
      this.toldOfVersion = true;
      this.place.prepend(h("p", { class: "bad" }, `${modelName(answered)} gave this answer. ${modelName(card.model)} is served now.`));
    }
  }

  sayIfClinicalChanged(now) {
    if (this.answer) this.clinicalChanged.hidden = JSON.stringify(now) === JSON.stringify(this.clinical);
  }

  // ---- downloads ----

  saving() {
    const { study, answer } = this, own = study.native, name = study.id;
    const formats = [...new Set([own, "nifti", ...(study.shape[0] === 1 ? ["png"] : []), "tiff"])];
    const words = { nifti: "NIfTI", tiff: study.shape[0] > 1 ? "TIFF slices, zipped" : "TIFF", png: "PNG", "dicom-seg": "DICOM-SEG" };
    const button = (text, act, kind = "") => h("button", { type: "button", class: kind, onclick: act }, text);
    return h("div", { class: "saving" },
      formats.map((format) => button(`Mask: ${words[format]}${format === own ? ", as your files are" : ""}`, () => this.saveMask(format))),
      button("Picture in view: PNG", async () => save(await this.viewer.picture(), `${name}_${this.viewer.active}_${this.viewer.index + 1}.png`)),
      this.features ? button("Features: a table", () => save(this.#text(featuresCsv(this.features), "text/csv"), `${name}_features.csv`)) : null,
      answer ? button("Answer: the whole answer as JSON", () => save(this.#text(JSON.stringify(answer, null, 1), "application/json"), `${name}_answer.json`)) : null,
      answer ? button("Everything: all files in one zip", () => this.saveEverything(), "main") : null);
  }

  #text(text, type) { return new Blob([text], { type }); }

  async saveMask(format) {
    try {
      const { blob, name } = await api.maskFile(this.files(), this.mask, format);
      save(blob, name);
      this.#saved();
    } catch (error) {
      if (!(error instanceof api.Refusal)) throw error;
      say(`The mask could not be saved. ${error.sentence}`, "bad");
    }
  }

  #saved() { if (this.edited && this.entry.state !== "sent") this.onstate("saved"); }

  async saveEverything() {
    try {
      const mask = await api.maskFile(this.files(), this.mask, this.study.native), { id } = this.study;
      save(await zip({
        [mask.name]: mask.blob,
        [`${id}_overlay.png`]: await this.viewer.picture(),
        [`${id}_features.csv`]: this.#text(featuresCsv(this.features), "text/csv"),
        [`${id}_answer.json`]: this.#text(JSON.stringify(this.answer, null, 1), "application/json"),
      }), `${id}_glioflow.zip`);
      this.#saved();
    } catch (error) {
      if (!(error instanceof api.Refusal)) throw error;
      say(`The files could not be saved. ${error.sentence}`, "bad");
    }
  }
}

// The page: studies on the left, their planes in the middle, the answer on the right.

import * as api from "./api.js";
import { Names, chosen, contentKey, dropped, summary } from "./files.js";
import { $, h, renew, say } from "./dom.js";
import { modelName } from "./facts.js";
import { Viewer } from "./viewer.js";
import { Answered } from "./answered.js";
import { fillClinical, readClinical } from "./clinical.js";
import { drop, get, put } from "./store.js";
import { watchWaiting } from "./send.js";

const LOOK_AGAIN_MS = 30000;
const state = { names: null, card: null, away: null, studies: [], entry: null, answered: null, busy: false };
const viewer = new Viewer($("#bench"), { onchange: () => state.answered?.changed() });
$("#viewer").viewer = viewer; // for scripts in the console, and for tests

// ---- the endpoint ----

async function askCard() {
  try {
    state.card = await api.readCard();
    state.away = null;
  } catch (error) {
    if (!(error instanceof api.Refusal)) throw error;
    state.away = error;
  }
  showCard();
}

function showCard() {
  const { card, away } = state, model = $("#model");
  if (card && !away) {
    model.textContent = modelName(card.model);
    model.className = "good";
    if ($("#notice").dataset.kind === "away") notice(null);
    fillClinical($("#clinical"), card, () => state.answered?.sayIfClinicalChanged(readClinical()));
    $("#clinical-box").hidden = !card.survival;
    state.answered?.cardChanged(card);
  } else if (away) {
    model.textContent = away.status === 401 ? "The endpoint refuses this page" : away.code === "older" ? "The endpoint is of an earlier version" : away.busy ? "The endpoint is busy" : "The endpoint does not answer";
    model.className = "bad";
    if (!state.answered) notice(away);
  }
  $("#example-row").hidden = !exampleKind();
  if (state.entry) { showList(); showNames(); }
  if (!state.entry) welcome();
  mark();
}

function exampleKind() {
  const channels = state.card?.input.channels.join();
  return channels === "pre,flair,post" ? "lgg" : channels === "flair,t1,t1ce,t2" || channels === "t1,t1ce,t2,flair" ? "brats" : null;
}

// ---- errors ----

function notice(error, title = null) {
  const place = $("#notice");
  place.hidden = !error;
  place.dataset.kind = !error ? "" : title ? "refused" : error.away || error.busy || error.status === 401 || error.code === "older" ? "away" : "refused";
  if (!error) return place.replaceChildren();
  const again = h("button", { type: "button", onclick: () => { askCard(); } }, "Try again");
  if (error.status === 401) {
    const token = h("input", { type: "password", "aria-label": "Token of the endpoint", autocomplete: "off" });
    return place.replaceChildren(h("b", {}, "The endpoint refuses this page. "), h("p", {}, api.hasToken() ? "This token is not the endpoint's. Type the one that it was started with." : "Type its token here, or set GLIOFLOW_SERVE_TOKEN before you start the page."),
      h("form", { class: "row", onsubmit: (event) => { event.preventDefault(); api.setToken(token.value.trim()); askCard(); } }, token, h("button", { type: "submit" }, "Use this token")));
  }
  if (error.away && !title) return place.replaceChildren(h("b", {}, "The endpoint does not answer. "), error.sentence,
    h("p", {}, "Start an endpoint in another terminal, then try again:"), h("pre", { tabindex: "0" }, "glioflow serve"),
    h("p", {}, "No model is promoted yet? ", h("code", {}, "glioflow serve --name starter"), " serves the small LGG model that ships with GlioFlow, and ", h("code", {}, "glioflow demo"), " makes one. For an endpoint elsewhere, use ", h("code", {}, "glioflow page --endpoint URL"), "."), again);
  if (error.code === "older") return place.replaceChildren(h("b", {}, "This page and the endpoint do not fit. "), error.sentence, again);
  if (error.busy) return place.replaceChildren(h("b", {}, "The endpoint is busy. Try again in a moment. "), error.sentence, again);
  place.replaceChildren(h("b", {}, title ?? "The endpoint refused this study. "), error.sentence, h("p", {}, error.away ? "Press the button again. If it fails again, choose the files again: they may have changed on the disk." : "Nothing was stored. Choose other files and try again."));
}

function welcome() {
  const channels = state.card?.input.channels.join(", ");
  const steps = [
    ["1. Choose", "Slices, a zip of them, NIfTI or DICOM: all files of one study, or a folder of studies. Or a generated example."],
    ["2. Analyze", `The model${channels ? ` reads ${channels},` : ""} marks the tumor and measures it.`],
    ["3. Look and correct", "Scroll through the slices, read the numbers and the warnings, correct the mask, and save it or send it back."],
  ];
  $("#welcome").replaceChildren(h("h2", {}, "No study yet"), h("div", { class: "steps" }, steps.map(([title, text]) => h("div", {}, h("b", {}, title), h("span", {}, text)))),
    h("p", {}, "The model can miss a tumor and can mark healthy tissue. Check every slice yourself."));
  $("#welcome").hidden = false;
  $("#bench").hidden = true;
}

// ---- studies ----

async function add(files) {
  if (!files.length) return;
  const found = state.names.group(files);
  if (!found.length) return say("None of these files is an image: choose TIFF, PNG, NIfTI, DICOM or a zip.", "bad");
  state.studies = found.map((each) => ({ ...each, state: "" }));
  select(state.studies[0]);
  await recall(state.studies);
}

// Earlier work on each study in this browser, independent of file names.
async function recall(studies) {
  for (const entry of studies) {
    const known = await get("done", await keyOf(entry));
    if (known && !entry.state) entry.state = known;
  }
  if (state.studies === studies) showList();
}

const keyOf = async (entry) => (entry.key ??= await contentKey(entry.files));

// Opens another study and clears the previous patient's.
async function select(entry) {
  state.answered?.leave();
  Object.assign(state, { entry, answered: null });
  notice(state.away);
  $("#facts").replaceChildren();
  $("#clinical-box").open = false;
  welcome();
  $("#welcome h2").textContent = `${entry.title}: not analyzed yet`;
  showList();
  showNames();
  mark();
}

// The table of names has one name for each sequence; people know the one that their model uses.
const nameOf = (channel) => channel && (state.card?.input.channels.find((name) => Answered.sequences[name.toLowerCase()] === channel) ?? channel);

function showList() {
  const many = state.studies.length > 1, done = state.studies.filter((each) => each.state === "sent" || each.state === "saved").length;
  $("#list-head").hidden = !many;
  $("#list-count").textContent = `${state.studies.length} studies, ${done} done`;
  renew($("#list"), ...state.studies.map((entry) => h("li", {},
    h("button", { type: "button", class: "study", "aria-current": entry === state.entry ? "true" : null, onclick: () => select(entry) },
      h("b", {}, entry.title), h("small", {}, summary(entry, nameOf)),
      entry.state || entry.expectedDice !== undefined ? h("small", { class: "state" }, [entry.state, entry.expectedDice === undefined ? "" : entry.expectedDice === null ? "no tumor found" : `expected Dice ${entry.expectedDice.toFixed(2)}`].filter(Boolean).join(", ")) : null))));
}

function showNames() {
  const { entry } = state, shown = entry.files.slice(0, 60);
  $("#chosen").hidden = false;
  $("#names").replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "File"), h("th", { scope: "col" }, "Is"))),
    h("tbody", {}, shown.map((each) => h("tr", {}, h("th", { scope: "row" }, each.name), h("td", {}, each.role !== "image" ? each.role : nameOf(each.channel) ?? each.kind))))),
    entry.files.length > shown.length ? h("p", {}, `and ${entry.files.length - shown.length} more`) : "");
}

function mark() {
  const ready = Boolean(state.entry) && !state.busy;
  $("#analyze").disabled = !ready || Boolean(state.away) || !state.card;
  $("#look").disabled = !ready || Boolean(state.away);
  $("#analyze").textContent = state.busy ? "Working…" : "Analyze";
  $("#viewer").setAttribute("aria-busy", String(state.busy));
}

const images = (entry) => entry.files.filter((each) => each.role === "image");

// Reads the study and, if requested, gets an answer; whichever arrives first is shown first.
async function open(entry, { predict }) {
  const before = state.answered, pressed = document.activeElement;
  state.busy = true;
  notice(null);
  mark();
  say(predict ? "The endpoint is analyzing the study…" : "The endpoint is reading the study…");
  const clinical = readClinical();
  try {
    const reading = api.readStudy(entry.files.filter((each) => each.role !== "brain mask"));
    const asking = predict ? api.predict(images(entry).length ? images(entry) : entry.files, { clinical }) : null;
    asking?.catch(() => {}); // awaited below
    const buffer = await reading;
    if (state.entry !== entry) return;
    await before?.leave(); // saves the strokes so far
    state.answered = null;
    const answered = new Answered({ entry, viewer, card: state.card, place: $("#facts"), clinical, onstate: (words) => setState(entry, words) });
    $("#welcome").hidden = true;
    $("#bench").hidden = false;
    answered.showStudy(buffer);
    const answer = await asking;
    if (state.entry !== entry) return;
    state.answered = answered;
    await answered.showAnswer(answer);
    if (answer) entry.expectedDice = answer.uncertainty.expected_dice;
    say(predict ? "The answer is ready." : "The study is loaded.", "quiet");
    showList();
  } catch (error) {
    if (!(error instanceof api.Refusal)) throw error;
    if (state.entry !== entry) return;
    state.answered?.leave();
    state.answered = null;
    $("#facts").replaceChildren();
    welcome();
    $("#welcome h2").textContent = `${entry.title}: no answer`;
    say("");
    if (error.away) await askCard(); // is it the endpoint, or this request alone?
    if (state.entry === entry) notice(error, error.away && !state.away ? "The connection failed. " : null);
  } finally {
    state.busy = false;
    mark();
    if (document.activeElement === document.body) pressed.focus({ preventScroll: true }); // a disabled button loses it
  }
}

async function setState(entry, words) {
  entry.state = words;
  showList();
  await put("done", await keyOf(entry), words).catch(() => {});
}

// A correction that waited for the network has reached the endpoint.
async function sentLater(answer, correction) {
  say(`The correction of ${correction.title} was sent: ${answer.id}.`);
  const draft = await get("drafts", correction.id), newer = draft && JSON.stringify(draft.data) !== JSON.stringify(correction.mask.data);
  if (draft && !newer) drop("drafts", correction.id);
  if (!correction.key) return;
  const words = newer ? "corrected" : "sent", entry = state.studies.find((each) => each.key === correction.key);
  await put("done", correction.key, words).catch(() => {});
  if (entry) entry.state = words;
  if (entry && state.answered?.entry === entry) state.answered.opened = Date.now(); // so that the reader's own correction is not a colleague's
  if (state.entry) showList();
}

// ---- user actions ----

async function example() {
  const content = await fetch(`example-${exampleKind()}-1.zip`).then((response) => (response.ok ? response.blob() : null)).catch(() => null);
  if (!content) return say("The example could not be loaded: the page's server did not send it. Try again.", "bad");
  const file = new File([content], "synthetic_1.zip", { type: "application/zip" });
  await add([{ file, name: file.name, folder: "" }]);
  say("Generated at random: no real patient.");
  open(state.entry, { predict: true });
}

function connect() {
  for (const id of ["files", "folder"]) $(`#${id}`).onchange = (event) => { add(chosen(event.target.files)); event.target.value = ""; };
  $("#example").onclick = example;
  $("#analyze").onclick = () => open(state.entry, { predict: true });
  $("#look").onclick = () => open(state.entry, { predict: false });
  for (const kind of ["dragover", "dragleave", "drop"])
    document.addEventListener(kind, (event) => { event.preventDefault(); $("#drop").classList.toggle("over", kind === "dragover"); });
  document.addEventListener("drop", async (event) => add(await dropped(event.dataTransfer)));
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || viewer.empty || ["INPUT", "TEXTAREA"].includes(event.target.tagName) && event.target.type !== "range") return;
    const key = event.key.toLowerCase();
    if (key === "z" || key === "y") { event.preventDefault(); key === "y" || event.shiftKey ? viewer.redo() : viewer.undo(); }
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) askCard(); });
  window.addEventListener("beforeunload", () => state.answered?.keepNow());
  setInterval(() => { if (!document.hidden && !state.busy) askCard(); }, LOOK_AGAIN_MS);
  watchWaiting(sentLater);
}

const table = await (await fetch("names.json")).json();
Object.assign(Answered, { colors: table.colors, sequences: table.sequences });
state.names = new Names(table);
connect();
await askCard();

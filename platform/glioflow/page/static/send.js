// Sending a correction: asks for the sender's name, keeps it while the network is down, reports a colleague's.

import { Refusal, hasToken, sendCorrection, setToken } from "./api.js";
import { $, h, say } from "./dom.js";
import { drop, get, keys, put } from "./store.js";

const AGAIN_MS = 30000;
const START = "GLIOFLOW_SERVE_TOKEN=a-long-secret glioflow serve";

// correction: {id, files, mask, patient, version, opened (ms)}; done(answer) is called on success.
export function askAndSend(correction, { takes, done, download }) {
  const dialog = $("#dialog");
  if (!takes) return explainMissingToken(dialog, download);
  const reader = h("input", { type: "text", required: true, maxlength: "100", autocomplete: "name", value: readerBefore() });
  const patient = h("input", { type: "text", required: true, maxlength: "200", value: correction.patient });
  const token = h("input", { type: "password", autocomplete: "off", required: !hasToken(), placeholder: hasToken() ? "given before" : "" });
  const wrong = h("p", { class: "bad", role: "alert", hidden: true }), send = h("button", { type: "submit", class: "main" }, "Send");
  const form = h("form", { method: "dialog" },
    h("h2", { id: "dialog-title" }, "Send the correction"),
    h("p", {}, "The study and your mask go into quarantine at the endpoint. Somebody accepts or rejects them before a model learns from them. Your name, the time and the model's version are kept with the mask and are not logged; of the patient only a key is kept."),
    h("label", {}, "Your name", reader), h("label", {}, "Patient", patient), h("label", {}, "Token of the endpoint", token), wrong,
    h("div", { class: "row end" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), send));
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (token.value) setToken(token.value.trim());
    try { localStorage.setItem("reader", reader.value.trim()); } catch { /* a private window */ }
    Object.assign(correction, { reader: reader.value.trim(), patient: patient.value.trim() });
    send.disabled = true;
    wrong.hidden = true;
    try {
      const answer = await deliver(correction);
      dialog.close();
      done(answer);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.away) { dialog.close(); await keep(correction, error); return; }
      if (error.status === 409) { correction.again = true; send.textContent = "Send anyway"; }
      if (error.code === "takes-none") { explainMissingToken(dialog, download); return; }
      if (error.status === 401) { setToken(null); token.required = true; token.value = ""; token.placeholder = ""; token.focus(); }
      wrong.textContent = error.status === 401 ? "The token is missing or wrong. Type the endpoint's token." : error.sentence;
      wrong.hidden = false;
    } finally {
      send.disabled = false;
    }
  };
  dialog.replaceChildren(form);
  dialog.showModal();
}

function readerBefore() {
  try { return localStorage.getItem("reader") ?? ""; } catch { return ""; /* a browser that stores nothing */ }
}

function explainMissingToken(dialog, download) {
  dialog.replaceChildren(h("form", { method: "dialog" },
    h("h2", { id: "dialog-title" }, "This endpoint does not accept corrections"),
    h("p", {}, "It was started without a token, and accepts corrections only with one. Download your mask instead, or start the endpoint with a token of your choice:"),
    h("pre", { tabindex: "0" }, START),
    h("div", { class: "row end" }, h("button", { type: "submit" }, "Close"), h("button", { type: "button", class: "main", onclick: () => { dialog.close(); download(); } }, "Download the mask"))));
  if (!dialog.open) dialog.showModal();
}

function deliver({ files, mask, patient, reader, version, opened, again }) {
  const fields = { patient, reader, version, opened_s: ((Date.now() - opened) / 1000).toFixed(1), again: again ? "true" : null };
  return sendCorrection(files, mask, fields);
}

async function keep(correction, error) {
  try {
    correction.waitsAs ??= `${correction.id} ${Date.now()}`; // a correction that waited before waits in the same place
    await put("waiting", correction.waitsAs, correction);
    say(`${error.sentence} The correction is kept in this browser, and sent when the endpoint answers again.`, "bad");
  } catch {
    say(`${error.sentence} This browser could not keep the correction: download the mask.`, "bad");
  }
  tell();
}

let done = () => {};

async function tell() {
  const waiting = await keys("waiting"), place = $("#waiting");
  place.hidden = !waiting.length;
  if (waiting.length) place.replaceChildren(`${waiting.length === 1 ? "1 correction waits" : `${waiting.length} corrections wait`} to be sent. `, h("button", { type: "button", onclick: sendWaiting }, "Send now"));
}

let sending = false;

export async function sendWaiting() {
  if (sending) return;
  sending = true;
  try { await sendEach(); } finally { sending = false; }
  tell();
}

async function sendEach() {
  for (const key of await keys("waiting")) {
    const correction = await get("waiting", key);
    if (!correction) continue;
    try {
      const answer = await deliver(correction);
      await drop("waiting", key);
      done(answer, correction);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.status === 401 || error.status === 409) { // the user has to decide; the others may be sent meanwhile
        if (document.activeElement?.closest("#waiting") && !$("#dialog").open) askAndSend(correction, { done: async (answer) => { await drop("waiting", key); done(answer, correction); tell(); }, download: () => {} });
        if (error.status === 401) break;
        say(`A correction that this browser kept is not sent yet. ${error.sentence}`, "bad");
        continue;
      }
      if (![413, 422].includes(error.status)) break; // the same files may be accepted later
      say(`The endpoint refused a correction that this browser kept. ${error.sentence}`, "bad");
      await drop("waiting", key);
    }
  }
}

export function watchWaiting(heard) {
  done = heard;
  window.addEventListener("online", sendWaiting);
  setInterval(async () => { if ((await keys("waiting")).length) sendWaiting(); }, AGAIN_MS);
  tell();
}

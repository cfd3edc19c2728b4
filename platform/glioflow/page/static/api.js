// Requests to the endpoint. A refused request throws a Refusal with a sentence for the user.

const BASE = new URL("../v1/", document.baseURI);
const TRIES = 4;
let token = null;

// A header contains bytes: the token's in UTF-8, as the endpoint decodes them.
export const setToken = (text) => { token = text ? String.fromCharCode(...new TextEncoder().encode(text)) : null; };
export const hasToken = () => token !== null;

export class Refusal extends Error {
  constructor(status, error = {}) {
    super(error.rule || `the endpoint answered ${status}`);
    Object.assign(this, { status, value: error.value, hint: error.hint, code: error.code, choices: error.choices, file: error.file });
  }

  get away() { return this.status === 0 || this.status === 502 || this.status === 504 || this.code === "away"; }
  get busy() { return this.status === 503; }

  get sentence() {
    const parts = [this.file ? `${this.file}: ${this.message}` : this.message];
    if (this.value !== null && this.value !== undefined) parts.push(`got ${typeof this.value === "string" ? this.value : JSON.stringify(this.value)}`);
    if (this.hint) parts.push(this.hint);
    if (this.choices?.length) parts.push(`choose one of: ${this.choices.join(", ")}`);
    const text = parts.join("; ");
    return text[0].toUpperCase() + text.slice(1) + ".";
  }
}

const json = (response) => response.json();

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function once(route, options, read) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(new URL(route, BASE), { ...options, headers });
  } catch {
    throw new Refusal(0, { rule: "the endpoint does not answer: the connection failed" });
  }
  if (response.ok) {
    try {
      return await read(response);
    } catch {
      throw new Refusal(0, { rule: "the endpoint's answer did not arrive whole: the connection failed on the way" });
    }
  }
  let error = {};
  try { error = (await response.json()).error ?? {}; } catch { /* a proxy's own page */ }
  const refusal = new Refusal(response.status, error);
  refusal.wait = Number(response.headers.get("Retry-After")) || 1;
  throw refusal;
}

// Returns what `read` makes of the response. A prediction changes nothing, so it is sent again if the endpoint is busy.
async function ask(route, read, options = {}, { tries = TRIES } = {}) {
  for (let number = 1; ; number++) {
    try {
      return await once(route, options, read);
    } catch (error) {
      if (!(error instanceof Refusal) || !error.busy || number >= tries) throw error;
      await pause(1000 * Math.min(10, error.wait * number));
    }
  }
}

function form(files, fields = {}) {
  const body = new FormData();
  for (const { file, name } of files) body.append("files", file, name);
  for (const [key, value] of Object.entries(fields)) if (value !== null && value !== undefined && value !== "") body.append(key, value);
  return body;
}

const query = (values) => {
  const text = new URLSearchParams(Object.entries(values).filter(([, value]) => value)).toString();
  return text ? `?${text}` : "";
};

export async function readCard() {
  const card = await ask("model", json, {}, { tries: 1 });
  // The card says whether corrections are taken since endpoints have the routes that this page needs.
  if (card.feedback === undefined) throw new Refusal(501, { code: "older", rule: "this endpoint runs an earlier version of GlioFlow, without the routes that this page needs", hint: "update the endpoint, or open the page with the version that it runs" });
  return card;
}

export async function readStudy(files, { image = true } = {}) {
  return ask(`study${image ? "" : "?image=false"}`, (response) => response.arrayBuffer(), { method: "POST", body: form(files) });
}

export async function predict(files, { clinical = {}, version = null, probability = true } = {}) {
  const fields = Object.keys(clinical).length ? { clinical: JSON.stringify(clinical) } : {};
  const wanted = query({ mask: "rle", probability: probability ? "true" : "", version });
  return ask(`predict${wanted}`, json, { method: "POST", body: form(files, fields) });
}

export async function measure(drawn) {
  const options = { method: "POST", body: JSON.stringify(drawn), headers: { "Content-Type": "application/json" } };
  return (await ask("features", json, options, { tries: 2 })).features;
}

export async function maskFile(files, mask, format) {
  const read = async (response) => {
    const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1];
    return { blob: await response.blob(), name: name ?? `mask.${format}` };
  };
  return ask(`mask?format=${format}`, read, { method: "POST", body: form(files, { mask: JSON.stringify(mask) }) });
}

export async function sendCorrection(files, mask, fields) {
  return ask("feedback", json, { method: "POST", body: form(files, { ...fields, mask: JSON.stringify(mask) }) }, { tries: 2 });
}

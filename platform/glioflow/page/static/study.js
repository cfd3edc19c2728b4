// A study in the browser: its channels as the endpoint read them, and masks as arrays over (S, H, W).

const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, int16: Int16Array, float32: Float32Array };

// `/v1/study`: the length of a JSON header, the header, then each channel.
export function parseStudy(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const size = head.shape[0] * head.shape[1] * head.shape[2], type = ARRAYS[head.dtype];
  const channels = head.channels.map((_, k) => new type(buffer, 4 + length + k * size * type.BYTES_PER_ELEMENT, size));
  return { ...head, names: head.channels, size, channels };
}

export function decodeRuns(data, size) {
  const labels = new Uint8Array(size);
  for (const [label, runs] of Object.entries(data ?? {}))
    for (let k = 0; k < runs.length; k += 2) labels.fill(Number(label), runs[k], runs[k] + runs[k + 1]);
  return labels;
}

export function encodeRuns(labels) {
  const data = {};
  for (let k = 0; k < labels.length; ) {
    const label = labels[k];
    if (!label) { k++; continue; }
    const start = k;
    while (k < labels.length && labels[k] === label) k++;
    (data[label] ??= []).push(start, k - start);
  }
  return data;
}

export async function unpackBytes(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export function countLabels(labels) {
  const counts = new Float64Array(256);
  for (let k = 0; k < labels.length; k++) counts[labels[k]]++;
  return counts;
}

// Dice of the voxels whose labels are in a set; null if both masks are empty.
export function dice(one, other, values) {
  const inside = new Uint8Array(256);
  for (const value of values) inside[value] = 1;
  let both = 0, sum = 0;
  for (let k = 0; k < one.length; k++) {
    const a = inside[one[k]], b = inside[other[k]];
    both += a & b;
    sum += a + b;
  }
  return sum ? (2 * both) / sum : null;
}

// Percentiles of the nonzero values, from a sample of at most 200 000.
export function percentiles(channel, wanted) {
  const step = Math.max(1, Math.floor(channel.length / 200000));
  let lit = [];
  for (let k = 0; k < channel.length; k += step) if (channel[k] !== 0 && Number.isFinite(channel[k])) lit.push(channel[k]);
  if (!lit.length) return wanted.map((_, k) => k);
  lit = Float64Array.from(lit).sort();
  return wanted.map((each) => lit[Math.min(lit.length - 1, Math.floor((each / 100) * (lit.length - 1) + 0.5))]);
}

// Indices of labeled voxels; skips four voxels at a time if none is labeled.
export function labeled(labels) {
  const whole = labels.byteOffset % 4 === 0 ? labels.length >> 2 : 0, words = new Uint32Array(labels.buffer, labels.byteOffset, whole), found = [];
  for (let word = 0; word < whole; word++)
    if (words[word]) for (let k = 4 * word; k < 4 * word + 4; k++) if (labels[k]) found.push(k);
  for (let k = 4 * whole; k < labels.length; k++) if (labels[k]) found.push(k);
  return found;
}

// Number of labeled voxels in each slice of each plane.
export function areasOf(labels, [S, H, W]) {
  const areas = { axial: new Float64Array(S), coronal: new Float64Array(H), sagittal: new Float64Array(W) };
  for (const k of labeled(labels)) {
    areas.axial[Math.floor(k / (H * W))]++;
    areas.coronal[Math.floor(k / W) % H]++;
    areas.sagittal[k % W]++;
  }
  return areas;
}

// BraTS numbers the enhancing tumor 4 until 2021 and 3 since 2023; model and reference may differ.
export function matchReference(labels, known) {
  const counts = countLabels(labels), has = (value) => known.includes(value);
  const from = counts[3] && !counts[4] && has(4) && !has(3) ? 3 : counts[4] && !counts[3] && has(3) && !has(4) ? 4 : 0;
  if (known.length === 1) return labels.map((value) => (value ? known[0] : 0));
  return from ? labels.map((value) => (value === from ? 7 - from : value)) : labels;
}

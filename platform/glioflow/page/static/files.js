// The roles of files by their names alone, before anything is sent. The table of names comes from the endpoint.

const SLICE = /\.(tiff?|png)$/i, VOLUME = /\.(nii(\.gz)?|mha|nrrd)$/i, ZIP = /\.zip$/i, DICOM = /\.(dcm|dicom|ima)$/i;

export class Names {
  constructor(table) {
    this.mask = new RegExp(table.mask, "i");
    this.marked = new RegExp(table.marked, "i");
    this.brain = new RegExp(table.brain, "i");
    this.folders = { image: new RegExp(`^(?:${table.image_folders})$`, "i"), mask: new RegExp(`^(?:${table.mask_folders})$`, "i") };
    this.sequences = table.sequences;
  }

  // {kind: slice|volume|archive|dicom|other, role: image|mask|brain mask, channel: name or null}
  of(name) {
    const kind = SLICE.test(name) ? "slice" : VOLUME.test(name) ? "volume" : ZIP.test(name) ? "archive"
      : DICOM.test(name) || !/\.[a-z][a-z0-9]{0,4}$/i.test(name) ? "dicom" : "other";
    if (kind !== "slice" && kind !== "volume") return { kind, role: "image", channel: null };
    if (this.brain.test(name)) return { kind, role: "brain mask", channel: null };
    if (this.mask.test(name) || this.isMarked(name)) return { kind, role: "mask", channel: null };
    return { kind, role: "image", channel: kind === "volume" ? this.channel(name) : null };
  }

  // Whether a mask word stands before the name's end, as in p1_seg_manual, and neither a sequence nor a channel's number.
  isMarked(name) {
    const found = this.marked.exec(name), words = name.replace(VOLUME, "").replace(SLICE, "").toLowerCase().split(/[_. -]/);
    return found !== null && !/\d{4,}$/.test(found[1]) && !words.some((word) => Object.hasOwn(this.sequences, word));
  }

  channel(name) {
    const words = name.replace(VOLUME, "").toLowerCase().split(/[_.-]+/);
    for (const word of words.reverse()) if (Object.hasOwn(this.sequences, word)) return this.sequences[word];
    return null;
  }

  // The name without the parts in which files of one study differ: mask word, sequence, number; may be empty.
  owner(name) {
    const slice = SLICE.test(name), ownName = this.isMarked(name) ? name.replace(this.marked, "") : name;
    const bare = ownName.replace(this.brain, "").replace(this.mask, "").replace(VOLUME, "").replace(SLICE, "");
    const words = bare.split(/([_-])/), is = (word) => Object.hasOwn(this.sequences, word.toLowerCase()) || (!slice && /^\d{4}$/.test(word) && word === words.at(-1) && bare === name.replace(VOLUME, ""));
    if (slice) return words.length > 1 && /^\d{1,4}$/.test(words.at(-1)) ? words.slice(0, -2).join("") : bare;
    const at = words.findLastIndex(is);
    return at < 0 ? bare : words.slice(0, Math.max(0, at - 1)).join("");
  }

  // A function that says which folder of a path is one of images or of masks with the other kind beside it: {kind, k}, or null.
  #paired(files) {
    const beside = new Map();
    const kinds = (parts) => parts.flatMap((part, k) => Object.keys(this.folders).filter((kind) => this.folders[kind].test(part)).map((kind) => ({ kind, k, above: parts.slice(0, k).join("/") })));
    for (const { parts } of files) for (const { kind, above } of kinds(parts)) beside.set(above, (beside.get(above) ?? new Set()).add(kind));
    return (parts) => kinds(parts).findLast(({ above }) => beside.get(above).size === 2) ?? null;
  }

  // Groups files {file, name, folder} into studies: by folder, then by name; DICOM by the folder below the top.
  group(files) {
    const studies = [], folders = new Map(), split = (folder) => folder.split("/").filter(Boolean);
    const paired = this.#paired(files.map(({ folder }) => ({ parts: split(folder) })));
    for (const each of files) {
      const told = { ...each, ...this.of(each.name) }, pair = paired(split(each.folder)), parts = split(each.folder).filter((_, k) => k !== pair?.k);
      if (pair?.kind === "mask" && told.role === "image" && ["slice", "volume"].includes(told.kind)) Object.assign(told, { role: "mask", channel: null });
      if (each.name.startsWith(".") || told.kind === "other") continue;
      if (told.kind === "archive") { studies.push({ title: each.name.replace(ZIP, ""), files: [told] }); continue; }
      const place = told.kind === "dicom" ? `dicom ${parts.slice(0, 2).join("/")}` : parts.join("/"), owner = told.kind === "dicom" ? "" : this.owner(each.name);
      if (!folders.has(place)) folders.set(place, { name: told.kind === "dicom" ? parts[Math.min(1, parts.length - 1)] || "DICOM study" : parts.at(-1), owners: new Map() });
      const { owners } = folders.get(place);
      owners.set(owner, [...(owners.get(owner) ?? []), told]);
    }
    for (const { name, owners } of folders.values()) {
      const lists = [...owners], whole = lists.every(([, list]) => list.filter((each) => each.role === "image").length > 1);
      if (lists.length > 1 && whole) studies.push(...lists.map(([owner, list]) => ({ title: owner || name, files: list })));
      // If names do not indicate several studies, the files are one study; the endpoint's reading decides.
      else studies.push({ title: lists.find(([owner]) => owner)?.[0] && lists.length === 1 ? lists[0][0] : name || lists[0][0] || lists[0][1][0].name, files: lists.flatMap(([, list]) => list) });
    }
    return studies.sort((a, b) => a.title.localeCompare(b.title, "en", { numeric: true }));
  }
}

const SAMPLE = 4096, MOST_SAMPLED = 8;

// A key of a study's content, independent of file names: file sizes, and samples of some files.
export async function contentKey(files) {
  const sorted = [...files].sort((a, b) => a.file.size - b.file.size || a.name.localeCompare(b.name, "en", { numeric: true }));
  const step = Math.max(1, Math.floor(sorted.length / MOST_SAMPLED));
  let one = 0x811c9dc5, other = 0x9e3779b9; // two 32-bit hashes (FNV-1a), since browsers provide digests only on encrypted pages
  const take = (byte) => { one = Math.imul(one ^ byte, 0x01000193); other = Math.imul(other ^ byte, 0x85ebca6b) ^ (other >>> 13); };
  const samples = await Promise.all(sorted.map(async ({ file }, k) => {
    if (k % step) return new Uint8Array(0);
    const places = [0, Math.floor(file.size / 2), Math.max(0, file.size - SAMPLE)];
    const parts = await Promise.all(places.map((place) => file.slice(place, place + SAMPLE).arrayBuffer()));
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  }));
  sorted.forEach(({ file }, k) => {
    for (const letter of `${file.size} `) take(letter.charCodeAt(0));
    samples[k].forEach(take);
  });
  return [one, other].map((hash) => (hash >>> 0).toString(16).padStart(8, "0")).join("");
}

// nameOf: the name of a sequence as the model calls it.
export function summary(study, nameOf) {
  const count = new Map();
  for (const each of study.files) {
    const words = each.role !== "image" ? each.role : nameOf(each.channel) ?? { slice: "slice", volume: "volume of unknown sequence", archive: "archive", dicom: "DICOM file" }[each.kind];
    count.set(words, (count.get(words) ?? 0) + 1);
  }
  return [...count].map(([words, many]) => (many === 1 ? words : `${many} ${words.replace(/(slice|file|mask|archive)$|^volume/, "$&s")}`)).join(", ");
}

const fromInput = (file) => ({ file, name: file.name, folder: (file.webkitRelativePath ?? "").split("/").slice(0, -1).join("/") });

export const chosen = (list) => [...list].map(fromInput);

// Every dropped file, including those in dropped folders.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosen(transfer.files);
  const found = [];
  const walk = async (entry, folder) => {
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      found.push({ file, name: file.name, folder });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) break;
      for (const each of some) await walk(each, folder ? `${folder}/${entry.name}` : entry.name);
    }
  };
  for (const entry of entries) await walk(entry, "");
  return found;
}

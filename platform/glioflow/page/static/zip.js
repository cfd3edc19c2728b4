// A zip with uncompressed files.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n >>> 0;
});

export function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

// files: {name: Blob}
export async function zip(files) {
  const parts = [], directory = [];
  let offset = 0;
  for (const [name, blob] of Object.entries(files)) {
    const content = new Uint8Array(await blob.arrayBuffer()), title = new TextEncoder().encode(name);
    const sizes = [crc32(content), content.length, content.length, title.length];
    const local = header(30, [[0, 0x04034b50], [4, 20, 2], [6, 0x800, 2], [12, 0x21, 2], [14, sizes[0]], [18, sizes[1]], [22, sizes[2]], [26, sizes[3], 2]]);
    parts.push(local, title, content);
    directory.push(header(46, [[0, 0x02014b50], [4, 20, 2], [6, 20, 2], [8, 0x800, 2], [14, 0x21, 2], [16, sizes[0]], [20, sizes[1]], [24, sizes[2]], [28, sizes[3], 2], [42, offset]]), title);
    offset += 30 + title.length + content.length;
  }
  const length = directory.reduce((sum, each) => sum + each.length, 0), count = directory.length / 2;
  const end = header(22, [[0, 0x06054b50], [8, count, 2], [10, count, 2], [12, length], [16, offset]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

function header(size, fields) {
  const bytes = new Uint8Array(size), view = new DataView(bytes.buffer);
  for (const [at, value, width = 4] of fields) width === 2 ? view.setUint16(at, value, true) : view.setUint32(at, value, true);
  return bytes;
}

// Run in the page by test_page_browser.py: strokes, runs and planes of the viewer, without a picture.
Promise.all(['drawing', 'geometry', 'study'].map((name) => import(`./${name}.js`))).then(([{ Drawing }, g, study]) => {
  const at = (s, r, c) => (s * 20 + r) * 20 + c, d = new Drawing(new Uint8Array(2800), [7, 20, 20]), found = {};
  const disk = (s, radius) => {
    for (let r = 0; r < 20; r++) for (let c = 0; c < 20; c++) if ((r - 10) ** 2 + (c - 10) ** 2 <= radius ** 2) d.set(at(s, r, c), 1);
  };
  d.begin(); disk(1, 3); disk(5, 7); d.end();
  d.fillBetween(1);
  found.areas = [0, 1, 2, 3, 4, 5, 6].map((s) => d.labels.subarray(s * 400, (s + 1) * 400).reduce((sum, v) => sum + v, 0));
  d.locked.add(1); d.begin(); for (let k = 0; k < 2800; k++) d.set(k, 2); d.end();
  found.locked = d.counts[1];
  d.undo(); d.undo(); d.redo();
  found.again = d.counts[1];
  found.runs = study.decodeRuns(study.encodeRuns(d.labels), 2800).every((v, k) => v === d.labels[k]);
  found.wrong = 0;
  const shape = [3, 4, 5];
  for (const plane of g.PLANES) for (const mirrored of [false, true]) for (let index = 0; index < shape[g.AXIS[plane]]; index++) {
    const l = g.layout(shape, plane, index, mirrored);
    for (let r = 0; r < l.rows; r++) for (let c = 0; c < l.columns; c++) {
      const [s, y, x] = l.voxel(r, c), [back, across] = l.pixel(s, y, x);
      if (back !== r || across !== c || l.at(r, c) !== (s * 4 + y) * 5 + x) found.wrong++;
    }
  }
  return found;
})

// Run in a page by viewer.py: how long a viewer takes to show a slice.

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

function timed(act, times) {
  const took = [];
  for (let k = 0; k < times; k++) {
    const began = performance.now();
    act(k);
    took.push(performance.now() - began);
  }
  return median(took);
}

async function measureOurs() {
  const viewer = document.querySelector("#viewer").viewer, { drawing } = viewer.scene;
  const slice = (how) => {
    viewer.arrange(how);
    return timed((k) => { viewer.goTo(k % 155); viewer.drawNow(); }, 155);
  };
  const frames = async (how) => {
    viewer.arrange(how);
    const began = performance.now();
    for (let k = 0; k < 60; k++) {
      viewer.goTo(k + 40);
      await new Promise(requestAnimationFrame);
    }
    return 60000 / (performance.now() - began);
  };
  const stroke = (k) => {
    drawing.begin();
    for (let n = 0; n < 40; n++) drawing.ball([70 + k, 100 + n, 120], 8, [1, 1, 1], 1);
    drawing.end();
    viewer.drawNow();
  };
  return {
    one_ms: slice("one"), linked_ms: slice("four"), one_per_s: await frames("one"), linked_per_s: await frames("four"),
    stroke_ms: timed(stroke, 9), undo_ms: timed(() => { drawing.undo(); viewer.drawNow(); }, 5),
  };
}

async function measureNiivue() {
  const { Niivue } = await import("./niivue.js"), nv = new Niivue({ isResizeCanvas: false });
  await nv.attachToCanvas(document.querySelector("canvas"));
  await nv.loadVolumes([{ url: "flair.nii.gz" }, { url: "mask.nii.gz", colormap: "red", opacity: 0.4 }]);
  const { gl } = nv, pixel = new Uint8Array(4), info = gl.getExtension("WEBGL_debug_renderer_info");
  const slice = (kind) => {
    nv.setSliceType(kind);
    return timed((k) => {
      nv.scene.crosshairPos = [0.5, 0.5, (k + 40) / 155];
      nv.drawScene();
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel); // waits until it is drawn
    }, 9);
  };
  const renderer = gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  return { renderer, one_ms: slice(nv.sliceTypeAxial), linked_ms: slice(nv.sliceTypeMultiplanar) };
}

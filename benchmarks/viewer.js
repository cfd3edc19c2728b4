// Run in a page by viewer.py: shows so many slices after each other and returns the milliseconds that they took.

async function scroll(show, count) {
  const began = performance.now();
  for (let k = 0; k < count; k++) {
    show(k);
    await new Promise(requestAnimationFrame);
  }
  return performance.now() - began;
}

function viewerOfPage() { return document.querySelector("#viewer").viewer; }

async function scrollOurs(how, count) {
  viewerOfPage().arrange(how);
  return scroll((k) => viewerOfPage().goTo(k % 155), count);
}

// Forty balls, as one stroke of the brush; or one step back.
async function drawOurs(what, count) {
  const { drawing } = viewerOfPage().scene;
  return scroll((k) => {
    if (what === "undo") { viewerOfPage().undo(); return; }
    drawing.begin();
    for (let n = 0; n < 40; n++) drawing.ball([70 + k, 100 + n, 120], 8, [1, 1, 1], 1);
    drawing.end();
  }, count);
}

async function openNiivue() {
  const { Niivue } = await import("./niivue.js"), nv = new Niivue({ isResizeCanvas: false });
  await nv.attachToCanvas(document.querySelector("canvas"));
  await nv.loadVolumes([{ url: "flair.nii.gz" }, { url: "mask.nii.gz", colormap: "red", opacity: 0.4 }]);
  window.nv = nv;
  const info = nv.gl.getExtension("WEBGL_debug_renderer_info");
  return nv.gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : nv.gl.RENDERER);
}

async function scrollNiivue(how, count) {
  const { nv } = window;
  nv.setSliceType(how === "one" ? nv.sliceTypeAxial : nv.sliceTypeMultiplanar);
  return scroll((k) => { nv.scene.crosshairPos = [0.5, 0.5, ((k + 40) % 155) / 155]; nv.drawScene(); nv.gl.finish(); }, count);
}

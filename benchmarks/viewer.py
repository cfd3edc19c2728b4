"""How fast the page's viewer scrolls and draws at the size of BraTS, in headless Chromium, beside NiiVue.

Run: NIIVUE=node_modules/@niivue/niivue/dist/index.js python benchmarks/viewer.py

Prints a JSON object of each: for one plane, for three linked ones with 3D, for a stroke of 40 balls and for undoing it,
the milliseconds until the next picture, and the milliseconds of CPU that all processes of the browser took for it: the
latter say more on a machine that others use. Without the variable NIIVUE only the page is measured.
"""

import contextlib
import functools
import http.server
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil

HERE = Path(__file__).parent
SHAPE = (240, 240, 155)
SCRIPT = (HERE / "viewer.js").read_text(encoding="utf-8")
SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def write_study(folder: Path) -> list[Path]:
    """Write a study of four volumes."""
    from glioflow.data.formats.brats import CHANNELS

    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    head = (grid**2).sum(axis=0) < 0.8
    paths = []
    for channel in CHANNELS:
        volume = (head * (600 + rng.normal(0, 60, SHAPE))).clip(0).astype(np.int16)
        volume[((grid - 0.2) ** 2).sum(axis=0) < 0.04] = 1500
        paths.append(folder / f"p_{channel}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, -1.0, 1.0, 1.0])), paths[-1])
    return paths


def measure(page: Any, call: str, count: int) -> dict[str, float]:
    """Return milliseconds of the clock and of the CPU for one of `count` pictures, after a few that do not count."""
    page.run(f"{SCRIPT}\n{call.replace('COUNT', '3')}")
    before = cpu_seconds()
    milliseconds = page.run(f"{SCRIPT}\n{call.replace('COUNT', str(count))}")
    spent = cpu_seconds() - before
    return {"ms": round(milliseconds / count, 1), "cpu_ms": round(1000 * spent / count, 1)}


def cpu_seconds() -> float:
    """Return what all processes that this one has started, the browser's, have taken of the CPU."""
    return sum(sum(each.cpu_times()[:2]) for each in psutil.Process().children(recursive=True))


def measure_ours(folder: Path, files: list[Path]) -> Any:
    """Return what the page's own viewer takes."""
    import headless_chromium
    import page_endpoint

    from bundles import TINY, Bright, changed, describe
    from glioflow.config import Experiment
    from glioflow.data.formats.brats import CHANNELS

    tiny = changed(Experiment.model_validate(TINY), preprocess=[{"step": "zscore"}])
    said = describe(tiny, channels=CHANNELS, network_channels=CHANNELS)
    with page_endpoint.endpoint(said, Bright(channel=0, above=3)) as url, headless_chromium.browser(folder) as page:
        page.size(1366, 768)
        page.open(f"{url}/page/")
        page.until("document.querySelector('#model')?.className === 'good'")
        page.upload(files)
        page.click("Analyze")
        page.until("!!document.querySelector('.verdict')", seconds=300)
        found = {how: measure(page, f"scrollOurs('{how}', COUNT)", 100) for how in ("one", "four")}
        drawn = {what: measure(page, f"drawOurs('{what}', COUNT)", 10) for what in ("stroke", "undo")}
        return found | drawn


def measure_niivue(folder: Path, files: list[Path], build: Path) -> Any:
    """Return what NiiVue takes on WebGL in software, without a page around it."""
    import headless_chromium

    (folder / "niivue.js").write_bytes(build.read_bytes())
    (folder / "flair.nii.gz").write_bytes(files[0].read_bytes())
    image = nibabel.load(files[0])
    mask = (image.get_fdata() > 1400).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, image.affine), folder / "mask.nii.gz")
    (folder / "index.html").write_text("<canvas width='770' height='510'></canvas>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with headless_chromium.browser(folder, flags=SOFTWARE_WEBGL) as page:
            page.open(f"http://127.0.0.1:{server.server_port}/index.html")
            renderer = page.run(f"{SCRIPT}\nopenNiivue()")
            measured = {how: measure(page, f"scrollNiivue('{how}', COUNT)", 10) for how in ("one", "four")}
        server.shutdown()
    return {"renderer": renderer, **measured}


def main() -> None:
    tests = HERE.parent / "tests"
    sys.path[:1] = [str(tests), str(tests / "serving")]  # in place of this folder, which has a serving.py of its own
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, contextlib.chdir(name):
        os.environ["GLIOFLOW_HOME"] = f"{name}/home"
        files = write_study(Path(name))
        for each in ("ours", "niivue"):
            (Path(name) / each).mkdir()
        print(json.dumps({"ours": measure_ours(Path(name) / "ours", files)}), flush=True)
        if build := os.environ.get("NIIVUE"):
            print(json.dumps({"niivue": measure_niivue(Path(name) / "niivue", files, Path(build))}))


if __name__ == "__main__":
    main()

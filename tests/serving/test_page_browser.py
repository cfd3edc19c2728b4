"""The page before the real endpoint, in a real browser: upload, scroll, correct, send, download; desk and phone."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nibabel
import numpy as np
import optuna
import pytest
import requests
import tifffile
import torch
from fastapi import FastAPI
from headless_chromium import CHROMIUM, browser
from starlette.applications import Starlette
from starlette.routing import Mount

from bundles import Bright, changed, describe
from glioflow import bundle
from glioflow.config.search import SearchSettings
from glioflow.data.formats.file_roles import guess_role
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.evaluation import VolumeInterval
from glioflow.models import build_network
from glioflow.page.files import add_page
from glioflow.reports.page import render_page
from glioflow.runs.search.report import draw
from glioflow.serving.http.feedback import Feedback
from glioflow.serving.http.metrics import Metrics
from glioflow.serving.http.routes import make_api
from glioflow.serving.page_server import make_page
from glioflow.serving.ports import free_port
from glioflow.serving.settings import ServeSettings, digest_of
from glioflow.serving.versions.loaded import Served
from glioflow.tracking import Tracking
from serving.in_process import ENGINE, Here, version
from serving.in_process import served as loaded
from serving.page_endpoint import endpoint, listening

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: make system-packages"),
]
SCENE = "document.querySelector('#viewer').viewer.scene"
WHERE = "document.querySelector('.pane[data-plane=axial] .where').textContent"
# What the axial picture shows, as a number: the sum of how far its pixels are from gray, or of their brightness.
COLORED = (
    "(() => { document.querySelector('#viewer').viewer.drawNow(); const c = document.querySelector("
    "'.pane[data-plane=axial] canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
    "let n = 0; for (let k = 0; k < d.length; k += 4) n += Math.abs(d[k] - d[k + 2]); return n; })()"
)
PLACE = "JSON.stringify(document.querySelector('.stage').getBoundingClientRect())"
BRIGHT = COLORED.replace("Math.abs(d[k] - d[k + 2])", "d[k + 1]")
# How many numbers the drawn mask's runs take, and the drafts that the browser keeps.
RUNS = f"import('./study.js').then(study => study.encodeRuns({SCENE}.drawing.labels)[1].length)"
DRAFTS = (
    "import('./store.js').then(async (store) => Promise.all((await store.keys('drafts')).map(key => "
    "store.get('drafts', key))))"
)
LISTED = "[...document.querySelectorAll('#list .study')].map(each => each.innerText)"
TOKEN = "a token of the tests"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Write one invented case of 12 slices; return its images."""
    path = tmp_path_factory.mktemp("study") / "cohort"
    synthesize_lgg(path, patients=1, seed=3, size=96, slices=(12, 12))
    images = [file for file in path.glob("*/*.tif") if "_mask" not in file.name]
    return sorted(images, key=lambda file: int(file.stem.rpartition("_")[2]))


def bright(experiment, above):
    """Return weights with which Buda's U-Net passes FLAIR through its first skip and finds what is bright."""
    network = build_network(experiment.model, in_channels=3, num_outputs=1)
    body = network.body
    with torch.no_grad():
        for layer in (each for each in network.modules() if "Conv" in type(each).__name__):
            for parameter in layer.parameters():
                parameter.zero_()
        last = body.up[-1]
        for layer, channel in ((body.down[0][0], 1), (body.down[0][3], 0), (last[0], 32), (last[3], 0)):
            layer.weight[0, channel, 1, 1] = 1
        body.head.weight[0, 0] = 100
        body.head.bias[0] = -100 * above
    return network.state_dict()


@contextmanager
def running(ready, *words):
    """Run a verb of glioflow for the length of a block, once `ready` is an address that answers."""
    command = [sys.executable, "-m", "glioflow", *words]
    log = Path(os.environ["GLIOFLOW_HOME"]) / f"{words[0]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file)
    try:
        end = time.monotonic() + 240
        while not answers(ready):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end, "it did not come up"
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            status = process.wait(60)
        finally:
            process.kill()
    if words[0] == "serve":
        assert status == 130, f"an endpoint that is stopped ends in order: {log.read_text()[-2000:]}"


@pytest.fixture(scope="module")
def served(tiny, tmp_path_factory):
    """Start `glioflow serve` with a champion, and `glioflow page` before it; give both addresses and the home."""
    home = tmp_path_factory.mktemp("home")
    bundle.save(home / "bundle", describe(tiny), bright(tiny, above=0.45))
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("GLIOFLOW_HOME", str(home))
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("GLIOFLOW_SERVE_TOKEN", TOKEN)
        tracking = Tracking()
        made = tracking.register("tiny", tracking.start("x", "x", tags={}), home / "bundle", tags={})
        tracking.set_alias("tiny", "champion", made.version)
        ports = [str(free_port()) for _ in range(2)]
        endpoint, page = (f"http://127.0.0.1:{port}" for port in ports)
        stack.enter_context(running(f"{endpoint}/readyz", "serve", "--port", ports[0]))
        words = ("page", "--port", ports[1], "--endpoint", endpoint)
        stack.enter_context(running(f"{page}/healthz", *words))
        yield endpoint, page, home


@pytest.fixture
def page(served, tmp_path):
    with browser(tmp_path) as opened:
        opened.size(1366, 768)
        opened.open(served[1])
        opened.until("document.querySelector('#model')?.className === 'good'")
        yield opened
        assert not opened.errors


def answers(url):
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


def analyze(page, files):
    page.upload(files)
    page.click("Analyze")
    page.until("!!document.querySelector('.verdict')", seconds=60)


def key(page, name, **more):
    """Press a key where the focus is."""
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=name, **more)


def stroke(page, *points, control=False, pressed=True, held=False):
    """Drag the pointer over the axial picture, through points given as parts of its width and height.

    A stroke that is held goes on with the next one, which is not pressed.
    """
    left, top, width, height = page.run(
        "(() => { const r = document.querySelector('.pane[data-plane=axial] canvas').getBoundingClientRect(); "
        "return [r.x, r.y, r.width, r.height]; })()"
    )
    kinds = ["mousePressed" if pressed else "mouseMoved", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
    for kind, (x, y) in list(zip(kinds, [*points, points[-1]], strict=True))[: -1 if held else None]:
        mouse = {"x": left + x * width, "y": top + y * height, "modifiers": 2 if control else 0}
        page.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **mouse)


def fill(page, label, text):
    found = f"[...document.querySelectorAll('dialog label')].find(l => l.innerText.includes({label!r}))"
    page.run(f"{found}.querySelector('input').value = {text!r}")


def saved(folder, ending):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if found := [path for path in (folder / "downloads").iterdir() if path.name.endswith(ending)]:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no {ending} was saved: {list((folder / 'downloads').iterdir())}")


def test_upload_scroll_hide_correct_send_and_download(page, served, case, tmp_path):
    page.upload(case)
    page.until("document.querySelector('#names').textContent.includes('slice')")
    page.click("Analyze")
    page.until("!!document.querySelector('.verdict')", seconds=60)
    assert "Found" in page.run("document.querySelector('.verdict').innerText")
    assert "of 12" in page.run(WHERE)
    for part in (".stage", ".scroll input", ".verdict"):
        assert page.run(f"document.querySelector('{part}').getBoundingClientRect().bottom") <= 768, "above the fold"

    page.run("document.querySelector('.pane[data-plane=axial] canvas').focus()")
    for name, where in (("Home", 1), ("ArrowUp", 2), ("End", 12), ("ArrowDown", 11), ("PageDown", 1)):
        key(page, name)
        page.until(f"{WHERE}.includes('Axial {where} of 12')")
    page.run(
        f"document.querySelector('#viewer').viewer.center({SCENE}.drawing.labels.findIndex(Boolean) / (96 * 96) | 0)"
    )
    colored, bright = page.run(COLORED), page.run(BRIGHT)
    assert colored > 0
    page.click("pre")
    assert page.run(BRIGHT) != bright
    page.click("tumor")
    assert page.run(COLORED) < colored / 4
    page.click("tumor")

    before, place = page.run(f"{SCENE}.drawing.counts[1]"), page.run(PLACE)
    page.click("Brush")
    assert page.run(PLACE) == place, "the picture stays where it is"
    stroke(page, (0.4, 0.4), (0.5, 0.45), (0.6, 0.5))
    drawn = page.run(f"{SCENE}.drawing.counts[1]")
    assert drawn > before
    stroke(page, (0.4, 0.4), (0.5, 0.45), control=True)
    assert page.run(f"{SCENE}.drawing.counts[1]") < drawn
    page.click("Undo")
    page.click("Undo")
    assert page.run(f"{SCENE}.drawing.counts[1]") == before
    page.click("Redo")
    assert page.run(f"{SCENE}.drawing.counts[1]") == drawn
    page.until(f"document.querySelector('#panel').innerText.replaceAll('\u202f', '').includes('{drawn:.0f}')")

    page.click("Send correction")
    fill(page, "Your name", "Dr. Test")
    fill(page, "Token", "wrong")
    page.run("document.querySelector('dialog button[type=submit]').click()")
    page.until("document.body.innerText.includes('missing or wrong')")
    fill(page, "Token", TOKEN)
    page.run("document.querySelector('dialog button[type=submit]').click()")
    page.until("!!document.querySelector('.sent')")
    assert "voxel by voxel" in page.run("document.querySelector('.sent').innerText")
    entries = [json.loads(path.read_text()) for path in served[2].glob("feedback/quarantine/*/entry.json")]
    assert ("Dr. Test", 1, drawn) in [(each["reader"], each["version"], each["labeled_px"]) for each in entries]

    page.click("Save")
    page.click("Everything")
    with zipfile.ZipFile(saved(tmp_path, "_glioflow.zip")) as archive:
        assert archive.testzip() is None
        assert {name.rpartition("_")[2] for name in archive.namelist()} == {
            "masks.zip",
            "overlay.png",
            "features.csv",
            "answer.json",
        }
        with zipfile.ZipFile(archive.open(next(n for n in archive.namelist() if n.endswith("masks.zip")))) as masks:
            planes = [tifffile.imread(masks.open(name)) for name in masks.namelist()]
    assert sum(int((plane > 0).sum()) for plane in planes) == drawn


def test_a_mask_is_reviewed_without_asking_the_model(page, case):
    masks = [file for file in case[0].parent.iterdir() if file.name.endswith("_mask.tif")]
    page.upload([*case, *masks])
    page.click("Look only")
    page.until("document.body.innerText.includes('Read without a model')", seconds=60)
    assert page.run(f"{SCENE}.drawing.counts[1]") == 0
    page.click("Use the reference")
    page.until("document.querySelector('.correction').innerText.includes('1.000')")
    page.until("document.querySelector('.study .state').innerText.includes('corrected')")
    page.click("Model")
    page.click("Save")
    page.click("Undo")
    assert page.run(f"{SCENE}.drawing.counts[1]") == 0


def test_slices_between_are_filled_locked_labels_stay_and_planes_lead_back_to_their_voxels(page):
    found = page.run(Path(__file__).with_name("viewer_parts.js").read_text(encoding="utf-8"))
    first, *between, last = found["areas"][1:-1]
    assert found["areas"][0] == found["areas"][-1] == 0
    assert first < between[0] < between[1] < between[2] < last
    assert found["locked"] == found["again"] == sum(found["areas"])
    assert found["runs"]
    assert found["wrong"] == 0


def test_a_bad_file_is_a_message_and_the_page_goes_on(page, tmp_path):
    (tmp_path / "broken_<b>_1.tif").write_bytes(b"no image")
    page.upload([tmp_path / "broken_<b>_1.tif"])
    page.click("Analyze")
    page.until("document.body.innerText.includes('refused this study')")
    assert "Traceback" not in page.run("document.body.innerText")
    assert page.run("document.querySelectorAll('#notice b').length") == 1, "a name is no markup"
    page.click("Try an example")
    page.until("document.body.innerText.includes('Study synthetic_1')", seconds=60)


def test_an_unsent_correction_survives_a_closed_page(page, case):
    analyze(page, case)
    page.click("Brush")
    stroke(page, (0.2, 0.2), (0.3, 0.3))
    drawn = page.run(f"{SCENE}.drawing.counts[1]")
    page.run("document.querySelector('#studies .study').click()")
    page.open(page.run("location.href"))
    page.until("document.querySelector('#model')?.className === 'good'")
    analyze(page, case)
    page.click("Continue with it")
    assert page.run(f"{SCENE}.drawing.counts[1]") == drawn


def test_a_correction_that_the_network_drops_is_kept_and_sent_later(page, case):
    analyze(page, case)
    page.click("Brush")
    stroke(page, (0.7, 0.2), (0.75, 0.3))
    page.click("Send correction")
    fill(page, "Your name", "Dr. Test")
    fill(page, "Patient", "offline")
    fill(page, "Token", TOKEN)
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    waiting = page.run(RUNS)
    page.call("Network.emulateNetworkConditions", offline=True, **conditions)
    page.run("document.querySelector('dialog button[type=submit]').click()")
    page.until("document.querySelector('#waiting').innerText.includes('1 correction waits')")
    page.run("document.querySelector('dialog').close()")
    stroke(page, (0.3, 0.7), (0.35, 0.75))
    page.until(f"{DRAFTS}.then(drafts => drafts.some(draft => draft.data[1].length > {waiting}))")
    page.until("document.querySelector('#panel').innerText.includes('Of the mask before its last strokes')")
    page.until("document.querySelector('#message').innerText.includes('could not be measured')")
    page.click("Close")
    assert page.run("document.querySelector('#message').hidden"), "it covered the tools"
    page.call("Network.emulateNetworkConditions", offline=False, **conditions)
    page.until("document.querySelector('#message').innerText.includes('was sent')", seconds=60)
    page.until("document.querySelector('#waiting').hidden")
    assert "corrected" in page.run(LISTED)[0], "what was drawn since is not sent"
    page.click("Send correction")
    fill(page, "Patient", "offline")
    page.run("document.querySelector('dialog button[type=submit]').click()")
    page.until("!!document.querySelector('.sent')")
    assert "sent" in page.run(LISTED)[0], "one's own earlier correction is no colleague's"


def test_nothing_violates_wcag_aa(page, case):
    axe = pytest.importorskip("axe_core_python.base", reason="the dev dependency axe-core-python").AXE_FILE_PATH
    page.call("Page.setBypassCSP", enabled=True)
    page.open(page.run("location.href"))
    page.until("document.querySelector('#model')?.className === 'good'")

    def violations():
        page.run(f"{Path(axe).read_text(encoding='utf-8')}; 0")
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
        found = f"axe.run(document, {{runOnly: {tags}}}).then(r => r.violations.map(v => [v.id, v.nodes[0].html]))"
        return page.run(found)

    assert violations() == []
    analyze(page, case)
    for tab in ("Features", "Survival", "Model", "Save"):
        page.click(tab)
        assert violations() == [], tab
    page.click("Threshold brush")
    assert violations() == []
    page.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert violations() == []
    page.click("Send correction")
    assert violations() == []


def test_on_a_phone_nothing_sticks_out_and_the_picture_fills_the_width(page):
    page.size(390, 844, phone=True)
    page.click("Try an example")
    page.until("!!document.querySelector('.verdict')", seconds=60)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert "not for clinical use" in page.run("document.body.innerText")
    assert page.run("document.querySelector('.stage').getBoundingClientRect().width") > 330
    shown = "[...document.querySelectorAll('button')].filter(b => b.offsetParent).map(b => b.offsetHeight)"
    assert page.run(f"Math.min(...{shown})") >= 24


def test_neither_page_nor_documentation_loads_anything_from_elsewhere(page, served):
    page.click("Try an example")
    page.until("!!document.querySelector('.verdict')", seconds=60)
    page.open(f"{served[0]}/docs")
    page.until("document.querySelectorAll('.opblock').length > 5")
    assert {url.split("/")[2] for url in page.asked if url.startswith("http")} == {url[7:] for url in served[:2]}


def test_the_endpoint_itself_serves_the_page_and_asks_for_its_token(served, tmp_path):
    with browser(tmp_path) as page:
        page.open(f"{served[0]}/page/")
        page.until("document.body.innerText.includes('refuses this page')")
        page.run("document.querySelector('#notice input').value = 'wrong'")
        page.click("Use this token")
        page.until("document.querySelector('#notice').innerText.includes(\"This token is not the endpoint's\")")
        page.run(f"document.querySelector('#notice input').value = {TOKEN!r}")
        page.click("Use this token")
        page.until("document.querySelector('#model').className === 'good'")
        assert not page.errors


def test_the_page_works_below_a_prefix(served, case, tmp_path):
    app = Starlette(routes=[Mount("/glioflow", app=make_page(served[0]))])
    with listening(app) as url, browser(tmp_path) as page:
        page.open(f"{url}/glioflow/")
        page.until("document.querySelector('#model')?.className === 'good'")
        analyze(page, case)
        assert not page.errors


@pytest.fixture
def here(tiny, tmp_path):
    """Return a function that opens the page of an endpoint in this process, which asks for a token or has none."""
    with ExitStack() as stack:

        def opened(token=None):
            url = stack.enter_context(endpoint(describe(tiny), Bright(above=0.45), token=token))
            page = stack.enter_context(browser(tmp_path))
            page.size(1366, 768)
            page.open(f"{url}/page/")
            page.until("document.querySelector('#model').className !== ''")
            return page

        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a folder of three studies with masks; return its images."""
    path = tmp_path_factory.mktemp("worklist") / "cohort"
    synthesize_lgg(path, patients=3, seed=5, size=64, slices=(8, 8))
    return sorted(file for file in path.glob("*/*.tif") if "_mask" not in file.name)


def test_a_folder_is_a_list_that_remembers_what_was_done_by_what_the_studies_hold(here, folder, tmp_path):
    page = here()
    page.upload(folder)
    page.until("document.querySelector('#list-count').textContent === '3 studies, 0 done'")
    second = page.run("document.querySelectorAll('#list .study b')[1].textContent")
    page.run("document.querySelectorAll('#list .study')[1].click()")
    page.click("Analyze")
    page.until("!!document.querySelector('.verdict')", seconds=60)
    page.click("Brush")
    stroke(page, (0.4, 0.4), (0.5, 0.45))
    page.click("Save")
    page.click("Mask: TIFF")
    page.until("document.querySelector('#list-count').textContent === '3 studies, 1 done'", seconds=60)
    assert "expected Dice" in page.run(LISTED)[1]

    own = [file for file in folder if file.parent.name == second]
    for number, file in enumerate(own):  # the same study under another name, another one under its name
        (tmp_path / f"renamed_{number}.tif").write_bytes(file.read_bytes())
    others = [file for file in folder if file.parent.name != second][:8]
    for number, file in enumerate(others):
        (tmp_path / f"{second}_{number}.tif").write_bytes(file.read_bytes())
    page.open(page.run("location.href"))
    page.until("document.querySelector('#model')?.className === 'good'")
    page.upload(sorted(tmp_path.glob("*.tif")))
    page.until("document.querySelector('#list-count').textContent === '2 studies, 1 done'")
    assert [("saved" in text, second in text) for text in sorted(page.run(LISTED), reverse=True)] == [
        (True, False),
        (False, True),
    ]
    assert not page.errors


def test_without_a_token_a_correction_is_downloaded_and_the_page_says_how_to_start_with_one(here, case, tmp_path):
    page = here()
    analyze(page, case)
    page.click("Send correction")
    page.until("document.querySelector('dialog').open")
    text = page.run("document.querySelector('dialog').innerText")
    assert "does not accept corrections" in text
    assert "GLIOFLOW_SERVE_TOKEN" in text
    page.click("Download the mask")
    assert zipfile.is_zipfile(saved(tmp_path, ".zip"))
    assert not page.run("document.querySelector('dialog').open")
    assert not page.errors


def test_before_an_older_endpoint_nobody_is_asked_for_a_token_in_vain(tmp_path):
    older = FastAPI()
    add_page(older)
    older.add_api_route("/v1/model", lambda: {"model": {"name": "old", "version": 1}, "input": {"channels": ["flair"]}})
    with listening(older) as url, browser(tmp_path) as page:
        page.open(f"{url}/page/")
        page.until("document.querySelector('#model').textContent === 'The endpoint is of an earlier version'")
        assert "without the routes that this page needs; update the endpoint" in page.run("document.body.innerText")
        assert page.run("document.querySelector('#analyze').disabled")
        assert not page.errors


def test_each_region_has_its_interval_and_files_have_the_models_names(tiny, tmp_path):
    residuals = tuple(k / 100 for k in range(20))
    interval = VolumeInterval(residuals=residuals, folds=(0,) * 20, level=0.9, unit="mm3")
    experiment = changed(tiny, preprocess=[{"step": "zscore"}])
    description = describe(
        experiment, channels=("flair", "t1ce"), network_channels=("flair", "t1ce"), volume_interval=interval
    )
    files = []
    for name in ("flair", "t1ce"):
        volume = np.zeros((24, 24, 9), np.int16)
        volume[4:20, 4:20], volume[9:13, 9:13, 3:6] = 300, 900
        files.append(tmp_path / f"doe_{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-10.0, -10, 10, 1])), files[-1])
    with endpoint(description, Bright(channel=0, above=2)) as url, browser(tmp_path) as page:
        page.open(f"{url}/page/")
        page.until("document.querySelector('#model').className === 'good'")
        page.upload(files)
        page.until("document.querySelector('#list')?.innerText.includes('flair, t1ce')")
        page.click("Analyze")
        page.until("!!document.querySelector('.verdict')", seconds=60)
        shown = page.run("document.querySelector('.correction').innerText")
        assert re.search(r"tumor\s+48\.0 cm³\s+90 %: \d+\.\d.\d+\.\d cm³", shown), shown
        assert not page.errors


def test_a_token_of_any_letters_opens_the_endpoint(here):
    page = here("öffne dich, Σεσάμ")
    page.until("document.body.innerText.includes('refuses this page')")
    page.run("document.querySelector('#notice input').value = 'öffne dich, Σεσάμ'")
    page.click("Use this token")
    page.until("document.querySelector('#model').className === 'good'")


def test_what_is_drawn_while_the_model_is_asked_again_is_offered_with_its_answer(here, case):
    page = here()
    analyze(page, case)
    page.click("Brush")
    page.run(
        "(() => { const real = window.fetch, held = new Promise((go) => { window.go = go; }); "
        "window.fetch = async (...all) => { await held; return real(...all); }; })()"
    )
    page.click("Analyze")
    stroke(page, (0.3, 0.3), (0.4, 0.35))
    stroke(page, (0.6, 0.3), (0.65, 0.35), held=True)
    drawn = page.run(f"{SCENE}.drawing.counts[1]")
    page.run("window.go()")
    page.until("document.querySelector('#facts').innerText.includes('Continue with it')")
    stroke(page, (0.65, 0.35), (0.7, 0.4), pressed=False)
    page.click("Continue with it")
    assert page.run(f"{SCENE}.drawing.counts[1]") == drawn
    assert not page.errors


def test_each_sequence_has_its_own_window_and_the_threshold_brush_its_range(here, case):
    page = here()
    analyze(page, case)
    window = "document.querySelector('select[aria-label^=Window]').value"
    chosen = (
        "(() => { const s = document.querySelector('select[aria-label^=Window]'); s.value = 'soft'; s.onchange(); })()"
    )
    page.run(chosen)
    page.click("pre")
    assert page.run(window) == "wide", "nobody dragged it"
    page.click("Threshold brush")
    page.click("flair")
    assert page.run(window) == "soft"
    low, high = page.run(f"{SCENE}.range")
    stroke(page, (0.35, 0.1), (0.5, 0.5), (0.6, 0.9))
    inside = (
        f"(() => {{ const s = {SCENE}, k = s.drawing.done.at(-1)?.places ?? []; "
        f"return [k.length, k.filter(at => s.study.channels[s.channel][at] < {low} || "
        f"s.study.channels[s.channel][at] > {high}).length]; }})()"
    )
    drawn, outside = page.run(inside)
    assert drawn > 0
    assert outside == 0
    assert not page.errors


def test_strokes_beyond_those_that_can_be_undone_are_kept_like_the_first(here, case):
    page = here(TOKEN)
    page.until("document.body.innerText.includes('refuses this page')")
    page.run(f"document.querySelector('#notice input').value = {TOKEN!r}")
    page.click("Use this token")
    page.until("document.querySelector('#model').className === 'good'")
    analyze(page, case)
    marks = "for (let k = 0; k < 120; k++) { d.begin(); d.set(k, 1); d.end(); }"
    page.run(f"(() => {{ const d = {SCENE}.drawing; {marks} }})()")
    page.click("Send correction")
    fill(page, "Your name", "Dr. Test")
    page.run("document.querySelector('dialog button[type=submit]').click()")
    page.until("!!document.querySelector('.sent')")
    page.click("Brush")
    stroke(page, (0.2, 0.2), (0.3, 0.3))
    page.until(f"{DRAFTS}.then(drafts => drafts.length === 1)")
    page.run(f"(() => {{ while ({SCENE}.drawing.undo()); }})()")
    assert page.run(f"{SCENE}.drawing.changed"), "the first strokes cannot be undone and are still there"
    assert not page.errors


def test_the_page_says_which_model_answered_once_another_is_served_and_offers_what_is_loaded(tiny, case, tmp_path):
    served_now = {number: loaded(tiny, number, Bright(above=0.4 + number / 100)) for number in (1, 2)}
    model = Here(served_now[1])
    served_now[2].predictor.batcher = served_now[1].predictor.batcher
    model.versions.challenger = served_now[2]
    settings = ServeSettings(token_sha256=digest_of(TOKEN))
    api = make_api(model, settings, Metrics("page"), feedback=Feedback(per_day=5))
    with listening(api) as url, browser(tmp_path) as page:
        page.open(f"{url}/page/")
        page.until("document.body.innerText.includes('refuses this page')")
        page.run(f"document.querySelector('#notice input').value = {TOKEN!r}")
        page.click("Use this token")
        analyze(page, case)
        page.click("Compare version 2")
        page.until("document.querySelector('.correction').innerText.includes('Dice to version 1')")
        page.click("Send correction")
        fill(page, "Your name", "Dr. Test")
        page.run("document.querySelector('dialog button[type=submit]').click()")
        page.until("!!document.querySelector('.sent')")
        assert "Dice to version 1" not in page.run("document.querySelector('.correction').innerText"), (
            "the dashed outline is the stored mask's"
        )

        model.versions.challenger = None
        model.versions.champion = Served(version(1, "other"), served_now[2].predictor, ENGINE)
        page.run("document.dispatchEvent(new Event('visibilitychange'))")
        page.until("document.querySelector('#model').innerText === 'other, version 1'")
        assert "glioma, version 1 gave this answer. other, version 1 is served now." in page.run(
            "document.querySelector('#facts').innerText"
        )
        assert "Compare version" not in page.run("document.querySelector('.correction').innerText")
        assert not page.errors


def test_an_answer_that_is_cut_on_its_way_is_a_message(tiny, case, tmp_path):
    whole = make_api(Here(loaded(tiny)), ServeSettings(), Metrics("page"))

    async def cut(scope, receive, send):
        if scope["path"] != "/v1/study":
            return await whole(scope, receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": b"the first bytes", "more_body": True})
        raise ConnectionError("the network drops")

    with listening(cut) as url, browser(tmp_path) as page:
        page.open(f"{url}/page/")
        page.until("document.querySelector('#model').className === 'good'")
        page.upload(case)
        page.click("Analyze")
        # Chromium may hear of the end before it has read the first bytes; then no answer began to arrive.
        page.until("document.querySelector('#notice').innerText.includes('the connection failed')")
        page.until("document.querySelector('#analyze').innerText === 'Analyze'")
        page.run("document.dispatchEvent(new Event('visibilitychange')); fetch('../v1/model').then(() => 0)")
        shown = page.run("document.querySelector('#notice').innerText")
        assert "the connection failed" in shown, "that the endpoint answers other questions does not wipe it away"
        assert "glioflow serve" not in shown
        assert not page.errors


def test_a_control_that_was_pressed_with_a_key_keeps_the_focus(here, folder):
    page = here()
    page.upload(folder)
    page.until("document.querySelectorAll('#list .study').length === 3")
    page.run("document.querySelectorAll('#list .study')[1].focus()")
    key(page, "Enter", text="\r")
    page.until("document.querySelectorAll('#list .study')[1].getAttribute('aria-current') === 'true'")
    assert page.run("document.activeElement === document.querySelectorAll('#list .study')[1]")
    page.run("document.querySelector('#analyze').focus()")
    key(page, "Enter", text="\r")
    page.until("document.querySelector('#message').textContent === 'The answer is ready.'", seconds=60)
    page.until("document.activeElement === document.querySelector('#analyze')")
    assert not page.errors


def test_the_next_study_shows_nothing_of_the_one_before(here, folder):
    page = here()
    page.size(1366, 500)
    analyze(page, folder)
    stroke(page, (0.5, 0.5), (0.55, 0.5))
    page.until("document.querySelector('.readout').textContent.includes('slice')")
    page.run("document.querySelector('#facts').scrollTop = 300")
    page.run("document.querySelectorAll('#list .study')[1].click()")
    page.click("Analyze")
    page.until("!!document.querySelector('.verdict')", seconds=60)
    assert page.run("document.querySelector('.readout').textContent") == ""
    assert page.run("document.querySelector('#facts').scrollTop") == 0
    assert not page.errors


def test_the_numbers_of_a_large_study_are_whole_and_beside_each_other(tiny, tmp_path):
    experiment = changed(tiny, preprocess=[{"step": "zscore"}])
    description = describe(experiment, channels=("flair", "t1ce"), network_channels=("flair", "t1ce"))
    grid = np.diag([-1.0, -1, 1, 1])
    volume = np.zeros((120, 120, 100), np.int16)
    volume[5:115, 5:115, :95], volume[8:111, 8:111, 3:93] = 300, 900
    for name in ("flair", "t1ce"):
        nibabel.save(nibabel.Nifti1Image(volume, grid), tmp_path / f"doe_{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image((volume > 500).astype(np.uint8), grid), tmp_path / "doe_seg.nii.gz")
    with endpoint(description, Bright(channel=0, above=0)) as url, browser(tmp_path) as page:
        page.size(1366, 768)
        page.open(f"{url}/page/")
        page.until("document.querySelector('#model').className === 'good'")
        analyze(page, sorted(tmp_path.glob("doe_*")))
        shown = page.run("document.querySelector('#facts').innerText").replace("\u202f", "")
        assert str(int((volume > 0).sum())) in shown or str(int((volume > 500).sum())) in shown
        assert "Reference" in shown
        assert page.run("document.querySelector('#facts').scrollWidth <= document.querySelector('#facts').clientWidth")
        assert not page.errors


def test_two_versions_are_two_pictures_that_scroll_and_zoom_together(here, case):
    page = here()
    analyze(page, case)
    assert page.run("document.querySelector('[data-value=pair]').hidden"), "there is no other version yet"
    other = "new Uint8Array(v.scene.study.size).fill(1, 0, 5 * 96 * 96)"
    page.run(
        "(() => { const v = document.querySelector('#viewer').viewer; v.scene.otherName = 'Version 7'; "
        f"v.setLayer('other', {other}); v.arrange('pair'); v.goTo(2); v.zoom(v.panes.axial, 2); v.drawNow(); }})()"
    )
    texts = page.run("[...document.querySelectorAll('.pane:not([hidden]) .where')].map(each => each.textContent)")
    assert texts == ["Now: Axial 3 of 12, number 3", "Version 7: Axial 3 of 12, number 3"] or texts == [
        "Now: Axial 3 of 12",
        "Version 7: Axial 3 of 12",
    ]
    left, right = page.run(
        "[...document.querySelectorAll('.pane:not([hidden]) canvas')].map(c => { const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; let n = 0; "
        "for (let k = 0; k < d.length; k += 4) n += Math.abs(d[k] - d[k + 2]); return n; })"
    )
    assert right > 2 * left, "the other version calls all of this slice tumor"
    before = page.run(f"{SCENE}.drawing.counts[1]")
    page.click("Brush")
    page.run("document.querySelector('.pane.pair canvas').focus()")
    key(page, "Enter")
    assert page.run(f"{SCENE}.drawing.counts[1]") >= before
    page.click("One")
    assert page.run("document.querySelector('.pane.pair').hidden")
    assert not page.errors


@pytest.mark.parametrize(("status", "left"), [(202, []), (422, []), (429, ["a", "b"]), (500, ["a", "b"]), (409, ["a"])])
def test_a_kept_correction_goes_only_once_it_is_taken_or_can_never_be(tmp_path, status, left):
    """The endpoint answers the first with the status; only where it asks a person about that one, it hears of both."""
    asked = (
        "Promise.all([import('./store.js'), import('./send.js')]).then(async ([store, send]) => { const answers = "
        f"[{status}, {202 if status == 409 else status}]; "
        "window.fetch = async () => new Response('{}', {status: answers.shift()}); "
        "for (const key of ['a', 'b']) await store.put('waiting', key, {files: [], mask: {}, opened: 0}); "
        "await send.sendWaiting(); return store.keys('waiting'); })"
    )
    with listening(make_page("http://127.0.0.1:9")) as url, browser(tmp_path) as page:
        page.open(url)
        page.until("document.querySelector('#model')?.className !== ''")
        assert page.run(asked) == left


def test_files_of_dicom_are_known_by_any_of_their_endings(tmp_path):
    names = ["1.dcm", "1.DICOM", "1.ima", "1.2.840.113", "IM0001", "report.pdf"]
    kinds = (
        "Promise.all([import('./files.js'), fetch('names.json').then((answer) => answer.json())])"
        f".then(([files, table]) => {names}.map((name) => new files.Names(table).of(name).kind))"
    )
    with listening(make_page("http://127.0.0.1:9")) as url, browser(tmp_path) as page:
        page.open(url)
        assert page.run(kinds) == ["dicom"] * 5 + ["other"]


def test_files_have_the_roles_in_the_browser_that_the_endpoint_gives_them(tmp_path):
    names = ["p1_seg_manual.nii.gz", "p_seg_0001.nii.gz", "seg_t1.nii.gz", "a_mask.tif", "a.seg.nrrd", "brain_mask.nii"]
    folders = {
        "set/images": ["a_1.tif", "a_2.tif", "b_1.tif", "b_2.tif"],
        "set/masks": ["a_1.tif", "a_2.tif"],
        "raw/imagesTr": ["p1_0000.nii.gz", "p1_0001.nii.gz"],
        "raw/labelsTr": ["p1.nii.gz"],
    }
    files = [{"folder": folder, "name": name} for folder, inside in folders.items() for name in inside]
    told = (
        "Promise.all([import('./files.js'), fetch('names.json').then((answer) => answer.json())])"
        f".then(([files, table]) => {{ const names = new files.Names(table); return [{names}.map((name) => "
        f"names.of(name).role.replace(' ', '_')), names.group({json.dumps(files)}).map(({{ title, files }}) => "
        "[title, files.filter((each) => each.role === 'mask').map((each) => each.name)])]; })"
    )
    with listening(make_page("http://127.0.0.1:9")) as url, browser(tmp_path) as page:
        page.open(url)
        roles, studies = page.run(told)
    assert roles == [guess_role(Path(name)) for name in names]
    assert roles[0] == "mask", "a word after the mask's describes it"
    assert studies == [["a", ["a_1.tif", "a_2.tif"]], ["b", []], ["p1", ["p1.nii.gz"]]]


def test_a_kept_correction_that_meets_no_network_again_is_kept_once(tmp_path):
    kept = (
        "Promise.all([import('./store.js'), import('./send.js')]).then(async ([store, send]) => { "
        "const correction = {id: 'x', files: [], mask: {}, opened: 0, patient: 'p'}; "
        "for (const time of ['first', 'second']) { "
        "send.askAndSend(time === 'first' ? correction : await store.get('waiting', (await store.keys('waiting'))[0]), "
        "{takes: true, done: () => {}, download: () => {}}); "
        "await document.querySelector('dialog form').onsubmit(new Event('submit')); } "
        "return (await store.keys('waiting')).length; })"
    )
    with listening(make_page("http://127.0.0.1:9")) as url, browser(tmp_path) as page:
        page.open(url)
        page.until("document.querySelector('#model')?.className !== ''")
        assert page.run(kept) == 1


def test_reports_are_whole_in_themselves(tmp_path):
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    (tmp_path / "search.html").write_text(draw(study, SearchSettings()))
    (tmp_path / "report.html").write_text(render_page("A report", "of nothing", {}, []))
    with browser(tmp_path) as page:
        for name, shown in (("search.html", ".plotly"), ("report.html", "h1")):
            page.open((tmp_path / name).as_uri())
            page.until(f"!!document.querySelector('{shown}')")
        assert not page.errors
    assert {url.partition(":")[0] for url in page.asked} <= {"file", "data", "blob"}

"""The page before the real endpoint, in a real browser: upload, scroll, cut, hide, download; at a desk, on a phone."""

import os
import subprocess
import sys
import time
import zipfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import optuna
import pytest
import requests
import torch
from headless_chromium import CHROMIUM, browser

from bundles import describe
from glioflow import bundle
from glioflow.config.search import SearchSettings
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.models import build_network
from glioflow.reports.page import render_page
from glioflow.runs.search.report import draw
from glioflow.serving.ports import free_port
from glioflow.tracking import Tracking

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: make system-packages"),
]
VIEWER = "[...document.querySelectorAll('*')].find(e => e.shadowRoot?.querySelector('.viewer'))?.shadowRoot"
WHERE = f"{VIEWER}?.querySelector('.where')?.textContent"
# What the picture shows, as a number: the sum of how far its pixels are from gray, or of their brightness.
COLORED = (
    f"(() => {{ const c = {VIEWER}.querySelector('.picture'); const d = c.getContext('2d').getImageData(0, 0, c.width, "
    "c.height).data; let n = 0; for (let k = 0; k < d.length; k += 4) n += Math.abs(d[k] - d[k + 2]); return n; })()"
)
BRIGHT = COLORED.replace("Math.abs(d[k] - d[k + 2])", "d[k + 1]")


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
    """Start `glioflow serve` with a champion, and `glioflow page` before it; give both addresses."""
    home = tmp_path_factory.mktemp("home")
    bundle.save(home / "bundle", describe(tiny), bright(tiny, above=0.45))
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("GLIOFLOW_HOME", str(home))
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "GLIOFLOW_SERVE_TOKEN"):
            patch.delenv(name, raising=False)
        tracking = Tracking()
        made = tracking.register("tiny", tracking.start("x", "x", tags={}), home / "bundle", tags={})
        tracking.set_alias("tiny", "champion", made.version)
        ports = [str(free_port()) for _ in range(2)]
        endpoint, page = (f"http://127.0.0.1:{port}" for port in ports)
        stack.enter_context(running(f"{endpoint}/readyz", "serve", "--port", ports[0]))
        words = ("page", "--port", ports[1], "--endpoint", endpoint)
        stack.enter_context(running(f"{page}/_stcore/health", *words))
        yield endpoint, page


@pytest.fixture
def page(served, tmp_path):
    with browser(tmp_path) as opened:
        opened.size(1360, 900)
        opened.open(served[1])
        opened.until("document.body.innerText.includes('No study yet')")
        yield opened
        assert not opened.errors


def answers(url):
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


def press(page, group, number):
    page.run(f"{VIEWER}.querySelectorAll('.{group} button')[{number}].click()")


def slide(page, name, value):
    page.run(f"(() => {{ const s = {VIEWER}.querySelector('.{name}'); s.value = {value}; s.oninput(); }})()")


def saved(folder, ending):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if found := [path for path in (folder / "downloads").iterdir() if path.name.endswith(ending)]:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no {ending} was saved: {list((folder / 'downloads').iterdir())}")


def test_upload_scroll_cut_hide_and_download(page, case, tmp_path):
    page.upload(case)
    page.click("Analyze")
    page.until("document.body.innerText.includes('Found')")
    first = page.until(WHERE)
    assert "of 12" in first
    assert page.run(COLORED) > 0

    page.run(
        f"{VIEWER}.querySelector('.stage').dispatchEvent(new WheelEvent('wheel', {{deltaY: -1, cancelable: true}}))"
    )
    assert page.run(WHERE) != first
    slide(page, "slice", 0)
    assert page.run(WHERE) == "Slice 1 of 12"
    bottom = page.run(BRIGHT)
    slide(page, "slice", 6)
    assert page.run(BRIGHT) != bottom

    press(page, "planes", 1)
    assert "of 96" in page.run(WHERE)
    assert "not to scale" in page.run(f"{VIEWER}.querySelector('.remark').textContent")
    colored = page.run(COLORED)
    slide(page, "strength", 90)
    assert page.run(COLORED) > colored
    press(page, "classes", 0)
    assert page.run(COLORED) == 0
    slice_of_flair = page.run(BRIGHT)
    press(page, "channels", 0)
    assert page.run(BRIGHT) != slice_of_flair

    page.run(f"{VIEWER}.querySelector('.save').click()")
    assert saved(tmp_path, ".png").read_bytes().startswith(b"\x89PNG")
    page.click("Download")
    page.click("Everything")
    with zipfile.ZipFile(saved(tmp_path, "_glioflow.zip")) as archive:
        assert {name.rpartition("_")[2] for name in archive.namelist()} == {
            "masks.zip",
            "overlay.png",
            "features.csv",
            "answer.json",
        }


def test_a_bad_file_is_a_message_and_the_page_goes_on(page, case, tmp_path):
    (tmp_path / "broken_1.tif").write_bytes(b"no image")
    page.upload([tmp_path / "broken_1.tif"])
    page.click("Analyze")
    page.until("document.body.innerText.includes('refused this study')")
    assert "Traceback" not in page.run("document.body.innerText")
    page.click("An example")
    page.click("Analyze")
    page.until("document.body.innerText.includes('synthetic_1')")


def test_on_a_phone_nothing_sticks_out_and_the_picture_fills_the_width(page):
    page.size(390, 844, phone=True)
    page.click("Try an example")
    page.until(WHERE)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert "not for clinical use" in page.run("document.body.innerText")
    assert page.run(f"{VIEWER}.querySelector('.picture').getBoundingClientRect().width") > 330
    assert page.run(f"Math.min(...[...{VIEWER}.querySelectorAll('button')].map(b => b.offsetHeight))") >= 24


def test_neither_page_nor_documentation_loads_anything_from_elsewhere(page, served):
    page.click("Try an example")
    page.until(WHERE)
    page.open(f"{served[0]}/docs")
    page.until("document.querySelectorAll('.opblock').length > 5")
    assert {url.split("/")[2] for url in page.asked if url.startswith("http")} == {url[7:] for url in served}


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

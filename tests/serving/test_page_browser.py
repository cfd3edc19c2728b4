"""The page in a real browser: upload, scroll, cut from the side, hide, download; at a desk and on a phone."""

import os
import subprocess
import sys
import time
import zipfile

import pytest
import requests
from headless_chromium import CHROMIUM, browser
from page_endpoint import endpoint

from bundles import Bright, describe
from glioflow.data.synthetic import synthesize_lgg
from glioflow.serving.server import free_port

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


@pytest.fixture(scope="module")
def page_url(tiny, tmp_path_factory):
    """Start endpoint and page, the page as `glioflow page` does."""
    with endpoint(describe(tiny), Bright(above=0.45)) as url:
        port = free_port()
        command = [sys.executable, "-m", "glioflow", "page", "--port", str(port), "--endpoint", url]
        home = {"GLIOFLOW_HOME": str(tmp_path_factory.mktemp("home"))}
        running = subprocess.Popen(command, env={**os.environ, **home}, stderr=subprocess.DEVNULL)
        try:
            address = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 60
            while not answers(address):
                assert time.monotonic() < end
                time.sleep(0.2)
            yield address
        finally:
            running.terminate()
            running.wait(20)


@pytest.fixture
def page(page_url, tmp_path):
    with browser(tmp_path) as opened:
        opened.size(1360, 900)
        opened.open(page_url)
        opened.until("document.body.innerText.includes('No study yet')")
        yield opened
        assert not opened.errors


def answers(url):
    try:
        return requests.get(f"{url}/_stcore/health", timeout=1).ok
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


def test_it_speaks_to_nobody_but_itself(page):
    page.click("Try an example")
    page.until(WHERE)
    hosts = page.run("[...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).hostname))]")
    assert [host for host in hosts if host] == ["127.0.0.1"]

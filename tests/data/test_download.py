import hashlib
import re
import sys
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from glioflow.data.download import SETS, download, key_of
from glioflow.errors import UserError


def test_the_cases_folder_of_what_was_fetched_becomes_the_cohort(tmp_path):
    def fetch(handle):
        assert handle == "mateuszbuda/lgg-mri-segmentation"
        inner = tmp_path / "cache" / "kaggle_3m"
        inner.mkdir(parents=True)
        (inner / "data.csv").write_text("Patient\n")
        return str(tmp_path / "cache")

    out = download("lgg", tmp_path / "new" / "out", fetch=fetch)
    assert [path.name for path in out.iterdir()] == ["data.csv"]


def test_a_set_is_not_downloaded_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="out must name a folder, not a file"):
        download("lgg", tmp_path / "file" / "out", fetch=pytest.fail)


def test_unreachable_kaggle_says_what_to_do_instead(tmp_path):
    def fetch(handle):
        raise ConnectionError("no route to host")

    with pytest.raises(UserError, match="in a browser, download the data set mateuszbuda") as caught:
        download("lgg", tmp_path / "out", fetch=fetch)
    assert "no route to host" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_unknown_set_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match=r"did you mean|choose one of"):
        download("brats", tmp_path / "out")


def test_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="new or empty"):
        download("lgg", tmp_path, fetch=lambda handle: tmp_path)


@pytest.fixture
def served(tmp_path):
    """A tar archive with one folder, behind a server of our own: its address and its MD5."""
    folder = tmp_path / "src" / "Task01_BrainTumour"
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")
    with tarfile.open(tmp_path / "set.tar", "w") as packed:
        packed.add(folder, "Task01_BrainTumour")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield (
            f"http://127.0.0.1:{server.server_port}/set.tar",
            hashlib.md5((tmp_path / "set.tar").read_bytes()).hexdigest(),
        )
        server.shutdown()


def given(monkeypatch, url, md5):
    changed = replace(SETS["decathlon"], address=url, md5=md5)
    monkeypatch.setattr("glioflow.data.download.SETS", {"decathlon": changed})


def test_an_archive_is_compared_with_its_checksum_and_unpacked(served, monkeypatch, tmp_path):
    given(monkeypatch, *served)
    out = download("decathlon", tmp_path / "out")
    assert [path.name for path in out.iterdir()] == ["dataset.json"]
    given(monkeypatch, served[0], "0" * 32)
    with pytest.raises(UserError, match="checksum"):
        download("decathlon", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set.tar", "src"]


@pytest.mark.parametrize("name", [name for name, each in SETS.items() if each.by == "page"])
def test_a_set_that_a_person_downloads_says_where(tmp_path, name):
    with pytest.raises(UserError, match="read its terms at https://"):
        download(name, tmp_path / "out")


NAMED = re.findall(r"^\| ((?:`[a-z0-9-]+`(?:, )?)+) \|", Path("docs/data-sets.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", [name for names in NAMED for name in re.findall("`(.+?)`", names)])
def test_every_set_in_the_documentation_can_be_had_or_says_where(tmp_path, name):
    if name == "brats":
        with pytest.raises(UserError, match=r"did you mean brats.*Choose one of: brats-2013"):
            download(name, tmp_path / "out")
    elif SETS[key_of(name)].by == "page":
        with pytest.raises(UserError, match="read its terms at https://"):
            download(name, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("brats2013", "brats-2013"),
        ("BraTS-2020", "brats2020"),
        ("BraTS2018", "brats-2018"),
        ("brats-2023-ssa", "brats-2023"),
        ("UPENN_GBM", "upenn-gbm"),
        ("GLIS-RT", "glis-rt"),
    ],
)
def test_a_set_may_be_spelled_otherwise(name, key):
    assert key_of(name) == key


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rembrant", r"did you mean rembrandt\?"),
        ("burdenko", r"choose burdenko-gbm-progression$"),
        ("ucsf", r"hoose one of: ucsf-alptdg, ucsf-pdgm$"),
        ("erasmus", "choose one of: brats-2013, .*egd"),
    ],
)
def test_an_unknown_set_gets_the_nearest_ones(tmp_path, name, said):
    with pytest.raises(UserError, match=said):
        download(name, tmp_path / "out")


def test_dicom_of_tcia_says_which_package_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "idc_index", None)
    with pytest.raises(UserError, match="idc-index"):
        download("tcga-lgg", tmp_path / "out")


def test_every_set_has_a_license_and_what_to_cite():
    assert all(each.license and each.cite for each in SETS.values())

"""What a prepared cohort is made of: all that is read decides its name, and all is verified before the manifest."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_volume_cohorts import save

from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared import cohort as prepared_cohort
from glioflow.data.prepared.preparation import find_or_prepare, prepare
from glioflow.errors import UserError
from glioflow.survival import read_clinical

SHAPE = (4, 16, 16)


@pytest.fixture
def own(lgg, tmp_path):
    """Return a cohort of links to the tiny one's cases, with a table of its own."""
    root = tmp_path / "kaggle_3m"
    root.mkdir()
    for folder in (folder for folder in lgg.iterdir() if folder.is_dir()):
        (root / folder.name).symlink_to(folder)
    (root / "data.csv").write_text((lgg / "data.csv").read_text())
    return root


def arrays(cohort):
    return {path: path.stat().st_mtime_ns for path in sorted(cohort.path.rglob("image.npy"))}


def test_a_changed_cell_is_in_the_copy_and_prepares_no_image_anew(own, tiny, home):
    first = find_or_prepare(own, tiny.preprocess, home=home)
    before = arrays(first)
    text = (own / "data.csv").read_text()
    (own / "data.csv").write_text(text + "\n")
    second = find_or_prepare(own, tiny.preprocess, home=home)
    assert second.clinical.read_text() == text + "\n"
    assert arrays(second) == before
    assert second.manifest.source_fingerprint == first.manifest.source_fingerprint
    (own / "data.csv").unlink()
    assert find_or_prepare(own, tiny.preprocess, home=home).clinical is None


@pytest.mark.parametrize(
    "content",
    [
        b"x,y\n1,2\n",
        b"Patient|death01\nTCGA_CS_4941|1\n",
        "Patient,Größe\nä,1\n".encode("latin-1"),
        b"Patient;death01\nTCGA_CS_4941;1\nTCGA-CS-4941;0\n",  # one person under two spellings
        b"Patient,death01\n,1\n",
        b"",
    ],
)
def test_a_table_that_cannot_be_used_is_a_warning_for_segmentation_and_an_error_for_survival(own, tiny, home, content):
    (own / "data.csv").write_bytes(content)
    cohort = find_or_prepare(own, tiny.preprocess, home=home)
    assert len(cohort.records) == 8
    report = check(own)
    assert report.ok
    assert any(problem.file == "data.csv" for problem in report.problems)
    with pytest.raises(UserError):
        read_clinical(cohort.clinical)


def write_nnunet(root: Path, names: dict[str, str]) -> Path:
    rng = np.random.default_rng(0)
    for case in ("a", "b"):
        for channel in (0, 1):
            volume = rng.integers(1, 99, SHAPE[::-1]).astype(np.int16)
            save(root / "imagesTr" / f"{case}_{channel:04}.nii.gz", volume)
        save(root / "labelsTr" / f"{case}.nii.gz", np.ones(SHAPE[::-1], np.uint8))
    (root / "dataset.json").write_text(json.dumps({"channel_names": names, "labels": {"background": 0, "tumor": 1}}))
    return root


def test_other_names_in_dataset_json_make_another_cohort_of_the_same_images(tmp_path, tiny, home):
    source = write_nnunet(tmp_path / "set", {"0": "FLAIR", "1": "T1"})
    first = find_or_prepare(source, tiny.preprocess, home=home)
    write_nnunet(source, {"0": "T1", "1": "FLAIR"})
    second = find_or_prepare(source, tiny.preprocess, home=home)
    assert (first.channels, second.channels) == (("flair", "t1"), ("t1", "flair"))
    assert first.manifest.fingerprint != second.manifest.fingerprint
    assert first.manifest.source_fingerprint == second.manifest.source_fingerprint
    (source / "cohort.yaml").write_text("labels: {1: core}\n")
    assert find_or_prepare(source, tiny.preprocess, home=home).manifest.labels == {1: "core"}


def test_a_source_that_changes_meanwhile_leaves_no_manifest(tmp_path, tiny):
    source = write_nnunet(tmp_path / "set", {"0": "FLAIR", "1": "T1"})

    def change_and_map(function, items):
        for item in list(items):
            yield function(item)
            save(source / "labelsTr" / "a.nii.gz", np.zeros(SHAPE[::-1], np.uint8))

    with pytest.raises(UserError, match="must not change while it is prepared"):
        prepare(open_cohort(source), tmp_path / "out", tiny.preprocess, map_cases=change_and_map)
    assert not (tmp_path / "out").exists()


def test_what_was_written_is_verified_before_the_manifest(tmp_path, tiny, lgg, monkeypatch):
    def cut_short(function, items):
        for item in list(items):
            record = function(item)
            (item.out / record.folder / "image.npy").write_bytes(b"short")
            yield record

    with pytest.raises(UserError, match="missing or incomplete"):
        prepare(open_cohort(lgg), tmp_path / "out", tiny.preprocess, map_cases=cut_short)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert prepared_cohort.is_prepared(tmp_path / "out") is False

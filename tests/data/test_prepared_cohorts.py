import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared import case_preparation, digests
from glioflow.data.prepared.cohort import PreparedCohort, is_prepared
from glioflow.data.prepared.manifest import digest_file
from glioflow.data.prepared.preparation import find_or_prepare, prepare
from glioflow.data.preprocessing.geometry_steps import PadSquare, ResizePlane
from glioflow.data.preprocessing.intensity_steps import UnitScale, ZScore
from glioflow.data.preprocessing.pipeline import LabelMap, preprocess
from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg
from glioflow.errors import UserError

STEPS = (UnitScale(), ResizePlane(size=24))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared") / "lgg"
    synthesize_lgg(path, patients=4, seed=0, size=40, slices=(5, 8))
    return path


@pytest.fixture
def source(sound, tmp_path):
    """A sound cohort of our own to damage."""
    return shutil.copytree(sound, tmp_path / "lgg")


def stop_after(number):
    """A map that is killed before the item of that number."""

    def run(function, items):
        for done, item in enumerate(items):
            if done == number:
                raise KeyboardInterrupt
            yield function(item)

    return run


@pytest.fixture
def worked_on(monkeypatch):
    """Ids of the cases that are preprocessed."""
    ids = []
    monkeypatch.setattr(
        case_preparation, "preprocess", lambda case, steps: ids.append(case.id) or preprocess(case, steps)
    )
    return ids


def one_slice(source):
    return next(path for path in sorted(source.rglob("*_3.tif")))


def everything_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prepared_arrays_are_what_preprocessing_gives_and_masks_come_back(source, tmp_path):
    made = prepare(open_cohort(source), tmp_path / "out", STEPS)
    case = open_cohort(source).read(made.records[0].id)
    found = made.case(case.id)
    assert found.image.shape == (case.shape[0], 24, 24, 3)
    assert found.image.dtype == np.float16
    assert isinstance(found.image.base, np.memmap)
    assert np.array_equal(found.reference(), case.mask)
    assert found.restore(found.mask).shape == case.shape
    assert found.record.areas_px == tuple((found.mask > 0).sum(axis=(1, 2)))
    assert found.record.volume_px == (case.mask > 0).sum()
    assert made.num_slices == sum(record.shape[0] for record in made.records)
    assert made.clinical.read_bytes() == (source / "data.csv").read_bytes()


def test_preparing_goes_on_after_an_interruption(source, tmp_path, worked_on):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare(open_cohort(source), out, STEPS, map_cases=stop_after(2))
    assert not is_prepared(out)
    assert len(list(out.rglob("image.npy"))) == 2
    lines = []
    prepare(open_cohort(source), out, STEPS, progress=lambda done, total: lines.append((done, total)))
    assert lines == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert sorted(worked_on) == [case.id for case in open_cohort(source).cases]
    assert everything_in(out) == everything_in(prepare(open_cohort(source), tmp_path / "whole", STEPS).path)


def test_the_second_time_nothing_is_done(source, tmp_path, worked_on):
    prepare(open_cohort(source), tmp_path / "out", STEPS)
    worked_on.clear()
    prepare(open_cohort(source), tmp_path / "out", STEPS)
    assert worked_on == []


def test_a_cohort_is_found_again_under_the_home_and_a_changed_one_is_another(source, tmp_path):
    first = find_or_prepare(source, STEPS, home=tmp_path / "home")
    assert find_or_prepare(source, STEPS, home=tmp_path / "home").path == first.path
    path = one_slice(source)
    pixels = tifffile.imread(path)
    pixels[0, 0, 0] ^= 1
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, software="")
    assert find_or_prepare(source, STEPS, home=tmp_path / "home").path != first.path


def test_fingerprint_follows_bytes_and_settings_and_not_the_path(source, tmp_path):
    moved = shutil.copytree(source, tmp_path / "elsewhere")
    base = prepare(open_cohort(source), tmp_path / "a", STEPS).manifest
    assert prepare(open_cohort(moved), tmp_path / "b", STEPS).manifest.fingerprint == base.fingerprint
    other = prepare(open_cohort(source), tmp_path / "c", (UnitScale(), ResizePlane(size=25))).manifest
    assert other.fingerprint != base.fingerprint
    assert other.source_fingerprint == base.source_fingerprint
    path = one_slice(moved)
    path.write_bytes(path.read_bytes() + b"\0")
    changed = prepare(open_cohort(moved), tmp_path / "d", STEPS).manifest
    assert changed.fingerprint != base.fingerprint
    assert changed.source_fingerprint != base.source_fingerprint


def test_other_settings_are_refused_and_named(source, tmp_path):
    made = prepare(open_cohort(source), tmp_path / "out", STEPS)
    with pytest.raises(UserError, match="other sources or settings"):
        prepare(open_cohort(source), made.path, (UnitScale(), ResizePlane(size=32)))
    with pytest.raises(UserError, match=r'"size":32.*"size":24'):
        find_or_prepare(made.path, (UnitScale(), ResizePlane(size=32)), home=tmp_path)
    assert find_or_prepare(made.path, STEPS, home=tmp_path).path == made.path


def test_a_bad_case_leaves_nothing_half_written(source, tmp_path):
    bad = sorted(path for path in source.iterdir() if path.is_dir())[2]
    path = bad / f"{bad.name}_3.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    out = tmp_path / "out"
    with pytest.raises(UserError, match=path.name):
        prepare(open_cohort(source), out, STEPS)
    assert not out.exists()
    path.write_bytes(whole)
    assert len(prepare(open_cohort(source), out, STEPS).records) == 4


def test_a_bad_case_takes_nothing_away_that_an_interrupted_call_had_made(source, tmp_path):
    out = tmp_path / "out"

    def interrupted(function, jobs):
        yield function(next(iter(jobs)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(open_cohort(source), out, STEPS, map_cases=interrupted)
    bad = sorted(path for path in source.iterdir() if path.is_dir())[2]
    (bad / f"{bad.name}_3.tif").write_bytes(b"II*\0")
    with pytest.raises(UserError):
        prepare(open_cohort(source), out, STEPS)
    assert len(list((out / "cases").iterdir())) == 2


def test_images_that_overflow_half_precision_are_refused(tmp_path):
    synthesize_brats(tmp_path / "brats", patients=1, seed=0, size=32, slices=8)
    huge = (LabelMap(map={4: 3}), ZScore())
    prepare(open_cohort(tmp_path / "brats"), tmp_path / "out", huge)
    import nibabel

    path = next((tmp_path / "brats").rglob("*_t1.nii.gz"))
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(image.get_fdata() * 1000, image.affine), path)
    with pytest.raises(UserError, match="half precision"):
        prepare(open_cohort(tmp_path / "brats"), tmp_path / "again", (PadSquare(),))


def test_the_reference_speaks_the_labels_that_the_network_learns(tmp_path):
    synthesize_brats(tmp_path / "brats", patients=1, seed=0, size=32, slices=16)
    cohort = open_cohort(tmp_path / "brats")
    made = prepare(cohort, tmp_path / "out", (LabelMap(map={4: 3}), PadSquare(), ResizePlane(size=48)))
    case = made.cases([made.records[0].id])[0]
    before = cohort.read(case.record.id).mask
    assert 4 in before
    assert 4 not in case.reference()
    assert np.array_equal(case.reference() == 3, before == 4)


def test_empty_folders_and_missing_ones_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        find_or_prepare(tmp_path / "empty", STEPS, home=tmp_path / "home")
    with pytest.raises(UserError, match="nowhere"):
        find_or_prepare(tmp_path / "nowhere", STEPS, home=tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_source_is_not_prepared_into_itself(source):
    with pytest.raises(UserError, match="the raw cohort itself"):
        prepare(open_cohort(source), source, STEPS)


def test_a_damaged_prepared_cohort_is_refused_on_open(source, tmp_path):
    made = prepare(open_cohort(source), tmp_path / "out", STEPS)
    image = made.path / made.records[1].folder / "image.npy"
    whole = image.read_bytes()
    image.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"image\.npy: .*missing or incomplete"):
        PreparedCohort(made.path)
    image.write_bytes(whole)
    assert PreparedCohort(made.path).records == made.records
    (made.path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"valid manifest\.json"):
        PreparedCohort(made.path)


@pytest.mark.parametrize("name", ["image.npy", "mask.npy", "reference.npz"])
def test_a_file_that_was_changed_is_refused_and_one_that_was_copied_is_not(source, tmp_path, name):
    made = prepare(open_cohort(source), tmp_path / "out", STEPS)
    file, manifest = made.path / made.records[1].folder / name, made.path / "manifest.json"
    later = manifest.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(later, later))
    assert PreparedCohort(made.path).records == made.records
    assert file.stat().st_mtime_ns == later, "opening writes nothing into a cohort"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(later, later))
    with pytest.raises(UserError, match=f"{name}: .*was changed since it was made"):
        PreparedCohort(made.path)


def test_a_copied_cohort_is_read_once_and_not_at_every_opening(source, tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_SETTLED_NS", -(10**12))  # as if copied long ago
    copy = Path(shutil.copytree(prepare(open_cohort(source), tmp_path / "out", STEPS).path, tmp_path / "copy"))
    for file in (each for each in copy.rglob("*.np*") if each.is_file()):
        later = (copy / "manifest.json").stat().st_mtime_ns + 10**9
        os.utime(file, ns=(later, later))
    read = []
    monkeypatch.setattr(digests, "digest_file", lambda path: read.append(path) or digest_file(path))
    PreparedCohort(copy)
    assert {path.name for path in read} >= {"image.npy", "mask.npy", "reference.npz"}
    read.clear()
    PreparedCohort(copy)
    assert not read
    os.utime(file, ns=(later + 1, later + 1))
    PreparedCohort(copy)
    assert read == [file]


def test_a_file_in_place_of_another_is_refused_even_with_its_size_and_an_old_date(tmp_path):
    synthesize_brats(tmp_path / "brats", patients=2, seed=0, size=32, slices=8)
    made = prepare(open_cohort(tmp_path / "brats"), tmp_path / "out", (ResizePlane(size=24),))
    one, other = (made.path / record.folder / "image.npy" for record in made.records)
    assert one.stat().st_size == other.stat().st_size
    shutil.copy2(other, one)  # with its times, before those of the manifest
    with pytest.raises(UserError, match="was changed since it was made"):
        PreparedCohort(made.path)


def test_unknown_case_is_named_among_those_there_are(source, tmp_path):
    made = prepare(open_cohort(source), tmp_path / "out", STEPS)
    with pytest.raises(UserError, match=made.records[0].id):
        made.case("nobody")


def without_digests(cohort):
    """Rewrite a prepared cohort as GlioFlow 0.1 left it: without digests of images and without an index."""
    path = cohort.path / "manifest.json"
    content = json.loads(path.read_text())
    for case in content["cases"]:
        case["digest"] = None
    path.write_text(json.dumps(content))
    (cohort.path / "index.sqlite").unlink()
    return PreparedCohort(cohort.path)


def test_a_cohort_whose_masks_an_earlier_version_shrank_says_so(source, tmp_path):
    shrunk = prepare(open_cohort(source), tmp_path / "shrunk", STEPS)
    assert not shrunk.shrunk_with_bias
    assert without_digests(shrunk).shrunk_with_bias
    as_large = prepare(open_cohort(source), tmp_path / "as_large", (UnitScale(),))
    assert not without_digests(as_large).shrunk_with_bias

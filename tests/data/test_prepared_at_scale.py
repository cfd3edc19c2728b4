"""What a prepared cohort of very many cases depends on: few open files, an index beside the manifest, kept digests."""

import json
import os
import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.prepared import digests, index
from glioflow.data.prepared.arrays import map_array
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.prepared.digests import digest_cases
from glioflow.data.prepared.manifest import fingerprint_of
from glioflow.data.prepared.prints import hash_slices, sign
from glioflow.data.preprocessing.geometry_steps import ResizePlane
from glioflow.data.preprocessing.intensity_steps import UnitScale


@pytest.fixture
def copy(prepared, tmp_path):
    """A prepared cohort of our own to change."""
    return shutil.copytree(prepared.path, tmp_path / "copy")


def test_arrays_of_many_cases_keep_no_file_open(copy):
    cohort = PreparedCohort(copy)
    opened = len(os.listdir("/proc/self/fd"))
    cases = cohort.cases(cohort.records.ids())
    arrays = [array for case in cases for array in (case.image, case.mask)]
    assert len(os.listdir("/proc/self/fd")) == opened
    for case, image, mask in zip(cases, arrays[::2], arrays[1::2], strict=True):
        assert np.array_equal(image, np.load(case.folder / "image.npy"))
        assert np.array_equal(mask, np.load(case.folder / "mask.npy"))
        assert not image.flags.writeable


def test_more_arrays_are_mapped_than_files_may_be_open(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    np.save(tmp_path / "image.npy", np.arange(12, dtype=np.float16).reshape(3, 4))
    few = max(int(number) for number in os.listdir("/proc/self/fd")) + 50
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        mapped = [map_array(tmp_path / "image.npy") for _ in range(400)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(array[2, 3] == 11 for array in mapped)


def test_a_mapping_ends_with_the_last_view_of_it(tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, np.ones((4, 4)))

    def mappings():
        return Path("/proc/self/maps").read_text().count(str(path))

    row = map_array(path)[1]
    assert (mappings(), row.sum()) == (1, 4)
    del row
    assert mappings() == 0


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mapped_array_is_the_stored_one_in_either_order(tmp_path, order):
    stored = np.asarray(np.random.default_rng(0).random((3, 5, 2)), order=order)
    np.save(tmp_path / "a.npy", stored)
    assert np.array_equal(map_array(tmp_path / "a.npy"), stored)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut short"):
        map_array(tmp_path / "a.npy")


def test_a_cohort_and_its_cases_travel_to_other_processes(prepared):
    cohort = pickle.loads(pickle.dumps(prepared))
    case = pickle.loads(pickle.dumps(prepared.case(cohort.records[0].id)))
    assert cohort.records == prepared.records
    assert np.array_equal(case.image, prepared.case(case.record.id).image)


def test_opening_with_the_index_parses_no_manifest(copy, monkeypatch):
    first = PreparedCohort(copy)
    monkeypatch.setattr(index, "read_whole", lambda folder: pytest.fail(f"{folder} was parsed whole"))
    again = PreparedCohort(copy)
    assert again.manifest == first.manifest
    assert [*again.records] == [*first.records]
    assert again.num_slices == sum(record.shape[0] for record in first.records)
    assert [tuple(entry) for entry in again.entries()] == [
        (record.id, record.patient, record.institution, record.volume_px, record.digest) for record in first.records
    ]
    assert [record.id for record in again.records[1:3]] == [*again.records.ids()][1:3]
    assert again.records[-1] == [*first.records][-1]


@pytest.mark.parametrize("harm", ["gone", "damaged", "of another manifest", "not writable"])
def test_without_a_sound_index_the_manifest_counts(copy, prepared, harm):
    path = copy / "index.sqlite"
    if harm == "of another manifest":
        text = (copy / "manifest.json").read_text()
        (copy / "manifest.json").write_text(text.replace(prepared.manifest.fingerprint, "0" * 32))
    elif harm == "damaged":
        path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    else:
        path.unlink()
    if harm == "not writable":
        path.mkdir()
    expected = "0" * 32 if harm == "of another manifest" else prepared.manifest.fingerprint
    for _ in range(2):
        cohort = PreparedCohort(copy)
        assert cohort.manifest.fingerprint == expected
        assert cohort.records == prepared.records
    assert [name for name in os.listdir(copy) if name.startswith(".")] == []


def test_a_cohort_that_an_earlier_version_prepared_opens_as_it_is(copy, prepared):
    (copy / "index.sqlite").unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    for case in manifest["cases"]:
        del case["sizes"]["prints.npz"]
        (copy / case["folder"] / "prints.npz").unlink()
        (copy / case["folder"] / "case.json").write_text(json.dumps(case, indent=1))
    (copy / "manifest.json").write_text(json.dumps(manifest, indent=1))
    cohort = PreparedCohort(copy)
    assert manifest["version"] == 2
    assert cohort.manifest == prepared.manifest
    case = cohort.case(cohort.records[0].id)
    assert np.array_equal(case.signatures(), sign(hash_slices(case.image)[0]))


@pytest.fixture
def raw(tmp_path):
    """Three cases of two files each, of known bytes."""
    cases = []
    for k in range(3):
        files = tuple(tmp_path / f"case{k}" / f"slice_{s}.tif" for s in range(2))
        files[0].parent.mkdir()
        for s, file in enumerate(files):
            file.write_bytes(bytes(range(k, k + 100)) * (s + 1))
        cases.append(CaseFiles(f"case{k}", f"p{k}", files))
    return Cohort("lgg", tmp_path, tuple(cases), {1: "tumor"}, None)


def test_fingerprints_of_unchanged_files_are_those_of_the_first_release(raw):
    found = digest_cases(raw, ())
    assert found["case1"] == "a34eb870e6aac113fe3dd07b27a08cc2"
    assert fingerprint_of(found, ()) == "7d5a1cf49eaa508857ac50964367e54d"
    assert fingerprint_of(found, (UnitScale(), ResizePlane(size=24))) == "34ee29eb263c50fa5b4e2b85eccff86d"


@pytest.fixture
def read(monkeypatch):
    """Names of the cases whose files are read."""
    cases, digest_files = [], digests._digest_files
    monkeypatch.setattr(
        digests, "_digest_files", lambda files: cases.append(files[0].parent.name) or digest_files(files)
    )
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)
    return cases


def test_files_are_read_again_only_when_they_change(raw, read):
    first = digest_cases(raw, ())
    assert sorted(read) == ["case0", "case1", "case2"]
    read.clear()
    assert digest_cases(raw, ()) == first
    assert read == []
    changed = raw.cases[1].files[0]
    times = changed.stat()
    changed.write_bytes(changed.read_bytes()[::-1])  # as long as before, and with its time set back
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = digest_cases(raw, ())
    assert read == ["case1"]
    assert {case_id for case_id in first if first[case_id] != second[case_id]} == {"case1"}


def test_files_that_changed_just_now_are_read_the_next_time_too(raw, read, monkeypatch):
    monkeypatch.setattr(digests, "_SETTLED_NS", 10**12)
    digest_cases(raw, ())
    digest_cases(raw, ())
    assert len(read) == 6


def test_damaged_digests_are_read_anew_and_kept_again(raw, read, home):
    first = digest_cases(raw, ())
    (home / "digests.sqlite").write_bytes(b"no database" * 300)
    read.clear()
    assert digest_cases(raw, ()) == first
    assert len(read) == 3
    assert digest_cases(raw, ()) == first
    assert len(read) == 3

import subprocess
import sys

import numpy as np
import pytest

from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared import remote
from glioflow.data.prepared.preparation import find_or_prepare, prepare
from glioflow.data.prepared.remote import fetch, is_uri, push
from glioflow.data.preprocessing.geometry_steps import ResizePlane
from glioflow.data.preprocessing.intensity_steps import UnitScale
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.errors import UserError
from servers import reached_bucket

STEPS = (UnitScale(), ResizePlane(size=24))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    path = tmp_path_factory.mktemp("remote")
    synthesize_lgg(path / "lgg", patients=3, seed=0, size=40, slices=(5, 6))
    return prepare(open_cohort(path / "lgg"), path / "out", STEPS)


@pytest.fixture(scope="module")
def bucket():
    with reached_bucket("cohorts") as uri:
        yield uri


def test_a_cohort_on_s3_is_the_same_through_the_nodes_cache(cohort, bucket, tmp_path):
    push(cohort, f"{bucket}/lgg")
    found = fetch(f"{bucket}/lgg", tmp_path)
    assert found.manifest == cohort.manifest
    assert found.path == tmp_path / cohort.manifest.fingerprint
    for one, other in zip(
        found.cases(r.id for r in found.records), cohort.cases(r.id for r in found.records), strict=True
    ):
        assert isinstance(one.image.base, np.memmap)
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.reference(), other.reference())
    assert found.clinical.read_bytes() == cohort.clinical.read_bytes()


def test_the_second_time_nothing_is_copied(cohort, bucket, tmp_path, monkeypatch):
    push(cohort, f"{bucket}/twice")
    first = fetch(f"{bucket}/twice", tmp_path)
    files = {path: path.stat().st_mtime_ns for path in first.path.rglob("*") if path.is_file()}
    monkeypatch.setattr(remote, "_read_manifest", lambda uri: pytest.fail(f"the manifest at {uri} was read whole"))
    again = fetch(f"{bucket}/twice", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in again.path.rglob("*") if path.is_file()} == files


def test_what_is_incomplete_is_refused_and_leaves_nothing(cohort, bucket, tmp_path):
    import boto3

    push(cohort, f"{bucket}/broken")
    key = f"broken/{cohort.records[1].folder}/image.npy"
    boto3.client("s3").put_object(Bucket="cohorts", Key=key, Body=b"short")
    with pytest.raises(UserError, match=r"s3://cohorts/broken: .*missing or incomplete; got image\.npy"):
        fetch(f"{bucket}/broken", tmp_path)
    boto3.client("s3").delete_object(Bucket="cohorts", Key=key)
    with pytest.raises(UserError, match="could not be read"):
        fetch(f"{bucket}/broken", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_places_without_a_cohort_are_named(bucket, tmp_path):
    with pytest.raises(UserError, match="s3://cohorts/nothing"):
        fetch(f"{bucket}/nothing", tmp_path)
    with pytest.raises(UserError, match="nowhere://x"):
        fetch("nowhere://x", tmp_path)
    assert is_uri("s3://cohorts/lgg")
    assert not is_uri("cohorts/lgg")


def test_another_cohort_is_not_written_over(cohort, tmp_path):
    uri = f"file://{tmp_path}/shared"
    push(cohort, uri)
    push(cohort, uri)
    other = prepare(open_cohort(cohort.path.parent / "lgg"), tmp_path / "other", (UnitScale(), ResizePlane(size=16)))
    with pytest.raises(UserError, match="choose another"):
        push(other, uri)
    assert fetch(uri, tmp_path / "cache").manifest == cohort.manifest


def test_a_fetched_cohort_is_found_by_its_sources_fingerprint(cohort, tmp_path):
    push(cohort, f"file://{tmp_path}/shared")
    fetched = fetch(f"file://{tmp_path}/shared", tmp_path / "home")
    assert find_or_prepare(cohort.path.parent / "lgg", STEPS, home=tmp_path / "home").path == fetched.path


def test_a_manifest_that_leads_out_of_its_folder_is_refused(cohort, tmp_path):
    push(cohort, f"file://{tmp_path}/shared")
    manifest = tmp_path / "shared" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(cohort.records[0].folder, "cases/../../../elsewhere"))
    with pytest.raises(UserError, match=r"valid manifest\.json"):
        fetch(f"file://{tmp_path}/shared", tmp_path / "home")


READ_ALL = """
import sys
from pathlib import Path
from glioflow.data.prepared.cohort import PreparedCohort

cohort = PreparedCohort(Path(sys.argv[1]))
cases = cohort.cases(record.id for record in cohort.records)
total = sum(float(case.image.sum(dtype="float32")) for case in cases)
print("ready", flush=True)
sys.stdin.readline()
rss = pss = 0
mapped = False
for line in open("/proc/self/smaps"):
    first = line.split()[0]
    if "-" in first:
        mapped = line.rstrip().endswith("image.npy")
    elif mapped and first == "Rss:":
        rss += int(line.split()[1])
    elif mapped and first == "Pss:":
        pss += int(line.split()[1])
print(rss, pss, flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_three_workers_share_the_pages_of_one(tmp_path):
    synthesize_lgg(tmp_path / "lgg", patients=2, seed=0, size=64, slices=(8, 8))
    made = prepare(open_cohort(tmp_path / "lgg"), tmp_path / "out", (UnitScale(), ResizePlane(size=256)))
    size = sum(record.sizes["image.npy"] for record in made.records) / 1024

    def resident(workers):
        command = [sys.executable, "-c", READ_ALL, str(made.path)]
        running = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(workers)
        ]
        try:
            for process in running:
                assert process.stdout.readline() == "ready\n"
            lines = []
            for process in running:
                process.stdin.write("\n")
                process.stdin.flush()
                lines.append([int(number) for number in process.stdout.readline().split()])
        finally:
            for process in running:
                process.communicate("\n")
        return [sum(column) for column in zip(*lines, strict=True)]

    (one_rss, one), (three_rss, three) = resident(1), resident(3)
    assert one_rss == pytest.approx(size, rel=0.05)
    assert three_rss == pytest.approx(3 * size, rel=0.05)
    assert three <= 1.05 * size, "three processes cost more than one copy of the data"
    assert one <= 1.05 * size

import csv
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage

from glioflow.data.formats.detect import open_cohort
from glioflow.data.synthetic.clinical import invent_patients
from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg
from glioflow.errors import UserError


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def lgg(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "lgg"
    answer = synthesize_lgg(path, patients=12, seed=3, size=96, slices=(14, 18))
    cohort = open_cohort(path)
    cases = [cohort.read(case.id) for case in cohort.cases]
    return answer, cohort, cases


@pytest.fixture(scope="module")
def brats(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "brats"
    answer = synthesize_brats(path, patients=8, seed=3, size=72, slices=46)
    cohort = open_cohort(path)
    return answer, cohort, [cohort.read(case.id) for case in cohort.cases]


def best_threshold_dice(images, masks):
    """Mean volume Dice of the best common threshold on images that are scaled by their own mean."""
    scores = []
    for image, mask in zip(images, masks, strict=True):
        scaled = image / image[image > 0].mean()
        scores.append(
            [2 * ((scaled > t) & mask).sum() / ((scaled > t).sum() + mask.sum()) for t in np.linspace(0.5, 4, 71)]
        )
    return np.mean(scores, axis=0).max()


def test_lgg_cohort_reads_as_the_real_one_does(lgg):
    answer, cohort, cases = lgg
    assert cohort.format == "lgg"
    assert answer["patients"] == 12
    assert answer["slices"] == sum(len(case.image) for case in cases)
    assert len({case.patient for case in cases}) == 12
    assert len({case.institution for case in cases}) >= 3
    assert {case.image.dtype for case in cases} == {np.dtype(np.uint8)}


def test_every_lgg_patient_has_one_connected_tumor_and_slices_without(lgg):
    for case in lgg[2]:
        assert ndimage.label(case.mask, np.ones((3, 3, 3)))[1] == 1
        positive = case.mask.any(axis=(1, 2))
        assert positive.any()
        assert not positive.all()


def test_lgg_tumors_differ_in_size_and_place(lgg):
    volumes = [int(case.mask.sum()) for case in lgg[2]]
    centers = np.array([ndimage.center_of_mass(case.mask) for case in lgg[2]])
    assert max(volumes) > 4 * min(volumes)
    assert (np.ptp(centers[:, 1:], axis=0) > 20).all()


def test_plain_flair_threshold_stays_below_the_promise(lgg, brats):
    flair = [case.image[..., 1].astype(float) for case in lgg[2]]
    assert best_threshold_dice(flair, [case.mask > 0 for case in lgg[2]]) < 0.6
    flair = [case.image[..., 0].astype(float) for case in brats[2]]
    assert best_threshold_dice(flair, [case.mask > 0 for case in brats[2]]) < 0.6


def test_missing_sequences_are_copies_of_flair(lgg):
    copies = [(case.image[..., 2] == case.image[..., 1]).all() for case in lgg[2]]
    assert 1 <= sum(copies) < 4


def test_lgg_tables_have_the_real_columns_keys_and_gaps(lgg):
    _, cohort, cases = lgg
    data, outcomes = rows(cohort.path / "data.csv"), rows(cohort.path / "outcomes.csv")
    columns = list(data[0])
    assert (columns[0], columns[-1]) == ("Patient", "death01")
    assert len(data[0]) == 18
    assert {row["Patient"] for row in data} == {row["Patient"] for row in outcomes} == {case.patient for case in cases}
    assert any(all(not value for key, value in row.items() if key != "Patient") for row in data)
    assert {row["death01"] for row in data} >= {"0", "1"}
    assert all(int(row["PFI_days"]) <= int(row["OS_days"]) for row in outcomes)


def test_death_depends_on_irregularity_and_age():
    people = invent_patients(np.random.default_rng(0), 600, mean_age=46, median_days=1900)
    died = np.array([person.died for person in people])
    irregularity = np.array([person.tumor.irregularity for person in people])
    age = np.array([person.age_years for person in people])
    assert 0.2 < died.mean() < 0.4
    assert irregularity[died].mean() > irregularity[~died].mean() + 0.2
    assert age[died].mean() > age[~died].mean() + 2


def test_irregular_plans_are_drawn_as_rougher_tumors(tmp_path):
    synthesize_lgg(tmp_path / "cohort", patients=30, seed=5, size=96, slices=(12, 14))
    cohort = open_cohort(tmp_path / "cohort")
    plans = invent_plans(30, seed=5)
    roughness = []
    for case in cohort.cases:
        plane = max(cohort.read(case.id).mask, key=np.sum).astype(bool)
        roughness.append((plane ^ ndimage.binary_erosion(plane)).sum() / np.sqrt(plane.sum()))
    assert np.corrcoef(plans, roughness)[0, 1] > 0.5


def invent_plans(count, seed):
    """The irregularities that `synthesize_lgg` plans, in the order of its cases."""
    from glioflow.data.synthetic.clinical import lgg_names

    rng = np.random.default_rng([seed, 0])
    lgg_names(rng, count)
    return [person.tumor.irregularity for person in invent_patients(rng, count, mean_age=46, median_days=1900)]


def test_same_seed_gives_the_same_bytes_however_many_workers(tmp_path):
    sizes = {"patients": 3, "size": 48, "slices": (5, 7)}
    synthesize_lgg(tmp_path / "one", seed=1, **sizes)
    with ThreadPoolExecutor(3) as pool:
        synthesize_lgg(tmp_path / "two", seed=1, **sizes, map_cases=pool.map)
    synthesize_lgg(tmp_path / "other", seed=2, **sizes)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert bytes_of(tmp_path / "one") != bytes_of(tmp_path / "other")


def test_interrupted_synthesis_leaves_nothing(tmp_path):
    def broken(function, cases):
        function(cases[0])
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        synthesize_lgg(tmp_path / "cohort", patients=2, seed=0, size=48, slices=(5, 5), map_cases=broken)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_holds_something_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not a new or empty folder"):
        synthesize_lgg(tmp_path, patients=1, seed=0)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_brats_cohort_reads_as_the_real_one_does(brats):
    answer, cohort, cases = brats
    assert (cohort.format, cohort.cases[0].id) == ("brats", "BraTS20_Training_001")
    assert answer["slices"] == 8 * 46
    assert cases[0].image.shape == (46, 72, 72, 4)
    assert cases[0].image.dtype == np.int16
    assert cases[0].image[0, 0, 0].tolist() == [0, 0, 0, 0]
    labels = [set(np.unique(case.mask).tolist()) for case in cases]
    assert all(found <= {0, 1, 2, 4} for found in labels)
    assert 1 <= sum(4 not in found for found in labels) < 4


def test_brats_tables_have_the_alive_row_and_missing_resections(brats):
    table = rows(brats[1].path / "survival_info.csv")
    assert list(table[0]) == ["Brats20ID", "Age", "Survival_days", "Extent_of_Resection"]
    assert sum(row["Survival_days"].startswith("ALIVE (") for row in table) == 1
    assert len(table) < 8
    assert {row["BraTS_2020_subject_ID"] for row in rows(brats[1].path / "name_mapping.csv")} == {
        case.id for case in brats[2]
    }

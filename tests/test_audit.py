"""The audit finds what would make a score better than it is."""

import cv2
import numpy as np
import pandas as pd
import pytest

from glioflow.audit import (
    find_filled_columns,
    find_image_leaks,
    find_input_leaks,
    find_preparation_leaks,
    find_selection_leaks,
    find_shared_images,
    find_shared_patients,
    find_split_leaks,
    read_aliases,
)
from glioflow.audit.gap import deal, score
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.prepared.prints import hash_slices, mirror, mirror_signatures, sign
from glioflow.data.splits import Split, SplitSettings, make_split
from glioflow.survival import SurvivalSettings

SPLIT = Split(train=("a1", "b1"), val=("c1",), test=("d1",))
QUICK = {"repeats": 1, "num_bootstrap": 20, "num_permutations": 0}


class Entry:
    institution = None
    volume_px = 1

    def __init__(self, case_id, patient=None):
        self.id, self.patient = case_id, patient or case_id[0]


class Picture:
    """A prepared case, as far as images are looked at."""

    def __init__(self, case_id, image):
        self.record, self.image = Entry(case_id), image

    def signatures(self):
        return sign(hash_slices(self.image)[0])


def noise(num, seed):
    return np.random.default_rng(seed).random((num, 48, 48, 3)).astype(np.float16)


def test_a_split_by_patient_is_clean():
    cases = [Entry(f"{patient}{k}") for patient in "abcdefgh" for k in range(2)]
    split = make_split(cases, SplitSettings())
    assert find_split_leaks(split, cases) == []


def test_a_patient_under_two_case_names_in_two_parts_is_found():
    cases = [Entry("a1"), Entry("b1"), Entry("c1", "a"), Entry("d1")]
    leaks = find_split_leaks(SPLIT, cases)
    assert [(leak.rule, leak.value) for leak in leaks] == [("one patient in two parts of the split", "a: train, val")]


def test_a_case_listed_twice_is_found_even_where_the_cohort_does_not_know_it():
    split = Split(train=("a1", "x"), val=("c1",), test=("x",))
    assert [leak.value for leak in find_split_leaks(split, [Entry("a1"), Entry("c1")])] == ["x: test, train"]


def test_one_person_of_tcga_under_names_of_two_cohorts_is_found(tmp_path):
    cases = [Entry("BraTS20_001", "BraTS20_001"), Entry("TCGA_CS_4941_19960909", "TCGA_CS_4941"), Entry("c1")]
    split = Split(train=("BraTS20_001",), val=("c1",), test=("TCGA_CS_4941_19960909",))
    assert find_split_leaks(split, cases) == []
    (tmp_path / "name_mapping.csv").write_text("Grade,BraTS_2020,TCGA\nLGG,BraTS20_001,TCGA-CS-4941\n")
    aliases = read_aliases([tmp_path])
    assert [leak.value for leak in find_split_leaks(split, cases, aliases=aliases)] == ["TCGA_CS_4941: test, train"]


def test_the_names_of_one_person_in_several_years_of_brats_are_one(tmp_path):
    table = "BraTS2021,BraTS2020,BraTS2018,Local ID\nBraTS2021_00006,BraTS20_Training_001,Brats18_CBICA_AAM_1,\n"
    (tmp_path / "BraTS21-17_Mapping.csv").write_text(f"{table}BraTS2021_00007,,,UPENN-GBM-00021\n")
    aliases = read_aliases([tmp_path])
    split = Split(train=("x",), val=("y",), test=("BraTS20_Training_001", "BraTS2021_00007"))
    cases = [Entry(name, name) for name in split.test]
    others = [Entry("Brats18_CBICA_AAM_1", "Brats18_CBICA_AAM"), Entry("UPENN-GBM-00021_11", "UPENN-GBM-00021")]
    leaks = find_shared_patients(split, cases, others, name="old", aliases=aliases)
    assert sorted(leak.value.split(": ")[1] for leak in leaks) == [
        "Brats18_CBICA_AAM_1 of old",
        "UPENN-GBM-00021_11 of old",
    ]


def heads(seed, count=3, size=192):
    """Cases of one channel that differ from one another in every slice, with air around."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        volume = np.zeros((6, size, size, 1), np.float32)
        for plane in volume[..., 0]:
            plane[10:-14, 8:-20] = cv2.GaussianBlur(rng.random((size - 24, size - 28), np.float32), (0, 0), 7) + 0.2
        yield f"case{number}", volume


@pytest.mark.parametrize(
    "changed",
    [
        lambda volume: volume * 500,
        lambda volume: np.pad(volume, ((1, 0), (7, 30), (25, 2), (0, 0))),
        lambda volume: volume[:, :, ::-1],
        lambda volume: np.stack(
            [cv2.resize(plane, (96, 96), interpolation=cv2.INTER_AREA)[..., None] for plane in volume]
        ),
        lambda volume: np.concatenate([np.random.default_rng(5).random(volume.shape), volume], axis=-1),
    ],
    ids=["gain", "padding", "mirrored", "half the size", "beside another sequence"],
)
def test_a_copy_in_another_cohort_is_found_whatever_its_scaling(changed):
    ours = [(name, volume, ("flair",)) for name, volume in heads(0)]
    channels = ("t1", "FLAIR") if changed(ours[1][1]).shape[-1] == 2 else ("t2f",)
    others = [(f"other{k}", volume, ("t2f",)) for k, (_, volume) in enumerate(heads(1))]
    (leak,) = find_shared_images(ours, [*others, ("copy", changed(ours[1][1]), channels)], name="old")
    assert leak.value.startswith("case1 is copy of old")


def test_cohorts_without_a_sequence_in_common_are_not_compared():
    ((name, volume), *_) = heads(0)
    assert find_shared_images([(name, volume, ("flair",))], [("copy", volume, ("t2",))], name="old") == []


def test_a_test_patient_of_another_cohort_that_was_learned_from_is_found():
    split = Split(train=("a1",), val=("c1",), test=("TCGA_CS_4941_19960909",))
    others = [Entry("case7", "TCGA-CS-4941"), Entry("a1")]
    (leak,) = find_shared_patients(split, [], others, name="brats")
    assert leak.value == "TCGA_CS_4941: case7 of brats"


def test_a_search_that_chooses_on_test_patients_is_found():
    assert [leak.value for leak in find_selection_leaks(SPLIT, {"objectives": ["val/dice", "test/dice"]})] == [
        "search.objectives: test/dice"
    ]
    earlier = {"old": Split(train=("b1",), val=("d1",)), "same": SPLIT}
    assert [leak.value for leak in find_selection_leaks(SPLIT, {}, earlier)] == ["old: d1"]


@pytest.mark.parametrize(
    "changed",
    [
        lambda image: image,
        lambda image: image * 1.2 + 0.05,
        lambda image: image[:, :, ::-1],
        lambda image: image + np.random.default_rng(9).normal(0, 0.03, image.shape),
    ],
    ids=["exact", "brighter", "mirrored", "noisier"],
)
def test_a_slice_and_its_changed_copy_in_two_parts_are_found_and_named_once(changed):
    known, copied = noise(4, 0), noise(4, 1)
    copied[2] = changed(known.astype(np.float32))[3]
    cases = [Picture("a1", known), Picture("c1", noise(4, 2)), Picture("d1", copied)]
    (leak,) = find_image_leaks(SPLIT, cases)
    assert leak.value.startswith("a1 (train) slice 3, d1 (test) slice 2: likeness ")


@pytest.mark.parametrize("seed", range(3))
def test_the_index_finds_what_the_comparison_of_all_pairs_finds(seed):
    rng = np.random.default_rng(seed)
    images = {f"{k:03}": noise(6, 100 * seed + k).astype(np.float32) for k in range(60)}
    for _ in range(80):  # copies of every likeness around the limit
        one, other = (f"{k:03}" for k in rng.choice(60, 2, replace=False))
        copy = images[one][rng.integers(6)] + rng.normal(0, rng.uniform(0, 0.12), (48, 48, 3))
        images[other][rng.integers(6)] = copy[:, :: rng.choice([-1, 1])]
    names = sorted(images)
    split = Split(train=tuple(names[:36]), val=tuple(names[36:48]), test=tuple(names[48:]))
    leaks = find_image_leaks(split, [Picture(name, images[name]) for name in names])
    assert [leak.value.partition(" (")[0] + leak.value.partition(", ")[2][:3] for leak in leaks] == by_all_pairs(
        split, {name: hash_slices(image)[0] for name, image in images.items()}
    )
    assert len(leaks) > 10


def by_all_pairs(split, hashes, likeness=0.975):
    order = {name: (part, name) for part, names in enumerate((split.train, split.val, split.test)) for name in names}
    return [
        earlier + later
        for later in sorted(order)
        for earlier in sorted(order, key=order.get)
        if order[earlier][0] < order[later][0]
        and max((one @ hashes[earlier].T).max() for one in (hashes[later], mirror(hashes[later]))) >= likeness
    ]


def test_a_mirrored_slice_has_the_mirrored_signature():
    hashes, _ = hash_slices(noise(5, 3))
    assert np.array_equal(mirror_signatures(sign(hashes)), sign(mirror(hashes)))


def test_signatures_made_at_preparation_are_those_of_the_images(prepared):
    for record in prepared.records:
        case = prepared.case(record.id)
        assert "prints.npz" in record.sizes
        assert np.array_equal(case.signatures(), sign(hash_slices(case.image)[0]))


def test_one_image_twice_in_one_part_or_outside_the_split_is_no_leak():
    same = noise(2, 0)
    assert find_image_leaks(SPLIT, [Picture("a1", same), Picture("b1", same), Picture("z", same)]) == []


def test_black_slices_are_alike_everywhere_and_no_leak():
    assert find_image_leaks(SPLIT, [Picture(name, np.zeros((2, 48, 48, 3), np.float16)) for name in ("a1", "d1")]) == []


def test_synthetic_patients_are_no_copies_of_each_other(prepared):
    split = make_split(prepared.records, SplitSettings(method="counts", counts=(4, 2, 2)))
    assert find_image_leaks(split, [prepared.case(record.id) for record in prepared.records]) == []


def table(num=40, seed=0):
    rng = np.random.default_rng(seed)
    death = (np.arange(num) % 3 == 0).astype(float)
    age = rng.normal(50, 10, num).round()
    return pd.DataFrame(
        {"age_years": age, "death01": death, "cluster": rng.integers(1, 4, num).astype(float)},
        index=pd.Index([f"p{k}" for k in range(num)], name="patient"),
    )


def test_an_outcome_among_the_inputs_is_found_by_any_of_its_names():
    for name in ("death01", "OS_days", "os_event"):
        (leak,) = find_input_leaks(SurvivalSettings(clinical=("age_years", name)))
        assert leak.value == name
    assert find_input_leaks(SurvivalSettings()) == []


@pytest.mark.parametrize(
    "derived",
    [
        lambda death: 7 - 2 * death,
        lambda death: np.where(death == 1, np.arange(len(death)) + 100.0, np.nan),
        lambda death: death * 50 + np.random.default_rng(1).random(len(death)),
    ],
    ids=["coded otherwise", "known only of the dead", "parts them"],
)
def test_a_column_that_tells_the_outcome_is_found(derived):
    clinical = table()
    clinical["other"] = derived(clinical["death01"].to_numpy())
    (leak,) = find_input_leaks(SurvivalSettings(clinical=("age_years", "other")), clinical)
    assert leak.value == "other gives away death01"


def test_honest_columns_tell_no_outcome():
    assert find_input_leaks(SurvivalSettings(clinical=("age_years", "cluster")), table()) == []


def test_a_table_that_was_imputed_or_scaled_before_the_split_is_found():
    clinical = table()
    assert find_filled_columns(clinical) == []
    imputed, scaled = clinical.copy(), clinical.copy()
    imputed.iloc[3, 2] = 1.75
    scaled["size"] = (scaled["age_years"] - scaled["age_years"].mean()) / scaled["age_years"].std()
    assert "cluster" in find_filled_columns(imputed)[0].value
    assert "size" in find_filled_columns(scaled)[0].value


def test_preparation_that_sees_held_out_patients_is_found(monkeypatch):
    from glioflow.survival import crossvalidation

    clinical = table()
    clinical.iloc[::5, 0] = np.nan
    chosen = SurvivalSettings(task="death01", shape_features=(), imputation="knn", **QUICK)
    assert find_preparation_leaks(clinical, chosen) == []
    honest = crossvalidation.out_of_fold

    def leaking(rows, outcome, learn, splits):
        filled = rows.fillna(rows.mean(numeric_only=True))
        return honest(filled, outcome, learn, splits)

    monkeypatch.setattr(crossvalidation, "out_of_fold", leaking)
    (leak,) = find_preparation_leaks(clinical, chosen)
    assert "training patients alone" in leak.rule


def test_a_split_by_slice_puts_every_slice_in_one_part_and_as_many_as_the_split_by_patient(prepared):
    split = make_split(prepared.records, SplitSettings(method="counts", counts=(4, 2, 2)))
    dealt = {kind: deal(prepared, split, kind, seed=0) for kind in ("patient", "slice")}
    sizes = {kind: [sum(len(case.image) for case in parts[p]) for p in parts] for kind, parts in dealt.items()}
    assert sizes["slice"] == sizes["patient"]
    assert {case.record.id for case in dealt["patient"]["test"]} == set(split.test)
    assert len({case.record.id for case in dealt["slice"]["train"]}) > len(split.train)
    voxels = sum(case.record.volume_px for part in dealt["slice"].values() for case in part)
    assert voxels == sum(sum(record.areas_px) for record in prepared.records)


def test_truth_scores_one_and_nothing_scores_what_empty_slices_give(prepared):
    split = make_split(prepared.records, SplitSettings(method="counts", counts=(4, 2, 2)))
    cases = deal(prepared, split, "patient", seed=0)["test"]
    perfect = score(lambda case: case.reference() > 0, cases)
    assert (perfect.dice, perfect.dice_pooled, perfect.dice_per_slice) == (1, 1, 1)
    nothing = score(lambda case: np.zeros(case.record.shape, bool), cases)
    empty = np.mean([area == 0 for case in cases for area in case.record.areas_px])
    assert (nothing.dice, nothing.dice_pooled) == (0, 0)
    assert nothing.dice_per_slice == pytest.approx(empty) == nothing.num_empty_both / nothing.num_slices


def test_several_cases_of_one_patient_count_as_one_patient(prepared):
    first, second, *_ = prepared.cases(prepared.records.ids())
    again = [PreparedCase(first.record.model_copy(update={"id": f"again{k}"}), first.folder) for k in range(3)]

    def segment(case):
        truth = case.reference() > 0
        return truth if case.record.patient == first.record.patient else np.zeros_like(truth)

    assert score(segment, [first, *again, second]).dice == pytest.approx(0.5)


def test_a_person_whom_two_tables_know_under_two_names_is_one(tmp_path):
    (tmp_path / "BraTS21-17_Mapping.csv").write_text("b21,b20\nBraTS2021_00002,BraTS20_Training_001\n")
    table = "b20,b19,tcga,note\nBraTS20_Training_001,BraTS19_TCIA01_1_1,TCGA-CS-4941,Jos\xe9\n"
    (tmp_path / "name_mapping.csv").write_bytes(table.encode("latin-1"))
    aliases = read_aliases([tmp_path])
    assert {aliases[name] for name in ("BraTS2021_00002", "BraTS20_Training_001", "BraTS19_TCIA01_1_1")} == {
        "TCGA-CS-4941"
    }

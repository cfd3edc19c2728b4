import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from pydantic import ValidationError

from glioflow.data.splits import Split, SplitSettings, check_split, deal, make_split
from glioflow.errors import UserError


@dataclass(frozen=True)
class Entry:
    id: str
    patient: str
    institution: str | None
    volume_px: int | None


def cohort(patients, cases=1, institutions=("CS", "DU")):
    return [
        Entry(f"p{p:03}_{c}", f"p{p:03}", institutions[p % len(institutions)], 10 + (p * 37) % 100)
        for p in range(patients)
        for c in range(cases)
    ]


def parts_of(split):
    return {"train": split.train, "val": split.val, "test": split.test}


def owner(cases):
    return {case.id: case.patient for case in cases}


@pytest.mark.parametrize("settings", [{"folds": 5}, {"method": "counts", "counts": (10, 4, 6)}])
def test_a_patient_of_two_cases_is_never_split(settings):
    cases = cohort(20, cases=2)
    for seed in range(20):
        split = make_split(cases, SplitSettings(seed=seed, **settings))
        patients = [{owner(cases)[case_id] for case_id in part} for part in parts_of(split).values()]
        assert sum(map(len, patients)) == len(set.union(*patients))
        assert len(split.train) + len(split.val) + len(split.test) == 40


def test_a_split_file_may_not_list_a_case_without_a_mask(tmp_path):
    cases = [*cohort(3), Entry("unlabeled", "unlabeled", None, None)]
    listed = {"train": [cases[0].id], "val": [cases[1].id], "test": [cases[2].id, "unlabeled"]}
    (tmp_path / "split.json").write_text(json.dumps(listed))
    settings = SplitSettings(method="file", file=str(tmp_path / "split.json"))
    with pytest.raises(UserError, match="cases that have a mask; got unlabeled in 'test'"):
        make_split(cases, settings)


def test_every_patient_is_tested_once_over_the_folds():
    cases = cohort(23)
    tested = [case_id for fold in range(5) for case_id in make_split(cases, SplitSettings(fold=fold)).test]
    assert sorted(tested) == sorted(case.id for case in cases)


def test_folds_are_stratified_by_institution_and_volume():
    cases = cohort(60, institutions=("CS", "DU", "HT"))
    low, high = np.quantile([case.volume_px for case in cases], [1 / 3, 2 / 3])
    stratum = {case.id: (case.institution, case.volume_px > low, case.volume_px > high) for case in cases}
    for name in set(stratum.values()):
        shares = [sum(stratum[case_id] == name for case_id in part) for part in deal(cases, 5, seed=3)]
        assert max(shares) - min(shares) <= 1


def test_the_same_seed_deals_alike_and_another_does_not():
    cases = cohort(30)
    first = make_split(cases, SplitSettings(seed=1))
    assert make_split(list(reversed(cases)), SplitSettings(seed=1)) == first
    assert make_split(cases, SplitSettings(seed=2)).digest != first.digest


def test_22_folds_of_110_patients_are_5_each():
    assert [len(part) for part in deal(cohort(110), 22, seed=0)] == [5] * 22
    split = make_split(cohort(110), SplitSettings(folds=22, fold=21))
    assert (len(split.train), len(split.val), len(split.test)) == (100, 5, 5)
    with pytest.raises(UserError, match=r"22 folds need.*got 12 patients"):
        make_split(cohort(12), SplitSettings(folds=22))


def test_the_counts_of_the_brats_work_are_dealt_exactly():
    split = make_split(cohort(369), SplitSettings(method="counts", counts=(250, 74, 45)))
    assert (len(split.train), len(split.val), len(split.test)) == (250, 74, 45)
    with pytest.raises(UserError, match=r"\[250, 74, 45\] need 369 labeled patients.*got 65 patients"):
        make_split(cohort(65), SplitSettings(method="counts", counts=(250, 74, 45)))


@pytest.mark.parametrize("counts", [(1, 1, 1), (8, 1, 0), (3, 7, 2), (1, 17, 2), (20, 1, 1)])
def test_counts_are_exact_and_stratified_even_where_patients_are_left_over(counts):
    for patients in (22, 40):
        split = make_split(cohort(patients), SplitSettings(method="counts", counts=counts))
        assert (len(split.train), len(split.val), len(split.test)) == counts
    by_id = {case.id: case for case in cohort(40)}
    split = make_split(cohort(40), SplitSettings(method="counts", counts=(10, 5, 5)))
    assert Counter(by_id[case_id].institution for case_id in split.train) == {"CS": 5, "DU": 5}


def test_cases_without_a_mask_are_not_dealt():
    cases = [*cohort(6), Entry("unlabeled", "unlabeled", None, None)]
    split = make_split(cases, SplitSettings(folds=3))
    assert "unlabeled" not in (*split.train, *split.val, *split.test)
    with pytest.raises(UserError, match="got 0 patients"):
        make_split(cases[-1:], SplitSettings(folds=3))


def test_a_split_file_is_read_here_or_in_the_data_folder(tmp_path):
    split = {"train": ["p000_0", "p001_0"], "val": ["p002_0"], "test": ["p003_0"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    settings = SplitSettings(method="file", file="split.json")
    assert make_split(cohort(4), settings, folder=tmp_path).val == ("p002_0",)
    with pytest.raises(UserError, match=r"split\.file does not exist; got split\.json"):
        make_split(cohort(4), settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["p000_0"], "val": ["p009_0"]}, "no case 'p009_0', but the split lists it in 'val'"),
        ({"train": ["p000_0"], "val": ["p000_1"]}, "one part.*got p000 in 'train' and 'val'"),
        ({"train": ["p000_0"], "val": []}, "at least one case in 'val'"),
        ({"train": ["p000_0", "p000_0"], "val": ["p001_0"]}, "a case once; got p000_0 2 times in 'train'"),
        ({"train": "p000_0"}, "lists train, val and test"),
        ('{"train": ["p000_0"], "train": ["p001_0"], "val": ["p002_0"]}', r"split\.json: the key 'train' stands twice"),
        ("[" * 9000, "lists train, val and test"),
    ],
)
def test_a_wrong_split_file_says_what_is_wrong(tmp_path, content, message):
    (tmp_path / "split.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message):
        make_split(cohort(3, cases=2), SplitSettings(method="file", file=str(tmp_path / "split.json")))


def test_a_split_file_may_name_patients_for_all_their_cases(tmp_path):
    (tmp_path / "split.json").write_text(json.dumps({"train": ["p000", "p001_0"], "val": ["p002"]}))
    split = make_split(cohort(3, cases=2), SplitSettings(method="file", file=str(tmp_path / "split.json")))
    assert split == Split(train=("p000_0", "p000_1", "p001_0"), val=("p002_0", "p002_1"))


def test_settings_that_cannot_be_are_refused():
    for settings in ({"folds": 3, "fold": 3}, {"method": "counts"}, {"method": "counts", "counts": (3, -1, 1)}):
        with pytest.raises(ValidationError):
            SplitSettings(**settings)
    with pytest.raises(UserError, match=r"split\.folds must be at least 3"):
        make_split(cohort(9), SplitSettings(folds=2))


def test_the_digest_knows_no_order():
    one, other = Split(train=("a", "b"), val=("c",)), Split(train=("b", "a"), val=("c",))
    assert one.digest == other.digest
    assert one.digest != Split(train=("a",), val=("b", "c")).digest


def test_a_split_is_checked_without_looking_through_its_lists_for_every_case():
    class Listed(tuple):
        """A list that refuses to be searched."""

        __slots__ = ()

        def count(self, value):
            raise AssertionError(f"looked through {len(self)} cases for {value}")

        __contains__ = index = count

    cases = cohort(50)
    ids = [case.id for case in cases]
    split = Split.model_construct(train=Listed(ids[:40]), val=Listed(ids[40:]), test=())
    check_split(split, cases)

"""The audit finds what would make a score better than it is."""

from glioflow.audit import find_image_leaks, find_split_leaks
from glioflow.data.splits import Split, SplitSettings, make_split

SPLIT = Split(train=("a1", "b1"), val=("c1",), test=("d1",))


class Entry:
    institution = None
    volume_px = 1

    def __init__(self, case_id, patient=None):
        self.id, self.patient = case_id, patient or case_id[0]


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


def test_one_image_in_two_parts_is_found_and_named_once():
    digests = [("a1", "one"), ("a1", "two"), ("d1", "two"), ("d1", "two"), ("c1", "three")]
    assert [leak.value for leak in find_image_leaks(SPLIT, digests)] == ["a1 (train), d1 (test)"]


def test_one_image_twice_in_one_part_or_outside_the_split_is_no_leak():
    assert find_image_leaks(SPLIT, [("a1", "one"), ("b1", "one"), ("z", "one")]) == []

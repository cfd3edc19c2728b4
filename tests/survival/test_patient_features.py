"""Shape features meet the rows of their patients in a clinical table."""

import numpy as np
import pytest

from glioflow.errors import UserError
from glioflow.survival import join_features, read_clinical

TABLE = "Patient,Age\nTCGA_CS_4944,50\nTCGA_DU_5395,37\n"


def test_a_column_named_like_a_shape_does_not_replace_what_was_measured(write):
    features = {"P1_a": {"bevr": 0.2}, "P1_b": {"bevr": 0.4}}
    table = join_features(read_clinical(write("Patient,Age,bevr\nP1,50,9\n")), features, dict.fromkeys(features, "P1"))
    assert table.loc["P1", "bevr"] == pytest.approx(0.3)
    assert table.loc["P1", "bevr_table"] == 9


def test_features_meet_the_table_by_patient(write):
    table = join_features(
        read_clinical(write(TABLE)),
        {"TCGA_CS_4944_20010208": {"bevr": 0.4, "mf": None}},
    )
    assert list(table.index) == ["TCGA_CS_4944"]
    assert table.loc["TCGA_CS_4944", "bevr"] == 0.4
    assert np.isnan(table.loc["TCGA_CS_4944", "mf"])


@pytest.mark.parametrize("key", ["P1", "P1_2019-03-01"])
def test_features_of_several_cases_are_averaged_and_meet_the_table_by_patient_or_case(write, key):
    features = {"P1_2019-03-01": {"bevr": 0.4, "mf": None}, "P1_2020-03-01": {"bevr": 0.6, "mf": 0.1}}
    persons = dict.fromkeys(features, "P1")
    table = join_features(read_clinical(write(f"Patient,Age\n{key},50\n")), features, persons)
    assert table.index.tolist() == [key]
    assert table.iloc[0][["bevr", "mf"]].tolist() == pytest.approx(
        [0.5, 0.1] if key == "P1" else [0.4, np.nan], nan_ok=True
    )


def test_a_table_with_two_rows_for_the_cases_of_one_patient_is_refused(write):
    features = {"P1_a": {"bevr": 0.4}, "P1_b": {"bevr": 0.6}}
    with pytest.raises(UserError, match=r"one row for each patient; got P1_a and P1_b for P1"):
        join_features(read_clinical(write("Patient,Age\nP1_a,50\nP1_b,50\n")), features, dict.fromkeys(features, "P1"))


def test_features_of_strangers_are_refused(write):
    with pytest.raises(UserError, match="at least one patient"):
        join_features(read_clinical(write(TABLE)), {"other": {"bevr": 0.4}})

"""Clinical tables as they circulate: codes, gaps, words, and the errors a person gets."""

import numpy as np
import pandas as pd
import pytest

from glioflow.errors import UserError
from glioflow.survival import read_clinical

LGG = """Patient,RNASeqCluster,histological_type,neoplasm_histologic_grade,gender,age_at_initial_pathologic,death01
TCGA_DU_5395,1,1,2,2,37,1
TCGA_CS_4944,,2,1,1,50,
TCGA_HT_0001,3,,,,,0
"""
OUTCOMES = """Patient,OS_days,OS_event,PFI_days,PFI_event,age_years,grade
TCGA_CS_4944,1828,0,1000,1,50,G2
TCGA_HT_0001,300,1,300,1,61,[Discrepancy]
"""
BRATS = """Brats20ID,Age,Survival_days,Extent_of_Resection
BraTS20_Training_083,54.9,401,GTR
BraTS20_Training_084,61.6,ALIVE (361 days later),GTR
BraTS20_Training_085,70.6,996,NA
"""


def test_lgg_codes_become_words_and_gaps_stay_gaps(write):
    table = read_clinical(write(LGG))
    first = table.loc["TCGA_DU_5395"]
    assert (first["gender"], first["histology"], first["grade"]) == ("male", "astrocytoma", 3)
    assert first["institution"] == "du"
    assert np.isnan(table.loc["TCGA_CS_4944", "death01"])
    assert pd.isna(table.loc["TCGA_HT_0001", "gender"])
    assert table["RNASeqCluster"].dtype == float


def test_the_semicolon_variant_reads_the_same(write):
    pd.testing.assert_frame_equal(
        read_clinical(write(LGG)), read_clinical(write("\ufeff" + LGG.replace(",", ";"), "semicolon.csv"))
    )


def test_outcomes_fill_what_is_open_and_change_nothing_else(write):
    table = read_clinical(write(LGG), outcomes=write(OUTCOMES, "outcomes.csv"))
    assert table.loc["TCGA_HT_0001", "age_years"] == 61
    assert table.loc["TCGA_HT_0001", "death01"] == 0
    assert table.loc["TCGA_HT_0001", "os_event"] == 1
    assert np.isnan(table.loc["TCGA_HT_0001", "grade"])
    assert table.loc["TCGA_CS_4944", "grade"] == 2
    assert np.isnan(table.loc["TCGA_DU_5395", "os_days"])


def test_a_patient_who_was_alive_is_censored_and_kept(write):
    table = read_clinical(write(BRATS))
    assert table.loc["BraTS20_Training_084", ["os_days", "os_event"]].tolist() == [361, 0]
    assert table.loc["BraTS20_Training_083", "os_event"] == 1


def test_the_flattened_copy_of_that_row_is_censored_too(write):
    table = read_clinical(write(BRATS.replace("ALIVE (361 days later)", "361")))
    assert table.loc["BraTS20_Training_084", ["os_days", "os_event"]].tolist() == [361, 0]


def test_na_of_brats_is_a_word_and_no_gap(write):
    assert read_clinical(write(BRATS)).loc["BraTS20_Training_085", "resection"] == "na"


def test_a_value_out_of_range_is_refused_with_file_column_and_range(write):
    with pytest.raises(UserError, match=r"table\.csv, column age_at_initial_pathologic: .* from 0 to 120; got '370'"):
        read_clinical(write(LGG.replace("37,", "370,")))


def test_a_patient_has_one_row(write):
    with pytest.raises(UserError, match="one row for each patient; got TCGA_CS_4944"):
        read_clinical(write(LGG.replace("TCGA_HT_0001", "TCGA_CS_4944")))


@pytest.mark.parametrize("column", ["OS_event", "os_event", "PFI_event", "death01"])
@pytest.mark.parametrize(
    "events", ["True False TRUE 0", "yes NO Y n", "Dead Alive died living", "1:DECEASED 0:LIVING 1.0 0.0"]
)
def test_events_may_be_written_as_pandas_and_people_write_them(tmp_path, column, events):
    path = tmp_path / "table.csv"
    rows = "".join(f"{patient},{event}\n" for patient, event in zip("abcd", events.split(), strict=True))
    path.write_text(f"Patient,{column}\n{rows}")
    (values,) = (
        read_clinical(path)[name] for name in ("os_event", "pfi_event", "death01") if name in read_clinical(path)
    )
    assert values.tolist() == [1, 0, 1, 0]


def test_columns_without_a_name_are_left_out(tmp_path):
    (tmp_path / "data.csv").write_text(",Patient,Age,\n0,a,40,\n1,b,50,\n")
    assert read_clinical(tmp_path / "data.csv").columns.tolist() == ["age_years"]


def test_columns_are_known_in_any_case(write):
    names = "PATIENT,AGE,Gender,Grade,os_DAYS,Os_Event,Extent_of_resection"
    table = read_clinical(write(f"{names}\na,40,F,III,300,dead,GTR\nb,50,M,g4,400,alive,NA\n"))
    assert table.index.tolist() == ["a", "b"]
    assert [*table] == ["age_years", "gender", "grade", "resection", "os_days", "os_event"]
    assert [*table["grade"]] == [3, 4]
    assert [*table["os_event"]] == [1, 0]
    alive = read_clinical(write("brats20id,survival_days\na,ALIVE (361 days later)\nb,20\n"))
    assert [*alive["os_event"]] == [0, 1]


def test_numbers_for_sex_and_histology_have_no_names_in_tables_other_than_lggs(write):
    other = read_clinical(write("Patient,gender,histological_type\nP1,1,2\nP2,2.0,1\n"))
    assert [*other["gender"]] == ["1", "2"]
    assert [*other["histology"]] == ["2", "1"]
    lgg = read_clinical(write("Patient,gender,histological_type,RNASeqCluster\nP1,1,2,1\nP2,2,1,3\n"))
    assert [*lgg["gender"]] == ["female", "male"]
    assert [*lgg["histology"]] == ["oligoastrocytoma", "astrocytoma"]


def test_a_number_that_may_be_a_code_of_a_grade_is_named(write):
    with pytest.raises(UserError, match=r"column neoplasm_histologic_grade: 1 and 2 may be grades, or.*got '2' of P2"):
        read_clinical(write("Patient,neoplasm_histologic_grade\nP1,3\nP2,2\n"))
    assert [*read_clinical(write("Patient,neoplasm_histologic_grade\nP1,G3\nP2,G2\n"))["grade"]] == [3, 2]


def test_a_second_table_that_differs_about_a_patient_is_refused(write):
    first = write("Patient,Age,OS_days,OS_event\na,40,300,0\nb,50,,\n", "data.csv")
    with pytest.raises(
        UserError, match=r"data\.csv and late\.csv both have os_days, and differ; got 300\.0 and 900\.0 of a"
    ):
        read_clinical(first, outcomes=write("Patient,OS_days,OS_event\na,900,1\nb,20,1\n", "late.csv"))
    table = read_clinical(first, outcomes=write("Patient,age,os_days,os_event\na,40.4,300,0\nb,,20,1\n", "late.csv"))
    assert table["os_days"].to_dict() == {"a": 300, "b": 20}


def test_a_second_table_of_other_patients_is_refused(write):
    with pytest.raises(
        UserError, match=r"must have at least one patient of data\.csv; got P01, P02; .*hoose one of: P1"
    ):
        read_clinical(
            write("Patient,Age\nP1,40\nP2,50\n", "data.csv"), outcomes=write("Patient,OS_days\nP01,9\nP02,20\n")
        )


def test_two_columns_of_one_meaning_that_differ_are_named(write):
    with pytest.raises(UserError) as caught:
        read_clinical(write("Patient,Age,age_at_initial_pathologic\na,40,40\nb,50,61\nc,,70\n"))
    assert (
        "the columns age_at_initial_pathologic and Age both mean age_years, and differ; got 61.0 and 50.0 of b;"
    ) in str(caught.value)
    with pytest.raises(UserError, match=r"gender and sex both mean gender.*got female and male of a"):
        read_clinical(write("Patient,gender,sex\na,F,M\n"))


def test_two_columns_of_one_meaning_that_agree_are_one(write):
    table = read_clinical(write("Patient,Age,age_years,gender,sex\na,40.4,40,F,female\nb,50,,w,\nc,,70,,M\n"))
    assert [*table["age_years"]] == [40, 50, 70]
    assert [*table["gender"]] == ["female", "female", "male"]
    assert {"Age", "sex"}.isdisjoint(table.columns)


def test_an_event_in_a_column_of_its_own_counts_more_than_one_derived_from_days(write):
    table = read_clinical(write("Patient,Survival_days,OS_event\na,40,0\nb,ALIVE (361 days later),1\n"))
    assert [*table["os_event"]] == [0, 1]


def test_a_sex_has_one_spelling(write):
    words = ["F", "female", "w", "weiblich", "Woman", "femme", "Féminin", "mujer", "donna", "Vrouw"]
    others = ["M", "Male", "männlich", "Mann", "homme", "hombre", "uomo", "man"]
    rows = "\n".join(f"p{number},{word}" for number, word in enumerate([*words, *others]))
    found = read_clinical(write(f"Patient,sex\n{rows}\n"))["gender"]
    assert [found[f"p{number}"] for number in range(len(found))] == ["female"] * len(words) + ["male"] * len(others)


@pytest.mark.parametrize("word", ["femle", "h", "t"])
def test_a_word_that_is_no_sex_is_named(write, word):
    with pytest.raises(UserError, match=f"column sex: gender must be a known word; got '{word}'; .*hoose one of: f"):
        read_clinical(write(f"Patient,sex\na,F\nb,{word}\n"))


def test_codes_of_sexes_stay_codes_unless_words_stand_beside_them(write):
    assert [*read_clinical(write("Patient,sex\na,1\nb,2.0\n"))["gender"]] == ["1", "2"]
    with pytest.raises(UserError, match="gender must be words or numbers, not both; got 1 of 3 in numbers"):
        read_clinical(write("Patient,sex\na,1\nb,F\nc,M\nd,\n"))


def test_a_point_beside_decimal_commas_is_named(write):
    with pytest.raises(UserError, match=r"in the column OS_days, a point may separate thousands.*12,5; got 1\.234;"):
        read_clinical(write("Patient;OS_days;dose\na;1.234;12,5\nb;400;3,5\n"))
    assert [*read_clinical(write("Patient;OS_days;dose\na;1.234;12.5\nb;400;3.5\n"))["os_days"]] == [1.234, 400]

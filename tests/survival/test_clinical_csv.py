"""The rows of clinical CSV files: separators, headers, blank lines, and the errors a person gets."""

import pytest

from glioflow.errors import UserError
from glioflow.survival import patient_key, read_clinical
from glioflow.survival.clinical_csv import patients_of


def test_a_table_without_patients_says_file_columns_and_choices(write):
    with pytest.raises(UserError, match=r"table\.csv: .* column of patients, such as Patient; got columns Age, Days"):
        read_clinical(write("Age,Days\n50,3\n"))


def test_a_missing_file_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        read_clinical(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"the clinical table \S+ is not a file"):
        read_clinical(tmp_path)


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("TCGA_CS_4941_19960909", "TCGA_CS_4941"),
        ("TCGA-CS-4941", "TCGA_CS_4941"),
        ("BraTS2021_00006", "BraTS2021_00006"),
    ],
)
def test_a_case_belongs_to_its_patient(case, patient):
    assert patient_key(case) == patient


@pytest.mark.parametrize(("row", "refused"), [("a,40,", False), ("a,40,50", True)])
def test_a_row_with_more_cells_than_columns_is_read_by_its_columns_or_refused(tmp_path, row, refused):
    path = tmp_path / "data.csv"
    path.write_text(f"Patient,Age\n{row}\n")
    if refused:
        with pytest.raises(UserError, match="no more cells than it has columns; got 3 for 2 in the row of a"):
            read_clinical(path)
    else:  # pandas would take the first column for an index, and the age for the patient
        assert read_clinical(path)["age_years"].to_dict() == {"a": 40}


def test_a_column_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("Patient,age_years,age_years\na,40,50\n")
    with pytest.raises(UserError, match="a column of the table must appear once; got age_years"):
        read_clinical(path)


def test_columns_that_differ_by_case_alone_are_named(write):
    with pytest.raises(UserError, match=r"a column of the table must appear once; got Age, AGE; remove or rename one"):
        read_clinical(write("Patient,Age,AGE\na,40,50\n"))


@pytest.mark.parametrize("text", ["\n  \nPatient,age\na,40\nb,50\n", "Patient,age\na,40\n   \nb,50\n\n"])
def test_blank_lines_of_a_table_are_no_rows(write, text):
    path = write(text)
    assert [*read_clinical(path)["age_years"]] == [40, 50]
    assert patients_of(path) == ["a", "b"]


def test_a_quote_that_never_ends_is_refused_for_it_would_swallow_the_rows_that_follow(write):
    with pytest.raises(UserError, match=r"readable csv.*never ends in the row of a"):
        read_clinical(write('Patient,note,death01\na,"tall,1\nb,small,0\n'))
    table = read_clinical(write('Patient,note,death01\na,5" tall,1\nb,"short" man,0\n'))
    assert [*table["death01"]] == [1, 0]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_line_in_which_excel_keeps_the_separator_is_no_header(write, separator):
    text = "Patient,Age\na,40\nb,50\n".replace(",", separator)
    assert [*read_clinical(write(f"sep={separator}\n{text}"))["age_years"]] == [40, 50]
    assert patients_of(write(f'"sep={separator}"\r\n{text}')) == ["a", "b"]

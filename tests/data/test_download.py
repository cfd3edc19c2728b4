import pytest

from glioflow.data.download import download
from glioflow.errors import UserError


def test_the_cases_folder_of_what_was_fetched_becomes_the_cohort(tmp_path):
    def fetch(handle):
        assert handle == "mateuszbuda/lgg-mri-segmentation"
        inner = tmp_path / "cache" / "kaggle_3m"
        inner.mkdir(parents=True)
        (inner / "data.csv").write_text("Patient\n")
        return str(tmp_path / "cache")

    out = download("lgg", tmp_path / "out", fetch=fetch)
    assert [path.name for path in out.iterdir()] == ["data.csv"]


def test_unreachable_kaggle_says_what_to_do_instead(tmp_path):
    def fetch(handle):
        raise ConnectionError("no route to host")

    with pytest.raises(UserError, match="in a browser, download the data set mateuszbuda") as caught:
        download("lgg", tmp_path / "out", fetch=fetch)
    assert "no route to host" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_unknown_set_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="brats2020, lgg"):
        download("brats", tmp_path / "out")


def test_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="new or empty"):
        download("lgg", tmp_path, fetch=lambda handle: tmp_path)

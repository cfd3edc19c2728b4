"""Errors say rule, value and choices; writes happen whole or not at all."""

import json
import pickle
from pathlib import Path

import pytest

from glioflow import atomic
from glioflow.errors import DiskFull, RunFailed, UserError, unknown_name
from glioflow.serving.http.uploads import TooLarge


def test_an_error_is_one_line_of_rule_value_and_choices():
    assert str(UserError("a rule", 3, ["x", "y"])) == "a rule; got 3; choose one of [x, y]"
    assert str(UserError("a rule")) == "a rule"


def test_an_unknown_name_lists_the_choices_sorted():
    assert str(unknown_name("loss", "dise", ["dice", "bce"])) == "unknown loss 'dise'; choose one of [bce, dice]"


@pytest.mark.parametrize("kind", [UserError, TooLarge])
def test_an_error_travels_between_processes_with_its_parts(kind):
    again = pickle.loads(pickle.dumps(kind("a rule", "a value", ["x"])))
    assert (type(again), again.rule, again.value, again.choices) == (kind, "a rule", "a value", ["x"])


def test_a_full_disk_travels_between_processes_with_its_folder(tmp_path):
    again = pickle.loads(pickle.dumps(DiskFull(tmp_path / "not there")))
    assert again.folder == tmp_path / "not there"
    assert str(again).startswith(f"no space left in {again.folder} (")


def test_a_mistake_is_a_value_error_and_a_failed_run_is_not():
    assert issubclass(UserError, ValueError)
    assert not issubclass(RunFailed, ValueError)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    atomic.write_text(path, "old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(atomic.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        atomic.write_text(path, "new")
    assert [found.name for found in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_a_written_file_can_be_read_by_others(tmp_path):
    atomic.write_text(tmp_path / "folder" / "file", "text")
    assert (tmp_path / "folder" / "file").stat().st_mode & 0o777 == 0o644
    with atomic.new_folder(tmp_path / "new"):
        pass
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755


def test_json_without_a_number_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "x.json", {"dice": float("nan")})
    assert not list(tmp_path.iterdir())
    atomic.write_json(tmp_path / "x.json", {"dice": None})
    assert atomic.read_json(tmp_path / "x.json") == json.loads((tmp_path / "x.json").read_text()) == {"dice": None}


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    def interrupted():
        with atomic.new_folder(tmp_path / "out") as working:
            (working / "half").write_text("")
            assert not (tmp_path / "out").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_of_two_that_make_one_folder_the_first_stays(tmp_path):
    def make(text: str, other: Path | None = None):
        with atomic.new_folder(tmp_path / "out") as working:
            (working / "who").write_text(text)
            if other:
                other.mkdir()
                (other / "who").write_text("first")

    make("second", tmp_path / "out")
    assert (tmp_path / "out" / "who").read_text() == "first"
    assert [found.name for found in tmp_path.iterdir()] == ["out"]

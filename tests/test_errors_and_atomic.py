"""Errors say rule, value and choices; writes happen whole or not at all."""

import errno
import io
import json
import pickle
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
import torch
from ray.exceptions import RayTaskError
from ray.train import WorkerGroupError

from glioflow import atomic
from glioflow.errors import (
    COMMAND_LINE,
    DOOR,
    ENDPOINT,
    DiskFull,
    RunFailed,
    TooLarge,
    UserError,
    first_line,
    is_disk_full,
    last_line,
    one_line,
    option,
    unknown_name,
)


@pytest.mark.parametrize(
    ("words", "whole", "first", "last"),
    [
        ("\n a\n\n b  c\n", "a b c", "a", "b  c"),
        ("", "ValueError", "ValueError", "ValueError"),
        ("x" * 999, "x" * 200, "x" * 200, "x" * 999),
    ],
)
def test_the_words_of_a_library_become_one_line_even_where_it_has_none(words, whole, first, last):
    error = ValueError(words)
    assert (one_line(error), first_line(error), last_line(error)) == (whole, first, last)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a rule"), "a rule"),
        (UserError("a rule", 3, ["x", "y"]), "a rule; got 3; choose one of: x, y"),
        (UserError("a rule", "", ["x"]), "a rule; got ''; choose x"),
        (UserError("a model must be NAME@alias, or so", ""), "a model must be NAME@alias, or so; got ''"),
        (UserError("no model is registered", choices=[], hint="register one"), "no model is registered; register one"),
        (UserError("'/x/y' does not exist", "/x/y", hint="give a folder"), "'/x/y' does not exist; give a folder"),
        (UserError("epochs must be at least 10", 1), "epochs must be at least 10; got 1"),
        (UserError("preprocess.0.size must be above 7", 0), "preprocess.0.size must be above 7; got 0"),
        (UserError("hours must be above 0", 0), "hours must be above 0; got 0"),
        (UserError("overlap must be less than 1.0", 1), "overlap must be less than 1.0; got 1"),
        (UserError("a model has no version 3", 3), "a model has no version 3"),
        (
            UserError("an image must be square", (2, 3), file=Path("a/b.tif")),
            "a/b.tif: an image must be square; got (2, 3)",
        ),
        (UserError("a/b.tif is damaged", file=Path("a/b.tif")), "a/b.tif is damaged"),
        (UserError("unknown color", "Rad", ["red"]), "unknown color; got Rad; did you mean red?"),
        (
            unknown_name("loss", "dise", ["dice", "bce"]),
            "unknown loss 'dise'; did you mean dice? Choose one of: bce, dice",
        ),
        (
            unknown_name("loss", "DICE", ["dice", "bce"]),
            "unknown loss 'DICE'; did you mean dice? Choose one of: bce, dice",
        ),
        (unknown_name("loss", "xyz", ["dice", "bce"]), "unknown loss 'xyz'; choose one of: bce, dice"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_is_one_line_that_says_what_is_wrong_what_to_do_and_the_nearest_choice(error, line):
    assert str(error) == line


@pytest.mark.parametrize(
    ("name", "value", "command_line", "python", "endpoint"),
    [
        ("hours", 1, "--hours 1", "hours=1", "hours 1"),
        ("hold_out_test", None, "--hold-out-test", "hold_out_test", "hold_out_test"),
        ("overwrite", True, "--overwrite", "overwrite=True", "overwrite True"),
        ("resume", "ab12", "--resume ab12", 'resume="ab12"', "resume ab12"),
        ("data", "DIR", "--data DIR", "data=DIR", "data DIR"),
        ("hours", 0.5, "--hours 0.5", "hours=0.5", "hours 0.5"),
        ("channel", "t2=SERIES", "--channel t2=SERIES", 'channels=["t2=SERIES"]', "channel t2=SERIES"),
    ],
)
def test_an_option_is_written_as_the_callers_door_takes_it(name, value, command_line, python, endpoint, monkeypatch):
    assert option(name, value) == python
    for door, text in ((COMMAND_LINE, command_line), (ENDPOINT, endpoint)):
        monkeypatch.setenv(DOOR, door)
        assert option(name, value) == text


@pytest.mark.parametrize("kind", [UserError, TooLarge])
def test_an_error_travels_between_processes_with_its_parts(kind):
    error = kind("a rule", "a value", ["x"], hint="do this", file=Path("a/b"))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


def test_an_error_that_is_given_another_rule_keeps_its_kind_and_its_other_parts():
    error = TooLarge("a rule", "a value", ["x"], hint="do this", file=Path("a/b")).replace(rule="in a.yaml: a rule")
    assert isinstance(error, TooLarge)
    assert str(error) == "a/b: in a.yaml: a rule; got a value; do this; choose x"


def test_an_error_in_json_names_its_file_but_not_where_it_lies_and_reads_back_as_the_same_line():
    error = UserError("a rule", "a value", ["x"], hint="do this", file=Path("/home/somebody/b.tif"))
    record = json.loads(json.dumps(error.to_record()))
    assert record["file"] == "b.tif"
    assert str(UserError.from_record(record)) == "b.tif: a rule; got a value; do this; choose x"
    assert str(UserError.from_record({"rule": "r", "value": None, "choices": None})) == "r"


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


def raised_by(block):
    try:
        block()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


class _FullFile(io.BytesIO):
    write = no_space


def fill_a_database():
    database = sqlite3.connect(":memory:")
    database.execute("pragma max_page_count = 2")
    database.execute("create table t (a)")
    database.execute("insert into t values (?)", ("x" * 10000,))


def fill_a_database_through_sqlalchemy():
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.begin() as connection:
        for statement in ("pragma max_page_count = 2", "create table t (a)", f"insert into t values ('{'x' * 10000}')"):
            connection.execute(sqlalchemy.text(statement))


@pytest.mark.parametrize(
    "fill",
    [
        no_space,
        fill_a_database,
        fill_a_database_through_sqlalchemy,
        lambda: torch.save({"a": torch.zeros(3)}, _FullFile()),
    ],
    ids=["system", "sqlite", "sqlalchemy", "torch"],
)
def test_a_full_disk_is_known_whoever_met_it(fill):
    assert is_disk_full(raised_by(fill))


def test_a_full_disk_on_a_worker_is_known_from_what_ray_raises():
    cause = OSError(errno.ENOSPC, "No space left on device")
    task_error = RayTaskError("train", "a traceback", cause)
    assert is_disk_full(task_error.as_instanceof_cause())
    assert is_disk_full(WorkerGroupError("a message", {0: task_error}))


@pytest.mark.parametrize(
    "error",
    [
        UserError("2 GPUs were requested and 1 is available"),
        ValueError("unexpected positional argument"),
        RunFailed("the disk is full of surprises; no space left for doubt"),
        OSError(errno.EIO, "Input/output error"),
    ],
    ids=str,
)
def test_words_that_sound_like_a_full_disk_are_none(error):
    assert not is_disk_full(error)


def test_a_file_that_finds_no_space_is_reported_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.os, "fsync", no_space)
    with pytest.raises(DiskFull, match=f"no space left in {tmp_path} ") as full:
        atomic.write_text(tmp_path / "file", "text")
    assert full.value.folder == tmp_path
    assert not list(tmp_path.iterdir())


def test_a_value_of_megabytes_is_shortened_and_costs_nothing():
    error = UserError("a channel must be given as NAME=SERIES", "\0" * 3_000_000, ["flair", "t2"])
    assert len(str(error)) < 1200
    assert len(error.to_record()["value"]) < 1200

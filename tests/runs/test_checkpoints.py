"""Which checkpoints of a training are whole: by our own marker, or, for those of older versions, by their files."""

import threading
from pathlib import Path

import pytest
import torch

from glioflow.runs.train.checkpoints import DONE, Behind, drop_torn, is_whole, mark_done


def checkpoint(parent: Path, name: str, *, marked: bool) -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    torch.save({"network": torch.rand(100, 100)}, folder / "checkpoint.pt")
    if marked:
        mark_done(folder)
    return folder


def cut(file: Path, *, left: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * left)])


@pytest.mark.parametrize("marked", [True, False], ids=["with our marker", "of an older version"])
def test_a_checkpoint_that_was_cut_off_is_torn(tmp_path, marked):
    folder = checkpoint(tmp_path, "checkpoint_1", marked=marked)
    assert is_whole(folder)
    cut(folder / "checkpoint.pt", left=0.9)
    assert not is_whole(folder)
    (folder / "checkpoint.pt").unlink()
    assert not is_whole(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"checkpoint.pt"'])
def test_a_marker_that_was_cut_off_makes_no_checkpoint_whole(tmp_path, text):
    folder = checkpoint(tmp_path, "checkpoint_1", marked=True)
    (folder / DONE).write_text(text)
    assert not is_whole(folder)


def test_only_torn_checkpoints_are_removed_and_ray_is_not_asked(tmp_path):
    kept = [checkpoint(tmp_path, "checkpoint_1", marked=False), checkpoint(tmp_path, "checkpoint_2", marked=True)]
    torn = [checkpoint(tmp_path, "checkpoint_3", marked=True), tmp_path / "checkpoint_4"]
    cut(torn[0] / "checkpoint.pt", left=0.5)
    torn[1].mkdir()
    (tmp_path / "other").mkdir()
    drop_torn(tmp_path)
    assert all(folder.exists() for folder in [*kept, tmp_path / "other"])
    assert not any(folder.exists() for folder in torn)


def test_one_thing_after_another_is_done_behind_and_a_failure_is_raised_when_it_is_waited_for():
    done, may_end = [], threading.Event()

    def slow():
        assert may_end.wait(30)
        done.append("slow")

    def fail():
        raise OSError("no space left")

    with Behind() as behind:
        behind.begin(slow)
        assert done == []
        may_end.set()
        behind.begin(lambda: done.append("quick"))
        behind.wait()
        assert done == ["slow", "quick"]
        behind.begin(fail)
        with pytest.raises(OSError, match="no space left"):
            behind.wait()
    with pytest.raises(OSError, match="no space left"), Behind() as behind:
        behind.begin(fail)

    def end_of_training():
        with Behind() as behind:
            behind.begin(fail)
            raise KeyError

    with pytest.raises(KeyError):  # why the training ended matters more
        end_of_training()

"""Files of people do not stay behind when a process is killed: the next one removes them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from glioflow.cluster.scratch import clean_up, study_folder

KEEP = """
import sys, time
from glioflow.cluster.scratch import study_folder
with study_folder() as folder:
    open(f"{folder}/patient.tif", "w").close()
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(temporary):
    with study_folder() as own:
        process = subprocess.Popen(
            [sys.executable, "-c", KEEP],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        left = Path(process.stdout.readline().strip())
        assert (left / "patient.tif").exists()
        clean_up()
        assert (left / "patient.tif").exists(), "its process lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (left / "patient.tif").exists()
        clean_up()
        assert not left.exists()
        assert Path(own).exists()


def test_nobody_else_may_look_in(temporary):
    with study_folder() as folder:
        for path in (Path(folder), *Path(folder).parents[:2]):
            assert path.stat().st_mode & 0o077 == 0
    assert not Path(folder).exists()


def test_a_folder_that_the_machine_cleaned_away_is_made_again(temporary):
    with study_folder() as folder:
        own = Path(folder).parent
    shutil.rmtree(own.parent)  # as systemd does with what nobody touched for days
    with study_folder() as folder:
        assert Path(folder).is_dir()


def test_a_clock_that_is_set_takes_no_files_from_a_living_process(temporary, monkeypatch):
    with study_folder() as folder:
        boot = psutil.boot_time()
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 1)
        clean_up()
        assert Path(folder).exists()


def test_a_strangers_folder_keeps_nobody_from_starting(temporary):
    with study_folder() as folder:
        (Path(folder).parents[1] / "not-ours").mkdir()
        clean_up()

"""Whether a process lives, whatever becomes of the clock."""

import os
import subprocess
import sys

import psutil

from glioflow.cluster.processes import began, lives


def test_a_process_lives_until_it_ends():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    since = began(process.pid)
    assert since is not None
    assert lives(process.pid, since)
    process.kill()
    process.wait()
    assert not lives(process.pid, since)
    assert began(process.pid) is None


def test_a_process_of_the_same_number_that_began_at_another_time_is_another():
    assert not lives(os.getpid(), began(os.getpid()) - 60)


def test_a_process_lives_although_the_clock_was_set(monkeypatch):
    since, boot = began(os.getpid()), psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 3600)
    assert lives(os.getpid(), since)

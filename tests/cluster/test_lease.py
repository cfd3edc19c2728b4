"""One driver at a time: who holds a lease, who is refused, and who is replaced."""

import json
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from glioflow.cluster import lease
from glioflow.errors import UserError

SPAWN = multiprocessing.get_context("spawn")


def hold(folder: Path, answers, wait) -> None:
    try:
        with lease.holding(folder, "search s"):
            answers.put("held")
            wait.wait(60)
    except UserError as error:
        answers.put(str(error))


@pytest.fixture
def other_process(tmp_path):
    """Return a process that holds the lease of `tmp_path`."""
    answers, wait = SPAWN.Queue(), SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(tmp_path, answers, wait))
    process.start()
    assert answers.get(timeout=60) == "held"
    yield process
    process.kill()
    process.join()


def test_a_second_driver_is_refused_with_who_holds_it_since_when_to_the_second(tmp_path, other_process):
    who = rf"search s is run by process {other_process.pid} on {socket.gethostname()} since "
    with (
        pytest.raises(UserError, match=who + r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"),
        lease.holding(tmp_path, "search s"),
    ):
        pass


def test_a_killed_driver_is_replaced_at_once(tmp_path, other_process):
    os.kill(other_process.pid, signal.SIGKILL)
    other_process.join()
    with lease.holding(tmp_path, "search s"):
        assert lease.holder_of(tmp_path).pid == os.getpid()
    assert lease.holder_of(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_lease_that_could_not_be_given_back_keeps_its_own_process_from_nothing(tmp_path):
    folder, away = tmp_path / "run", tmp_path / "away"
    with lease.holding(folder, "run r"):
        folder.rename(away)
        folder.write_text("no folder any more")
    folder.unlink()
    away.rename(folder)
    assert list(folder.glob("lease-*.json"))
    with lease.holding(folder, "run r"), pytest.raises(UserError, match="run r is run by process"):
        with lease.holding(folder, "run r"):
            pass
    assert not list(folder.iterdir())


def test_a_driver_is_not_replaced_because_the_clock_was_set(tmp_path, other_process, monkeypatch):
    boot = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 1)
    assert lease.holder_of(tmp_path).pid == other_process.pid


def test_a_driver_in_another_container_of_the_same_host_name_is_not_taken_for_dead(tmp_path):
    left_by_another_host(tmp_path, lease.STALE_S / 2, host=socket.gethostname())
    assert lease.holder_of(tmp_path) is not None


def left_by_another_host(folder: Path, age_s: float, host: str = "node-7") -> None:
    path = folder / "lease-000003.json"
    holder = {"host": host, "pid": os.getpid(), "started": 1.0, "since": "2026-11-27T10:00:00+00:00"}
    path.write_text(json.dumps(holder))
    os.utime(path, (time.time() - age_s,) * 2)


def test_a_driver_on_another_host_is_replaced_once_it_renews_no_more(tmp_path):
    left_by_another_host(tmp_path, lease.STALE_S / 2)
    with pytest.raises(UserError, match="on node-7 since 2026-11-27T10:00:00"), lease.holding(tmp_path, "run r"):
        pass
    left_by_another_host(tmp_path, lease.STALE_S + 1)
    with lease.holding(tmp_path, "run r"):
        assert lease.holder_of(tmp_path).host == socket.gethostname()


def test_of_many_that_come_at_once_one_takes_over(tmp_path):
    left_by_another_host(tmp_path, lease.STALE_S + 1)
    answers, wait = SPAWN.Queue(), SPAWN.Event()
    processes = [SPAWN.Process(target=hold, args=(tmp_path, answers, wait)) for _ in range(4)]
    for process in processes:
        process.start()
    heard = [answers.get(timeout=60) for _ in processes]
    wait.set()
    for process in processes:
        process.join()
    assert heard.count("held") == 1
    assert sum("search s is run by" in each for each in heard) == 3


def test_a_driver_that_slept_and_was_replaced_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lease, "RENEW_S", 0.05)

    def sleep_and_wake():
        with lease.holding(tmp_path, "search s"):
            next(tmp_path.glob("lease-*")).rename(tmp_path / "lease-000009.json")  # as the next holder's would be
            for _ in range(600):
                time.sleep(0.1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of pytest ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            sleep_and_wake()
    finally:
        signal.signal(signal.SIGINT, before)
    assert "search s was taken over" in capsys.readouterr().err


def test_a_lease_is_renewed_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    with lease.holding(tmp_path, "search s"):
        held = next(tmp_path.glob("lease-*"))
        os.utime(held, (1.0, 1.0))
        deadline = time.monotonic() + 30
        while held.stat().st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_disk_without_hard_links_grants_a_lease_to_one_process_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links on this share")

    monkeypatch.setattr(os, "link", refuse)
    with lease.holding(tmp_path, "search s"):
        assert lease.holder_of(tmp_path).pid == os.getpid()
        with pytest.raises(UserError, match="search s is run by"), lease.holding(tmp_path, "search s"):
            pass
    assert not list(tmp_path.iterdir())


def test_other_users_of_a_shared_home_can_read_who_holds_a_lease(tmp_path):
    with lease.holding(tmp_path, "search s"):
        (held,) = tmp_path.glob("lease-*")
        assert held.stat().st_mode & 0o044 == 0o044


def test_a_folder_that_one_may_only_read_says_who_holds_its_lease(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError("read only")

    left_by_another_host(tmp_path, lease.STALE_S / 2)
    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    assert lease.holder_of(tmp_path).host == "node-7"

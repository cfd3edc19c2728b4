"""What surrounds a local Ray: where its sockets go, what it waits for, and to whom Ctrl-C belongs afterwards."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from glioflow import cluster, progress
from glioflow.cluster import connection, starting
from glioflow.cluster.environment import own_names, silence
from glioflow.errors import UserError


@pytest.fixture
def only_tmpdir(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    return monkeypatch


def test_a_short_folder_of_the_users_stays(only_tmpdir, capsys):
    with starting.short_socket_paths():
        assert "TMPDIR" not in os.environ
    only_tmpdir.setenv("RAY_TMPDIR", "/data/scratch")
    with starting.short_socket_paths():
        assert os.environ["RAY_TMPDIR"] == "/data/scratch"
    assert capsys.readouterr().err == ""


def test_the_longest_folder_that_stays_leaves_ray_its_107_bytes(only_tmpdir, capsys):
    session = "session_2026-11-27_06-56-23_123456_4194304/sockets/plasma_store.1"
    longest = "/" + "x" * (107 - len(f"//ray/{session}"))
    only_tmpdir.setenv("TMPDIR", longest)
    with starting.short_socket_paths():
        assert os.environ["TMPDIR"] == longest
    only_tmpdir.setenv("TMPDIR", f"{longest}x")
    with starting.short_socket_paths():
        assert os.environ["TMPDIR"] == "/tmp"
    assert os.environ["TMPDIR"] == f"{longest}x"
    assert capsys.readouterr().err.count("too long a path for Ray's sockets; Ray uses /tmp instead") == 1


def test_where_no_short_folder_can_be_written_to_the_error_says_which_variable_and_how_long(only_tmpdir):
    only_tmpdir.setenv("TMPDIR", "/" + "x" * 200)
    only_tmpdir.setattr(os, "access", lambda *_: False)
    with (
        pytest.raises(UserError, match=r"TMPDIR must have at most 37 bytes.*set RAY_TMPDIR"),
        starting.short_socket_paths(),
    ):
        raise AssertionError("nothing starts")


def test_a_start_that_takes_long_says_what_it_waits_for_and_for_how_long_again_and_again(monkeypatch):
    import ray

    lines: list[str] = []
    told_twice = threading.Event()

    def hear(text: str, part: float | None = None) -> None:
        lines.append(text)
        if len(lines) == 2:
            told_twice.set()

    def slow_start(**_: object) -> None:
        assert told_twice.wait(60), "nothing was said"

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(progress, "WAIT_S", 0.01)
    monkeypatch.setattr(connection, "print_progress", hear)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", slow_start)
    cluster.connect()
    assert lines[0].startswith("waiting for Ray to start on this machine (")
    assert lines[1].startswith("waiting for Ray to start on this machine (")


def test_it_is_said_every_ten_seconds():
    assert progress.WAIT_S == 10


def test_ctrl_c_is_answered_at_once_and_then_does_what_it_did_before():
    said = []

    def say(text, part=None):
        said.append(text)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of pytest ignores it
    try:
        with pytest.raises(KeyboardInterrupt), cluster.announcing_interrupts(say, "stopping"):
            signal.raise_signal(signal.SIGINT)
        assert said == ["stopping"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_does_after_a_block_what_it_did_before_whoever_took_it_inside():
    before = signal.getsignal(signal.SIGINT)
    with cluster.restoring_interrupts():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ValueError, match="it failed"), cluster.restoring_interrupts():  # noqa: PT012
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise ValueError("it failed")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("verbose", ["1", ""])
def test_what_a_training_decided_is_shown_to_those_who_ask_for_logs(verbose):
    script = """
import logging
from glioflow.cluster import silence

for _ in range(2):
    silence()
logging.basicConfig()  # as in a worker of Ray Train
logging.getLogger("glioflow.training.fitting").info("training data on disk")
"""
    environment = {**os.environ, "GLIOFLOW_VERBOSE": verbose}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.count("training data on disk") == len(verbose)


def test_a_few_cases_are_done_here_and_start_no_ray():
    assert list(cluster.map_cases(lambda case: (case, os.getpid()), [3, 1])) == [(3, os.getpid()), (1, os.getpid())]
    assert not cluster.is_connected()


def test_before_the_first_case_is_done_a_line_says_what_is_waited_for(monkeypatch):
    monkeypatch.setattr(progress, "WAIT_S", 0.01)
    heard, said = [], threading.Event()

    def say(text, part=None):
        heard.append((text, part))
        said.set()

    assert list(cluster.map_cases(lambda case: said.wait(30), [1, 2], say=say)) == [True, True]
    assert heard[0] == ("waiting for the first of 2 cases (0 s so far)", None)
    assert [part for _, part in heard if part is not None] == [0.5, 1]


@pytest.mark.parametrize(("listens_on", "set_to"), [("127.0.0.1", "0"), ("0.0.0.0", None)])
def test_a_local_cluster_of_another_command_is_joined_on_loopback_and_one_of_several_nodes_is_not(
    monkeypatch, listens_on, set_to
):
    if all(name.startswith(("127.", "localhost", ":")) or not name[0].isdigit() for name in own_names()):
        pytest.skip("this machine has no address but loopback")
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with socket.socket() as head:
        head.bind((listens_on, 0))
        head.listen()
        monkeypatch.setattr(os, "environ", {"RAY_ADDRESS": f"127.0.0.1:{head.getsockname()[1]}"})
        silence()
    assert os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == set_to


@pytest.mark.parametrize(
    ("named", "found", "joined"),
    [
        ("auto", "127.0.0.1:6379", "127.0.0.1:6379"),
        ("local", None, None),
        ("", None, None),
        (" 10.1.2.3:6379 ", None, "10.1.2.3:6379"),
    ],
)
def test_the_address_of_a_cluster_is_what_it_is_to_ray(monkeypatch, named, found, joined):
    monkeypatch.setenv("RAY_ADDRESS", named)
    monkeypatch.setattr(connection, "find_cluster", lambda: found)
    assert connection._address() == joined
    assert connection.joins() == (joined is not None)


def test_auto_without_a_cluster_is_refused_at_once(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(connection, "find_cluster", lambda: None)
    with pytest.raises(UserError, match=r"no Ray cluster answers at RAY_ADDRESS auto \(none runs on this machine\)"):
        connection._address()


def test_ray_starts_where_no_home_can_be_made_for_what_needs_none(monkeypatch):
    started = []
    monkeypatch.setattr(connection, "_start", lambda *given: started.append(given))
    for name in ("GLIOFLOW_HOME", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir("/proc")  # where not even root can make a folder
    connection.connect()
    assert started

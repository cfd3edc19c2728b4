"""Records of a run are sent in as few calls as it takes, and none is lost or told late."""

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glioflow.tracking import RunWriter
from glioflow.tracking.run import Opening, Run, begin_run, spool_of
from glioflow.tracking.spool import Metrics, Tags, append_to_spool, send_all


@pytest.fixture
def batches(tracking: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Return what every call of `log_batch` had, as it is made."""
    found: list[dict[str, int]] = []
    client = type(tracking.client)
    log_batch = client.log_batch

    def counting(self: Any, run_id: str, **items: Any) -> None:
        found.append({name: len(values) for name, values in items.items() if values})
        log_batch(self, run_id, **items)

    monkeypatch.setattr(client, "log_batch", counting)
    return found


def test_metrics_and_tags_that_follow_each_other_go_in_one_call(tracking: Any, batches: list[Any]) -> None:
    run_id = tracking.start("together", "one", tags={})
    records = [Metrics(metrics={"val/dice": k / 10, "bad": float("nan")}, step=k, when_ms=1000 + k) for k in range(3)]
    send_all([*records, Tags(tags={"a": "b"})], tracking, run_id)
    assert batches == [{"metrics": 3, "tags": 1}]
    assert tracking.metric_history(run_id, "val/dice") == [0.0, 0.1, 0.2]
    assert tracking.run(run_id).data.tags["a"] == "b"


def test_more_than_mlflow_takes_at_once_arrives_in_several_calls(tracking: Any, batches: list[Any]) -> None:
    run_id = tracking.start("together", "many", tags={})
    tracking.log_params(run_id, {f"p{k}": k for k in range(250)})
    tracking.log_metrics(run_id, {f"m{k}": float(k) for k in range(900)})
    assert batches == [{"params": 100}, {"params": 100}, {"params": 50}, {"metrics": 800}, {"metrics": 100}]
    logged = tracking.run(run_id).data
    assert (len(logged.params), len(logged.metrics)) == (250, 900)


def test_epochs_of_a_busy_moment_go_with_the_next_record(tracking: Any, batches: list[Any]) -> None:
    run_id = begin_run(tracking, Opening("trial", "together", "t", "p", params={"a": {"b": 1}}), later=True)
    assert tracking.run(run_id).data.params == {}
    with Run(tracking.uri, run_id, spool_of(run_id), tracking=tracking, every_s=1000) as run:
        for step in range(3):
            run.write({"val/dice": step / 10}, step=step)
        assert batches == []
        run.log_metrics({"val/dice_mean": 0.5})
        assert len(batches) == 1
    logged = tracking.run(run_id)
    assert (logged.info.status, logged.data.params) == ("FINISHED", {"a.b": "1"})
    assert tracking.metric_history(run_id, "val/dice") == [0.0, 0.1, 0.2]


def test_epochs_are_sent_at_once_where_nothing_was_for_long(tracking: Any, batches: list[Any]) -> None:
    run_id = tracking.start("together", "slow", tags={})
    writer = RunWriter(tracking.uri, run_id, spool_of(run_id))
    for step in range(2):
        writer.write({"val/dice": 0.5}, step=step)
    assert len(batches) == 2


def test_a_trial_that_dies_at_once_leaves_its_parameters_to_whoever_goes_on(tracking: Any) -> None:
    run_id = begin_run(tracking, Opening("trial", "together", "t", "p", params={"a": 1}), later=True)
    RunWriter(tracking.uri, run_id, spool_of(run_id)).close()
    assert tracking.run(run_id).data.params == {"a": "1"}


class Broken(http.server.BaseHTTPRequestHandler):
    """A server that speaks, and refuses everything."""

    calls: list[str]

    def do_GET(self) -> None:
        self.calls.append(self.path)
        self.send_response(400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def broken() -> Iterator[tuple[str, list[str]]]:
    """Give the address of a server that refuses what it is asked, and what it was asked."""
    Broken.calls = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Broken.calls
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_writer_asks_whether_anybody_answers_only_after_a_failure(
    broken: tuple[str, list[str]], tmp_path: Path, tracking: Any
) -> None:
    uri, calls = broken
    spool = tmp_path / "run" / "spool.jsonl"
    writer = RunWriter(uri, "0" * 32, spool)
    writer._reached = True  # as after a record that arrived
    before = dict(os.environ)
    writer.log_metrics({"a": 1.0})
    assert calls == ["/api/2.0/mlflow/runs/log-batch"]
    writer.log_metrics({"a": 2.0})
    question, again = calls[1:]
    assert (question.partition("?")[0], again) == ("/api/2.0/mlflow/experiments/search", calls[0])
    assert os.environ == before
    append_to_spool(spool, Tags(tags={"kept": "x"}))
    assert len(spool.read_text().splitlines()) == 3

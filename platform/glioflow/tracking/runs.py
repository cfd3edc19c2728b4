"""A tracking store and its runs: parameters, metrics, tags, artifacts; nothing about the registry."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glioflow.atomic import check_folder
from glioflow.clock import now_ms
from glioflow.cluster import silence
from glioflow.cluster.logins import without_password
from glioflow.cluster.remote_home import check_home
from glioflow.cluster.storage import embedded_uri, home, tracking_uri
from glioflow.errors import UserError, first_line
from glioflow.tracking.addresses import check_address, check_writable
from glioflow.tracking.artifacts import Artifacts
from glioflow.tracking.datasets import Dataset
from glioflow.tracking.entities import as_metrics, as_params, as_tags
from glioflow.tracking.moved_home import mend_addresses

# Most items that MLflow returns in one call.
_PAGE = 1000
# Most metrics, parameters and tags that MLflow accepts in one call.
_MOST_AT_ONCE = (800, 100, 100)
# Without it, MLflow's page shows an experiment as one about language models, and its runs as their evaluations.
_KIND = {"mlflow.experimentKind": "custom_model_development"}


def _let_mlflow_log(level: int) -> None:
    for name in ("alembic", "mlflow", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(level)


class Runs(Artifacts):
    """A tracking server or database, with its operations on runs."""

    def __init__(self, uri: str | None = None, *, patience_s: float = 0, ask: bool = True) -> None:
        """Open the store at `uri`, by default MLFLOW_TRACKING_URI or SQLite under the home.

        Args:
            uri: URI of a server or a database.
            patience_s: How long to wait for a store that does not answer; 0 asks once.
            ask: Whether to check now that it answers; else the first call does.

        Raises:
            UserError: If no store answers.
        """
        silence()
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # printed at a run's end, after a call
        self.uri = uri or tracking_uri()
        if self.embedded:
            check_home(for_runs=False)
        if self.uri.startswith("sqlite:///"):
            folder = Path(self.uri.removeprefix("sqlite:///")).parent
            if not folder.is_dir():
                check_folder(folder, "MLFLOW_TRACKING_URI")
                folder.mkdir(parents=True, exist_ok=True)
        if ask:
            check_address(self.uri, patience_s=patience_s)
        if self.embedded:
            mend_addresses()
        from mlflow import MlflowClient

        _let_mlflow_log(logging.CRITICAL)  # what goes wrong here becomes one line; importing mlflow sets its own level
        self._experiments: dict[str, str] = {}  # ids by name, as others know them
        try:
            super().__init__(MlflowClient(self.uri), self.uri)
            if ask:
                self.client.search_experiments(max_results=1)
        except Exception as error:  # MLflow's own, or the database driver's
            raise _unusable_store(self.shown, error) from None
        finally:
            _let_mlflow_log(logging.WARNING)

    @property
    def shown(self) -> str:
        """The address without user name and password, for messages."""
        return without_password(self.uri)

    @property
    def embedded(self) -> bool:
        """Whether this is the home's own store, which only this home uses."""
        return self.uri == embedded_uri()

    def experiment(self, name: str) -> str:
        """Return the id of the MLflow experiment `name`, creating it if it does not exist."""
        return self._experiments.get(name) or self._find_experiment(name)

    def know_experiment(self, name: str, experiment_id: str) -> None:
        """Set the known id of an experiment."""
        self._experiments[name] = experiment_id

    def _find_experiment(self, name: str) -> str:
        entry = self.client.get_experiment_by_name(name)
        if entry is None:
            # Without a server, the default artifact folder depends on the working folder, which differs in workers.
            local = None if self.uri.startswith("http") else (home() / "artifacts" / name).as_uri()
            try:
                return str(self.client.create_experiment(name, artifact_location=local, tags=_KIND))
            except self._error:
                entry = self.client.get_experiment_by_name(name)
                if entry is None:
                    raise
        if entry.lifecycle_stage != "active":
            self.client.restore_experiment(entry.experiment_id)
        return str(entry.experiment_id)

    def start(self, experiment: str, name: str, *, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Start a run (a child of `parent`, if given) and return its id.

        Raises:
            UserError: If the store is a file that cannot be written to.
        """
        check_writable(self.uri)
        all_tags = {**tags, **({"mlflow.parentRunId": parent} if parent else {})}
        run = self.client.create_run(self.experiment(experiment), run_name=name, tags=all_tags)
        run_id = str(run.info.run_id)
        self._addresses[run_id] = str(run.info.artifact_uri)
        return run_id

    def log_batch(
        self, run_id: str, metrics: Sequence[Any] = (), params: Sequence[Any] = (), tags: Sequence[Any] = ()
    ) -> None:
        """Log MLflow's `Metric`s, `Param`s and `RunTag`s in as few calls as possible."""
        rest = [list(metrics), list(params), list(tags)]
        while any(rest):
            some = [each[:most] for each, most in zip(rest, _MOST_AT_ONCE, strict=True)]
            rest = [each[most:] for each, most in zip(rest, _MOST_AT_ONCE, strict=True)]
            self.client.log_batch(run_id, metrics=some[0], params=some[1], tags=some[2])

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters, nested ones under dotted names; logging the same ones again is no error."""
        self.log_batch(run_id, params=as_params(params))

    def log_metrics(
        self, run_id: str, metrics: Mapping[str, float | None], *, step: int = 0, when_ms: int | None = None
    ) -> None:
        """Log the metrics that are finite numbers, in one call, as of `when_ms` (by default now)."""
        self.log_batch(run_id, metrics=as_metrics(metrics, step=step, when_ms=when_ms or now_ms()))

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self.log_batch(run_id, tags=as_tags(tags))

    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        """Log a data set that the run used, by which MLflow finds all runs on the same one."""
        from mlflow import entities

        source, facts = json.dumps({"uri": dataset.source}), json.dumps(dict(dataset.facts))
        kind = "uri" if "://" in dataset.source else "local"
        entity = entities.Dataset(dataset.name, dataset.digest[:36], kind, source, None, facts)
        self.client.log_inputs(
            run_id, [entities.DatasetInput(entity, [entities.InputTag("mlflow.data.context", dataset.used_for)])]
        )

    def finish(self, run_id: str, status: str = "FINISHED", *, when_ms: int | None = None) -> None:
        """Close a run (`FINISHED`, `FAILED` or `KILLED`) as of `when_ms`, by default now."""
        self.client.set_terminated(run_id, status, when_ms)

    def reopen(self, run_id: str) -> None:
        """Mark a run as running again."""
        self.client.update_run(run_id, status="RUNNING")

    def run(self, run_id: str) -> Any:
        """Return MLflow's run.

        Raises:
            UserError: If no run has this id.
        """
        try:
            run = self.client.get_run(run_id)
        except self._error:
            if not re.fullmatch("[0-9a-f]{32}", run_id):
                rule, hint = (
                    "a run must be given by its id",
                    "`glioflow train` prints it, such as 4f0c..., and MLflow lists it",
                )
                raise UserError(rule, run_id, hint=hint) from None
            hint = "look up the id in MLflow; GLIOFLOW_HOME or MLFLOW_TRACKING_URI names the store"
            raise UserError(f"no run has the id {run_id} at {self.shown}", hint=hint) from None
        self._addresses[run_id] = str(run.info.artifact_uri)
        return run

    def metric_history(self, run_id: str, key: str) -> list[float]:
        """Return a metric's values by step."""
        history = self.client.get_metric_history(run_id, key)
        return [float(entry.value) for entry in sorted(history, key=lambda entry: entry.step)]

    def metric_steps(self, run_id: str, key: str) -> dict[int, float]:
        """Return a metric's last value at each step, by step."""
        history = self.client.get_metric_history(run_id, key)
        last = {int(entry.step): float(entry.value) for entry in sorted(history, key=lambda each: each.timestamp)}
        return dict(sorted(last.items()))

    def every_run(self) -> list[Any]:
        """Return all runs of all experiments that were not deleted."""
        ids = [experiment.experiment_id for experiment in every(self.client.search_experiments)]
        runs = list(every(self.client.search_runs, ids)) if ids else []
        self._addresses.update({str(run.info.run_id): str(run.info.artifact_uri) for run in runs})
        return runs

    def open_runs(self, experiment: str) -> list[Any]:
        """Return the open runs of `experiment`."""
        return list(
            self.client.search_runs([self.experiment(experiment)], "attributes.status = 'RUNNING'", max_results=5000)
        )

    def children(self, experiment: str, parent: str) -> list[Any]:
        """Return the child runs of `parent`, newest first."""
        query = f"tags.`mlflow.parentRunId` = '{parent}'"
        return list(every(self.client.search_runs, [self.experiment(experiment)], query))

    def best_children(self, experiment: str, parent: str, metric: str, most: int) -> list[Any]:
        """Return the finished child runs of `parent` with the highest `metric`, best first, `most` at most."""
        query = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'FINISHED'"
        order = [f"metrics.`{metric}` DESC"]
        runs = self.client.search_runs([self.experiment(experiment)], query, order_by=order, max_results=most)
        return list(runs)

    def children_with(self, experiment: str, parent: str, tag: str) -> list[Any]:
        """Return the child runs of `parent` that have a tag, newest first."""
        query = f"tags.`mlflow.parentRunId` = '{parent}' and tags.`{tag}` LIKE '%'"
        return list(every(self.client.search_runs, [self.experiment(experiment)], query))

    def find_all(self, experiment: str, **tags: str) -> list[Any]:
        """Return the runs of `experiment` that have these tags, newest first."""
        return list(every(self.client.search_runs, [self.experiment(experiment)], _with(tags)))

    def find(self, experiment: str, **tags: str) -> Any | None:
        """Return the newest run of `experiment` that has these tags, or None."""
        return next(iter(self.client.search_runs([self.experiment(experiment)], _with(tags), max_results=1)), None)


def every(search: Callable[..., Any], *words: Any) -> Iterator[Any]:
    """Yield all results of an MLflow search, page by page, since a single call returns only the first page."""
    token = None
    while True:
        page = search(*words, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _unusable_store(shown: str, error: Exception) -> UserError:
    """Return the error for a store that answers, and that MLflow cannot use."""
    text = first_line(getattr(error, "orig", None) or error).removesuffix(".")
    if "out-of-date database schema" in text:
        text = text.partition(". ")[0]
        hint = "install the version of MLflow that wrote it; or, where that is older, save a copy of the database and "
        hint += "run `mlflow db upgrade` with its address"
    elif "locked" in text:
        hint = "end the process that holds it, or wait for it"
    elif "malformed" in text:
        hint = "restore the file from a copy"
    else:
        hint = "look at the store's log; its version may be another than that of the installed MLflow"
    return UserError("MLFLOW_TRACKING_URI must name a store that MLflow can read", f"{shown}: {text}", hint=hint)


def _with(tags: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())

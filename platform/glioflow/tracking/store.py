"""A tracking store: runs, artifacts, registry. The only importer of mlflow."""

import contextlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glioflow import atomic
from glioflow.cluster import silence
from glioflow.config.places import home, tracking_uri
from glioflow.errors import UserError

BUNDLE = "bundle"
CHAMPION = "champion"
_RUN_ID = re.compile(r"^(?:runs:/)?(?P<run>[0-9a-f]{32})(?:/bundle)?$")
_VERSION = re.compile(r"^(?:models:/)?(?P<name>[^/@:]+)(?:@(?P<alias>[^/@:]+)|/(?P<version>\d+))?$")
_MAX_PARAM = 6000


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: Of the registered model.
        version: Counted from 1.
        run_id: The run that made it.
        aliases: Such as `champion`.
        tags: Of the version.
        source: Where its bundle lies.
    """

    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    source: str


class Tracking:
    """A tracking server or database, and what we say to it."""

    def __init__(self, uri: str | None = None, *, patience_s: float = 20) -> None:
        """Open the store at `uri`, by default MLFLOW_TRACKING_URI or SQLite under the home.

        Args:
            uri: Of a server or a database.
            patience_s: How long a server that does not answer is waited for.

        Raises:
            UserError: If nothing answers there.
        """
        silence()
        self.uri = uri or tracking_uri()
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        for name in ("alembic", "mlflow", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._error = MlflowException
        self._scratch = tempfile.TemporaryDirectory(prefix="glioflow-")
        if not answers(self.uri, patience_s=patience_s):
            raise UserError("MLFLOW_TRACKING_URI must name a reachable store", f"{self.uri}, where nobody answers")
        try:
            self.client = MlflowClient(self.uri)
            self.client.search_experiments(max_results=1)
        except MlflowException as error:
            reason = str(error).splitlines()[0]
            raise UserError("MLFLOW_TRACKING_URI must name a reachable store", f"{self.uri}: {reason}") from None

    # Runs

    def experiment(self, name: str) -> str:
        """Return the id of the MLflow experiment `name`, making it where it does not exist."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            # Without a server the artifacts' default place depends on the working folder, which differs in workers.
            local = None if self.uri.startswith("http") else (home() / "artifacts" / name).as_uri()
            try:
                return str(self.client.create_experiment(name, artifact_location=local))
            except self._error:
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def start(self, experiment: str, name: str, *, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Start a run (a child of `parent`, if given) and return its id."""
        said = {**tags, **({"mlflow.parentRunId": parent} if parent else {})}
        run = self.client.create_run(self.experiment(experiment), run_name=name, tags=said)
        return str(run.info.run_id)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters, nested ones under dotted names; repeating the same ones is no error."""
        from mlflow.entities import Param

        flat = [Param(key, _text(value)[:_MAX_PARAM]) for key, value in flatten(params).items()]
        for first in range(0, len(flat), 100):
            self.client.log_batch(run_id, params=flat[first : first + 100])

    def log_metrics(
        self, run_id: str, metrics: Mapping[str, float | None], *, step: int = 0, when_ms: int | None = None
    ) -> None:
        """Log the metrics that are finite numbers, in one call, as of `when_ms` (by default now)."""
        from mlflow.entities import Metric

        now = when_ms or now_ms()
        batch = [Metric(k, float(v), now, step) for k, v in metrics.items() if v is not None and abs(v) < float("inf")]
        self.client.log_batch(run_id, metrics=batch)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_folder(self, run_id: str, path: Path, *, folder: str) -> None:
        """Log a folder's files below the artifact folder `folder`."""
        self.client.log_artifacts(run_id, str(path), folder)

    def log_json(self, run_id: str, name: str, value: Any) -> None:
        """Log `value` as the JSON artifact `name`."""
        self.client.log_text(run_id, json.dumps(value, indent=1), name)

    def log_text(self, run_id: str, name: str, text: str) -> None:
        """Log `text` as the artifact `name`."""
        self.client.log_text(run_id, text, name)

    def log_bytes(self, run_id: str, name: str, content: bytes) -> None:
        """Log `content` as the artifact `name`, which may lie in folders."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            self.client.log_artifact(run_id, str(path), str(Path(name).parent) if "/" in name else None)

    def finish(self, run_id: str, status: str = "FINISHED") -> None:
        """Close a run: `FINISHED`, `FAILED` or `KILLED`."""
        self.client.set_terminated(run_id, status)

    def reopen(self, run_id: str) -> None:
        """Mark a run as running again."""
        self.client.update_run(run_id, status="RUNNING")

    def run(self, run_id: str) -> Any:
        """Return MLflow's run.

        Raises:
            UserError: If there is none of this id.
        """
        try:
            return self.client.get_run(run_id)
        except self._error:
            raise UserError("a run of this id must exist", f"{run_id} at {self.uri}") from None

    def metric_history(self, run_id: str, key: str) -> list[float]:
        """Return a metric's values by step."""
        history = self.client.get_metric_history(run_id, key)
        return [float(entry.value) for entry in sorted(history, key=lambda entry: entry.step)]

    def children(self, experiment: str, parent: str) -> list[Any]:
        """Return the child runs of `parent`, newest first."""
        query = f"tags.`mlflow.parentRunId` = '{parent}'"
        return list(self.client.search_runs([self.experiment(experiment)], query, max_results=5000))

    def find_all(self, experiment: str, **tags: str) -> list[Any]:
        """Return the runs of `experiment` that have these tags, newest first."""
        query = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
        return list(self.client.search_runs([self.experiment(experiment)], query, max_results=5000))

    def find(self, experiment: str, **tags: str) -> Any | None:
        """Return the newest run of `experiment` that has these tags, or None."""
        return next(iter(self.find_all(experiment, **tags)), None)

    def read_json(self, run_id: str, name: str) -> Any:
        """Return a JSON artifact of a run.

        Raises:
            UserError: If the run has no such artifact.
        """
        return json.loads(self.download(f"runs:/{run_id}/{name}").read_text())

    def has_artifact(self, run_id: str, name: str) -> bool:
        """Say whether a run has the top-level artifact `name`."""
        return any(found.path == name for found in self.client.list_artifacts(run_id))

    def download(self, uri: str) -> Path:
        """Fetch an artifact (a file or a folder) and return where it lies, for as long as this object lives.

        Raises:
            UserError: If it is not there.
        """
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        target = tempfile.mkdtemp(dir=self._scratch.name)
        try:
            found = mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=self.uri, dst_path=target)
        except (MlflowException, OSError) as error:
            raise UserError("an artifact of this name must exist", f"{uri}: {str(error).splitlines()[0]}") from None
        return Path(found)

    # Registry

    def register(self, name: str, run_id: str, folder: Path, *, tags: Mapping[str, str]) -> Version:
        """Store a bundle with its run and make it the next version of `name`.

        Args:
            name: Of the registered model; made where it does not exist.
            run_id: The run that the bundle came from.
            folder: The bundle.
            tags: Of the version.
        """
        _check_name(name)
        with contextlib.suppress(self._error):
            self.client.create_registered_model(name)
        place = f"registered/{name}-{now_ms()}"
        self.log_folder(run_id, folder, folder=place)
        source = f"{self.run(run_id).info.artifact_uri.rstrip('/')}/{place}"
        made = self.client.create_model_version(name, source, run_id, tags=dict(tags), await_creation_for=0)
        return self._version(made)

    def versions(self, name: str) -> list[Version]:
        """Return all versions of `name`, newest first."""
        _check_name(name)
        found = self.client.search_model_versions(f"name = '{name}'")  # says nothing of aliases
        aliases = self.client.get_registered_model(name).aliases if found else {}
        versions = [self._version(entry, [a for a, v in aliases.items() if v == entry.version]) for entry in found]
        return sorted(versions, key=lambda version: -version.version)

    def names(self) -> list[str]:
        """Return the names of all registered models."""
        return sorted(model.name for model in self.client.search_registered_models())

    def version(self, name: str, *, alias: str | None = None, number: int | None = None) -> Version:
        """Return one version, by alias (default `champion`) or number.

        Raises:
            UserError: If it does not exist.
        """
        try:
            if number is not None:
                return self._version(self.client.get_model_version(name, str(number)))
            return self._version(self.client.get_model_version_by_alias(name, alias or CHAMPION))
        except self._error:
            said = f"{name}/{number}" if number is not None else f"{name}@{alias or CHAMPION}"
            raise UserError("no such model version", said, self.names()) from None

    def champion(self, name: str) -> Version | None:
        """Return the champion of `name`, or None."""
        try:
            return self._version(self.client.get_model_version_by_alias(name, CHAMPION))
        except self._error:
            return None

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Let `alias` mean this version from now on."""
        self.client.set_registered_model_alias(name, alias, str(version))

    def find_bundle(self, model: str) -> tuple[Path, Version | None]:
        """Find the bundle that a user means.

        Args:
            model: A bundle's folder, a run (`RUN_ID`, `runs:/RUN_ID/bundle`), or a registered model (`NAME`,
                `NAME@alias`, `models:/NAME@alias`, `models:/NAME/3`).

        Returns:
            The bundle's folder on this machine, and its version where it is a registered one.

        Raises:
            UserError: If nothing of that name exists.
        """
        if (Path(model) / "model.json").is_file():
            return Path(model), None
        if match := _RUN_ID.match(model):
            self.run(match["run"])
            return self.download(f"runs:/{match['run']}/{BUNDLE}"), None
        match = _VERSION.match(model)
        if match is None:
            raise UserError("a model is a bundle's folder, a run id, NAME@alias or models:/NAME/3", model)
        number = int(match["version"]) if match["version"] else None
        version = self.version(match["name"], alias=match["alias"], number=number)
        return self.download(version.source), version

    def fetch_bundle(self, version: Version, place: Path) -> None:
        """Put the bundle of a version at `place`, whole or not at all."""
        found = self.download(version.source)
        with atomic.new_folder(place) as working:
            shutil.copytree(found, working, dirs_exist_ok=True)

    def _version(self, entry: Any, aliases: Sequence[str] | None = None) -> Version:
        named = tuple(sorted(aliases if aliases is not None else entry.aliases or ()))
        return Version(entry.name, int(entry.version), entry.run_id, named, dict(entry.tags), entry.source)


def answers(uri: str, *, patience_s: float) -> bool:
    """Say whether anything speaks HTTP at `uri`; databases are asked by MLflow itself."""
    import time

    import requests

    if not uri.startswith("http"):
        return True
    deadline = time.monotonic() + patience_s
    while True:
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=5)
            return True
        except requests.RequestException:
            if time.monotonic() >= deadline:
                return False
            time.sleep(1)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", name):
        raise UserError("a model's name is letters, digits, '.', '_' and '-'", repr(name))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def now_ms() -> int:
    """Return the time in milliseconds since 1970, as MLflow counts it."""
    import time

    return int(time.time() * 1000)

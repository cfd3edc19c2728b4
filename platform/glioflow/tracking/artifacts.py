"""Writing, reading and removing artifacts of runs."""

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glioflow.errors import UserError, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

_OF_RUN = re.compile(r"runs:/([0-9a-f]{32})/(.+)")


class Artifacts:
    """The artifacts of the runs of one tracking store."""

    def __init__(self, client: "MlflowClient", uri: str) -> None:
        """Use MLflow's client of the store at `uri`."""
        from mlflow.exceptions import MlflowException

        self.client, self.uri, self._error = client, uri, MlflowException
        self._scratch: tempfile.TemporaryDirectory[str] | None = None  # a killed process leaves it behind
        self._addresses: dict[str, str] = {}  # artifact addresses of runs that were started, read or listed here

    def log_picture(self, run_id: str, path: str | Path, *, key: str, step: int, when_ms: int) -> None:
        """Log a PNG as the picture `key` of a step, which MLflow shows with a slider; repeated calls log it once.

        Args:
            run_id: The run.
            path: The picture.
            key: Name shown, the same at all steps.
            step: Step as for metrics.
            when_ms: Milliseconds since 1970.
        """
        from glioflow.tracking.mlflow_internals import log_picture

        log_picture(self.client, run_id, Path(path), key=key, step=step, when_ms=when_ms)

    def log_folder(self, run_id: str, path: str | Path, *, folder: str) -> None:
        """Log a folder's files below the artifact folder `folder`."""
        if run_id in self._addresses:
            self._artifacts_of(run_id).log_artifacts(str(path), folder)
        else:
            self.client.log_artifacts(run_id, str(path), folder)

    def log_json(self, run_id: str, name: str, value: Any) -> None:
        """Log `value` as the JSON artifact `name`."""
        self.log_text(run_id, name, json.dumps(value, indent=1))

    def log_text(self, run_id: str, name: str, text: str) -> None:
        """Log `text` as the artifact `name`."""
        self.log_bytes(run_id, name, text.encode())

    def log_bytes(self, run_id: str, name: str, content: bytes) -> None:
        """Log `content` as the artifact `name`, which may contain folders."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            self.log_file(run_id, path, name=name)

    def log_file(self, run_id: str, path: str | Path, *, name: str) -> None:
        """Log a file as the artifact `name`, which has the file's extension."""
        folder = str(Path(name).parent) if "/" in name else None
        if run_id in self._addresses:
            self._artifacts_of(run_id).log_artifact(str(path), folder)
        else:
            self.client.log_artifact(run_id, str(path), folder)

    def _artifacts_of(self, run_id: str) -> Any:
        """Return the store of a run's artifacts, using a cached address."""
        from glioflow.tracking.mlflow_internals import artifact_store

        return artifact_store(self._addresses[run_id], tracking_uri=self.uri)

    def read_json(self, run_id: str, name: str) -> Any:
        """Return a JSON artifact of a run.

        Raises:
            UserError: If the run has no such artifact.
        """
        return json.loads(self.download(f"runs:/{run_id}/{name}").read_text())

    def has_artifact(self, run_id: str, name: str) -> bool:
        """Say whether a run has the top-level artifact `name`."""
        return any(entry.path == name for entry in self._entries_in(run_id))

    def _entries_in(self, run_id: str, folder: str | None = None) -> list[Any]:
        """Return a run's artifacts in a folder; for a known run, skip the tracking store's five queries."""
        if run_id in self._addresses:
            return list(self._artifacts_of(run_id).list_artifacts(folder))
        return list(self.client.list_artifacts(run_id, folder))

    def delete_artifact(self, run_id: str, name: str) -> None:
        """Remove a run's artifact, a file or a folder."""
        from glioflow.tracking.mlflow_internals import artifact_store

        address = self.client.get_run(run_id).info.artifact_uri
        artifact_store(address, tracking_uri=self.uri).delete_artifacts(name)

    def artifact_size(self, run_id: str, folder: str) -> int:
        """Return the bytes of all files below an artifact folder of a run."""
        entries = self._entries_in(run_id, folder)
        return sum(self.artifact_size(run_id, e.path) if e.is_dir else int(e.file_size or 0) for e in entries)

    def download(self, uri: str, *, into: str | None = None) -> Path:
        """Fetch an artifact (file or folder), and return its path: in `into`, or in a folder removed with this object.

        Raises:
            UserError: If it does not exist.
        """
        import mlflow.artifacts

        if into is None:
            self._scratch = self._scratch or tempfile.TemporaryDirectory(prefix="glioflow-")
            into = tempfile.mkdtemp(dir=self._scratch.name)
        known = _OF_RUN.fullmatch(uri)
        address = f"{self._addresses[known[1]]}/{known[2]}" if known and known[1] in self._addresses else uri
        try:
            path = mlflow.artifacts.download_artifacts(artifact_uri=address, tracking_uri=self.uri, dst_path=into)
        except (self._error, OSError) as error:
            hint = "check that the run wrote it and that the artifact store is reachable"
            raise UserError(f"the artifact {uri} cannot be downloaded ({first_line(error)})", hint=hint) from None
        return Path(path)

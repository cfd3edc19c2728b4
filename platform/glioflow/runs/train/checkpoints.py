"""Checkpoints stored by Ray Train and written by a thread, each with our own marker when it is complete."""

import json
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.train
from ray.train import CheckpointUploadMode

from glioflow import atomic
from glioflow.cluster.remote_home import withdraw
from glioflow.cluster.storage import home
from glioflow.tracking.spool import run_folder, spools_of

if TYPE_CHECKING:
    from glioflow.training.checkpoints import Checkpoint

# Names and sizes of the other files of a checkpoint, written after them.
DONE = "done.json"


def mark_done(folder: Path) -> None:
    """Write the marker of a finished checkpoint, before Ray Train copies the folder to its storage."""
    atomic.write_json(folder / DONE, {file.name: file.stat().st_size for file in sorted(folder.iterdir())})


def is_whole(folder: Path) -> bool:
    """Return whether every file that the marker lists is there in full.

    Older versions wrote no marker. Their checkpoints are whole where PyTorch's files are: each is a zip archive, whose
    table of contents comes last.
    """
    marker = folder / DONE
    if not marker.exists():
        files = list(folder.glob("*.pt"))
        return bool(files) and all(zipfile.is_zipfile(file) for file in files)
    try:
        sizes: dict[str, int] = json.loads(marker.read_bytes())
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def drop_torn(folder: Path) -> None:
    """Remove the checkpoints of one training that are not whole: a full disk leaves the last one half-written."""
    for checkpoint in folder.glob("checkpoint_*/"):
        if not is_whole(checkpoint):
            shutil.rmtree(checkpoint, ignore_errors=True)


class Behind:
    """Runs tasks one after another in a thread while a training continues; `wait` raises the error of a failed one.

    A `with` block waits for them at its end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._begun: list[Future[None]] = []

    def begin(self, work: Callable[[], None]) -> None:
        """Do something as soon as all that was begun before is done."""
        self._begun.append(self._thread.submit(work))

    def wait(self) -> None:
        """Wait for all that was begun, and raise what it raised."""
        begun, self._begun = self._begun, []
        for each in begun:
            each.result()

    def __enter__(self) -> "Behind":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self.wait()


class Stored:
    """Gives reports and checkpoints to Ray Train, whose own thread writes them while the training continues.

    Reports come in order, and the next one waits until the last checkpoint is stored. Ray Train ends a training whose
    checkpoint could not be stored, and waits for the last one.
    """

    def __init__(self, before: Callable[[], None]) -> None:
        """Take what the thread does before it writes a checkpoint: what is logged of its epoch must outlast it."""
        self.before = before
        self._free = threading.Event()
        self._free.set()

    def report(self, metrics: dict[str, Any], checkpoint: "Checkpoint | None") -> None:
        """Report on one worker; only the first has a checkpoint."""
        self._free.wait()
        if checkpoint is None:
            ray.train.report(metrics, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)
            return
        write, storage = checkpoint.copied(), ray.train.get_context().get_storage()
        folder = Path(tempfile.mkdtemp())
        self._free.clear()

        def store(local: Any, name: str) -> Any:
            try:
                self.before()
                write(folder)
                mark_done(folder)
                return storage.persist_current_checkpoint(local, name)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            finally:
                self._free.set()

        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=store,
        )


def withdraw_sent(run_id: str) -> None:
    """Remove what other nodes would continue a finished run from, unless a part of it waits for MLflow."""
    if not spools_of(run_id):
        withdraw(run_folder(run_id))
        withdraw(home() / "train" / run_id)

"""How far work in another process has come: a small file that the worker writes and the waiting process shows."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from glioflow import atomic
from glioflow.clock import repeating
from glioflow.progress import Say
from glioflow.reports.numbers import duration

PROGRESS, _EPOCHS = "progress.json", "epochs.jsonl"
# Of a run's work, the part that is done when its last epoch ends; the test patients are left.
TRAINED = 0.9
_NOTE_S = 1.0
# How often the bar moves, and how often a line is printed.
_LOOK_S, _LINE_S = 1.0, 15.0


class ProgressFile:
    """Where a worker notes its progress: at most once a second, and a failed write does not fail the work."""

    def __init__(self, path: Path) -> None:
        """Take the file; its folder is made."""
        self.path, self._noted = path, float("-inf")

    def note(self, text: str, part: float) -> None:
        """Note what is being done, and the part of the work that is done, in [0, 1]."""
        now = time.monotonic()
        if now - self._noted < _NOTE_S and part < 1:
            return
        self._noted = now
        with contextlib.suppress(OSError):
            atomic.write_text(self.path, json.dumps({"text": text, "part": part}))

    def section(self, name: str, first: float, last: float) -> Say:
        """Return a listener that notes under `name`; its [0, 1] is [first, last] of the whole work."""

        def say(text: str, part: float | None = None) -> None:
            self.note(f"{name}, {text}", first + (last - first) * (part or 0.0))

        return say


@contextmanager
def shown(files: Mapping[str, Path], say: Say) -> Iterator[None]:
    """Show what workers note while a block waits for them: a bar every second, a line with the time left now and then.

    Args:
        files: File of each worker by the name that its lines begin with, which may be empty.
        say: Called with the lines, and with the mean part of the workers.
    """
    for path in files.values():  # of a run that was interrupted
        path.unlink(missing_ok=True)
    state = _Shown(files)

    def look() -> None:
        part = state.look()
        if part is not None:
            say(state.line(), part)

    try:
        with repeating(look, every_s=_LOOK_S):
            yield
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)


def note_epoch(progress: Path, epoch: int, dice: float | None) -> None:
    """Note, beside a worker's progress file, the Dice of an epoch (from 0) that was validated in full."""
    with contextlib.suppress(OSError):
        if dice is not None:
            progress.parent.mkdir(parents=True, exist_ok=True)
            with progress.with_name(_EPOCHS).open("a") as file:
                file.write(f"{json.dumps([epoch, dice])}\n")


@contextmanager
def followed(progress: Path, epochs: int, say: Say) -> Iterator[None]:
    """Say `val/dice` of each epoch as its worker notes it, while a block waits for the worker.

    Args:
        progress: The worker's progress file.
        epochs: Of the training.
        say: Called with a line and the part of the epochs that is done.
    """
    path, count = progress.with_name(_EPOCHS), 0
    path.unlink(missing_ok=True)

    def look() -> None:
        nonlocal count
        try:
            lines = path.read_text().splitlines()
        except OSError:
            return
        for line in lines[count:]:
            epoch, dice = json.loads(line)
            say(f"epoch {epoch + 1} of {epochs}: val/dice {dice:.3f}", (epoch + 1) / epochs)
        count = max(count, len(lines))

    try:
        with repeating(look, every_s=_LOOK_S):
            yield
        look()
    finally:
        path.unlink(missing_ok=True)


@dataclass
class _Shown:
    files: Mapping[str, Path]
    texts: dict[str, str] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    first: tuple[float, float] | None = None
    last_line: float = field(default_factory=time.monotonic)

    def look(self) -> float | None:
        """Read the files; return the part that is done, None where nothing is new."""
        before = dict(self.parts)
        for name, path in self.files.items():
            try:
                noted = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            self.texts[name], self.parts[name] = noted["text"], max(noted["part"], self.parts.get(name, 0.0))
        if self.parts == before:
            return None
        part = sum(self.parts.values()) / len(self.files)
        self.first = self.first or (time.monotonic(), part)
        return part

    def line(self) -> str:
        """Return the next line; empty where the last one is recent."""
        now = time.monotonic()
        texts = [f"{name}: {text}" if name else text for name, text in self.texts.items() if self.parts[name] < 1]
        if now - self.last_line < _LINE_S or not texts:
            return ""
        self.last_line = now
        return "; ".join([*texts, *self._time_left(now)])

    def _time_left(self, now: float) -> list[str]:
        assert self.first is not None
        began, before = self.first
        part = sum(self.parts.values()) / len(self.files)
        if part <= before or now - began < _LINE_S:
            return []
        return [f"about {duration((now - began) * (1 - part) / (part - before))} left"]

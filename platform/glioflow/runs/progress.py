"""Progress of work in another process: a small file that the worker writes and the waiting process shows."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from glioflow import atomic
from glioflow.progress import Say, repeating, waiting
from glioflow.reports.numbers import duration

PROGRESS, _EPOCHS = "progress.json", "epochs.jsonl"
# Fraction of a run's work done after its last epoch; only the test patients remain.
TRAINED = 0.9
_NOTE_S = 1.0
# Seconds between updates of the bar, and between printed lines.
_LOOK_S, _LINE_S = 1.0, 15.0


class ProgressFile:
    """Writes a worker's progress, at most once a second; a failed write does not fail the work."""

    def __init__(self, path: Path) -> None:
        """Set the file and create its folder."""
        self.path, self._noted = path, float("-inf")

    def note(self, text: str, part: float) -> None:
        """Record the current step, and the fraction of the work done, in [0, 1]."""
        now = time.monotonic()
        if now - self._noted < _NOTE_S and part < 1:
            return
        self._noted = now
        with contextlib.suppress(OSError):
            atomic.write_text(self.path, json.dumps({"text": text, "part": part}))

    def section(self, name: str, first: float, last: float) -> Say:
        """Return a listener that records progress as `name`; maps its [0, 1] to [first, last] of the whole work."""

        def say(text: str, part: float | None = None) -> None:
            self.note(f"{name}, {text}", first + (last - first) * (part or 0.0))

        return say


@contextmanager
def shown(files: Mapping[str, Path], say: Say) -> Iterator[None]:
    """Show the workers' progress while a block waits: a bar every second, and a line with the time left now and then.

    Until the first of them begins, lines say that they wait.

    Args:
        files: Progress file of each worker, by the prefix of its lines, which may be empty.
        say: Called with the lines and the workers' mean fraction done.
    """
    for path in files.values():  # left by an interrupted run
        path.unlink(missing_ok=True)
    state = _Shown(files)

    def look() -> None:
        part = state.look()
        if part is not None:
            begun()
            say(state.line(), part)

    try:
        with waiting("a worker to start", say) as begun, repeating(look, every_s=_LOOK_S):
            yield
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)


def note_epoch(progress: Path, epoch: int, dice: float | None) -> None:
    """Record, beside a worker's progress file, the Dice of a fully validated epoch (from 0)."""
    with contextlib.suppress(OSError):
        if dice is not None:
            progress.parent.mkdir(parents=True, exist_ok=True)
            with progress.with_name(_EPOCHS).open("a") as file:
                file.write(f"{json.dumps([epoch, dice])}\n")


@contextmanager
def followed(progress: Path, epochs: int, say: Say) -> Iterator[None]:
    """Report `val/dice` of each epoch as its worker records it, while a block waits for the worker.

    Args:
        progress: The worker's progress file.
        epochs: Number of epochs of the training.
        say: Called with a line and the fraction of epochs done.
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
        """Read the files and return the fraction done, or None if nothing changed."""
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
        """Return the next line; empty if the last one is recent."""
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

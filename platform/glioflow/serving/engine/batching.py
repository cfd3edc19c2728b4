"""Dynamic batching: slices of several requests in one forward pass; independent of Ray and HTTP."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.abandonment import Abandoned, current_study
from glioflow.bundle.prediction import Predictor
from glioflow.models import ARCHITECTURES

Run = Callable[[NDArray[np.floating[Any]]], NDArray[np.float32]]


@dataclass(eq=False)
class _Item:
    owner: object
    run: Run
    image: NDArray[np.floating[Any]]
    whole: bool = False
    abandoned: threading.Event | None = None
    future: "Future[NDArray[np.float32]]" = field(default_factory=Future)
    parts: list[NDArray[np.float32]] = field(default_factory=list)
    done: int = 0

    @property
    def num_pixels(self) -> int:
        """Of one slice."""
        return int(self.image.shape[1] * self.image.shape[2])

    @property
    def left(self) -> int:
        return int(self.image.shape[0]) - self.done

    def goes_with(self, other: "_Item") -> bool:
        if self.whole or other.whole:
            return self is other
        return self.owner is other.owner and self.image.shape[1:] == other.image.shape[1:]


class Batcher:
    """One thread that runs networks; slices that arrive during a pass go into the next, without further waiting.

    Every pass is shared evenly between the studies that fit together, so that a single slice does not wait for a
    long study.
    """

    def __init__(self, max_pixels: int) -> None:
        """Batch slices of up to `max_pixels` in total; the thread starts with the first call.

        Only this thread may run networks: a second team of OpenMP threads in a process makes both sleep
        between layers, and a single slice takes twice as long.
        """
        self.max_pixels = max_pixels
        self.passes: deque[tuple[int, int]] = deque(maxlen=256)  # (slices, requests) of the last passes
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def queued(self) -> int:
        """Number of studies with unfinished slices."""
        return len(self._waiting)

    def __call__(
        self, owner: object, run: Run, image: NDArray[np.floating[Any]], *, whole: bool = False
    ) -> NDArray[np.float32]:
        """Run an image, batched with others of the same owner and slice size.

        Args:
            owner: Owner of the network; images of different owners never share a pass.
            run: (n, h, w, C) to (n, h, w, K), slice by slice.
            image: (S, h, w, C).
            whole: Never split, as for a 3D network.

        Returns:
            (S, h, w, K).

        Raises:
            Abandoned: If no caller waits for this thread's study any more.
        """
        item = _Item(owner, run, image, whole, current_study())
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
                self._thread.start()
            self._waiting.append(item)
            self._changed.notify()
        return item.future.result()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                self._drop_abandoned()
                if not self._waiting:
                    continue
                together = [item for item in self._waiting if item.goes_with(self._waiting[0])]
            first = together[0]
            capacity = first.left if first.whole else max(1, self.max_pixels // max(1, first.num_pixels))
            counts = share_out([item.left for item in together], capacity)
            chosen = [(item, count) for item, count in zip(together, counts, strict=True) if count]
            self._pass(chosen)
            with self._changed:
                for item, _ in chosen:
                    if item.future.done():
                        self._waiting.remove(item)
                self._waiting.rotate(-1)  # give other owners and sizes a turn

    def _drop_abandoned(self) -> None:
        for item in [each for each in self._waiting if each.abandoned is not None and each.abandoned.is_set()]:
            self._waiting.remove(item)
            item.future.set_exception(Abandoned())

    def _pass(self, chosen: list[tuple[_Item, int]]) -> None:
        try:
            parts = [item.image[item.done : item.done + count] for item, count in chosen]
            block = parts[0] if len(parts) == 1 else np.concatenate(parts)
            result = chosen[0][0].run(block)
        except Exception as error:  # passed on to the callers
            for item, _ in chosen:
                item.future.set_exception(error)
            return
        self.passes.append((len(block), len(chosen)))
        first = 0
        for item, count in chosen:
            item.parts.append(result[first : first + count])
            item.done += count
            first += count
            if not item.left:
                item.future.set_result(item.parts[0] if len(item.parts) == 1 else np.concatenate(item.parts))


def share_out(wanted: list[int], capacity: int) -> list[int]:
    """Split `capacity` evenly; give what one does not need to the others."""
    given = [0] * len(wanted)
    while capacity and any(w > g for w, g in zip(wanted, given, strict=True)):
        open_ones = [k for k, (w, g) in enumerate(zip(wanted, given, strict=True)) if w > g]
        each = max(1, capacity // len(open_ones))
        for k in open_ones:
            take = min(each, wanted[k] - given[k], capacity)
            given[k] += take
            capacity -= take
    return given


class BatchedPredictor(Predictor):
    """A predictor whose slices may share forward passes with those of other requests.

    Attributes:
        batcher: Batcher of the process; None runs every study by itself.
    """

    batcher: Batcher | None = None

    def run_network(self, image: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return the same as `Predictor.run_network`."""
        if self.batcher is None or not image.shape[0]:
            return self._run(image)
        return self.batcher(
            self.network, self._run, image, whole=ARCHITECTURES[self.description.model.architecture].dims == 3
        )

    def _run(self, image: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        return super().run_network(image)

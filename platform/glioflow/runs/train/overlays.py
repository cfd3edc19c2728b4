"""Pictures of a few validation cases with the network's masks over the epochs, in the training's folder."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow import atomic
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.sequences import shown_channel
from glioflow.reports.figures import overlay

OVERLAYS = "overlays"
_NUM_CASES, _NUM_EPOCHS = 3, 8


class Watch:
    """Keeps the newest masks of the watched cases until their epoch is drawn."""

    def __init__(self, folder: Path, cases: Sequence[PreparedCase], *, epochs: Sequence[int]) -> None:
        """Watch the first cases at a few epochs, the first and the last among them.

        Args:
            folder: Folder of the run; pictures go to `overlays/<case>/epoch-001.png` below it, counted from 1.
            cases: Labeled ones.
            epochs: Epochs that end with masks.
        """
        self.folder = folder / OVERLAYS
        self.cases = {case.record.id: case for case in cases[:_NUM_CASES]}
        chosen = np.linspace(0, len(epochs) - 1, min(len(epochs), _NUM_EPOCHS)).round().astype(int)
        self.epochs = {epochs[k] for k in chosen.tolist()}
        self._masks: dict[str, NDArray[np.bool_]] = {}

    def see(self, case: PreparedCase, mask: NDArray[np.bool_]) -> None:
        """Take the mask (S, H, W) of a case, in its original geometry."""
        if case.record.id in self.cases:
            self._masks[case.record.id] = mask

    def drawing(self, epoch: int) -> Callable[[], None]:
        """Return what draws the masks of an epoch (from 0), if it is one to draw, also while others are taken."""
        masks, self._masks = self._masks, {}
        return partial(self._draw, epoch, masks if epoch in self.epochs else {})

    def _draw(self, epoch: int, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Draw the slice with most true tumor of each case."""
        for case_id, mask in masks.items():
            case = self.cases[case_id]
            truth = case.reference() > 0
            index = int(truth.sum(axis=(1, 2)).argmax())
            prepared = np.asarray(case.image[..., shown_channel(case.record.channels)], np.float32)
            image = np.asarray(case.restore(prepared - prepared.min()))[index]
            name = f"{case_id}, slice {index + 1}, epoch {epoch + 1}"
            picture = overlay(image, truth[index], mask[index], title=name)
            atomic.write_bytes(self.folder / case_id / _name(epoch), picture)


def drawn(folder: Path, epoch: int) -> dict[str, Path]:
    """Return the pictures of an epoch (from 0) in a run's folder, by case."""
    return {path.parent.name: path for path in sorted((folder / OVERLAYS).glob(f"*/{_name(epoch)}"))}


def _name(epoch: int) -> str:
    return f"epoch-{epoch + 1:03}.png"

"""Test patients who are in another cohort under another name, found by their images."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from glioflow.audit.leaks import Leak
from glioflow.data.prepared.prints import Hashes, hash_slices, mirror
from glioflow.data.sequences import sequence_of

# Correlation of two slices from which on they count as one, and how many slices of a case must have a twin. No two of
# 65 LGG patients have one slice above 0.94. Of 13 of them, copies that were padded or brighter kept all slices above
# 0.97, those of half the size 28 % and more, and those saved as JPEG 12 % and more (FLAIR, kaggle_3m, 2026-11-27).
MIN_LIKENESS, MIN_SLICES = 0.97, 3
# Sequences by which two cohorts are compared, the first that both have.
_COMPARED = ("flair", "post", "t2", "pre")
# How far from the background, as a part of the range of values, a pixel counts as head.
_HEAD = 0.02

Pictures = tuple[str, NDArray[np.generic], Sequence[str]]  # a case's name, its image (S, H, W, C) and its channels


def find_shared_images(ours: Sequence[Pictures], others: Iterable[Pictures], *, name: str) -> list[Leak]:
    """Return every case that has several slices in common with a case of another cohort, mirrored ones too.

    Slices are compared on a common grid: one sequence, cut to the head and shrunk to 32 x 32, without their coarse
    structure. So other scalings, paddings and gains do not hide a copy. Images that were registered to another template
    or changed in a way that is not linear are not found.

    Args:
        ours: The cases that are tested.
        others: Cases of a cohort that something was learned from; they are read one at a time.
        name: Of the other cohort.
    """
    known: dict[str, list[tuple[str, Hashes]]] = {}
    for each in _COMPARED:
        hashed = ((case, _hashes(image, channels, each)) for case, image, channels in ours)
        known[each] = [(case, hashes) for case, hashes in hashed if len(hashes)]
    leaks = []
    for other, image, channels in others:
        there = {sequence_of(channel) for channel in channels}
        sequence = next((each for each in _COMPARED if each in there and known[each]), None)
        hashes = _hashes(image, channels, sequence or "")
        for case, mine in known.get(sequence or "", ()) if len(hashes) else ():
            alike = np.maximum(mine @ hashes.T, mine @ mirror(hashes).T).max(axis=1)
            if (count := int((alike >= MIN_LIKENESS).sum())) >= MIN_SLICES:
                value = f"{case} is {other} of {name}: {count} slices, likeness {alike.max():.3f}"
                leaks.append(Leak(rule="a test patient's image is in another cohort", value=value))
    return leaks


def _hashes(image: NDArray[np.generic], channels: Sequence[str], sequence: str) -> Hashes:
    """Return the hashes of the slices of one sequence, cut to the head; none where it is missing."""
    places = [k for k, channel in enumerate(channels) if sequence_of(channel) == sequence]
    if not places:
        return np.zeros((0, 1), np.float32)
    volume = np.asarray(image[..., places[0]], np.float32)
    background = float(np.median(volume[:, [0, 0, -1, -1], [0, -1, 0, -1]]))
    head = np.abs(volume - background) > _HEAD * (float(volume.max()) - float(volume.min()))
    planes = []
    for plane, inside in zip(volume, head, strict=True):
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if len(rows) > 8 and len(columns) > 8:
            planes.append(plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, None])
    return np.concatenate([hash_slices(plane[None])[0] for plane in planes]) if planes else np.zeros((0, 1), np.float32)

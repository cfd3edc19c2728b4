"""Detection of swapped channels, by comparing each pair with the same pair in the training cohort.

Two sequences of one person differ in brightness at the rim and inside, in their tails and edges. For each pair
a ridge regression learns these differences; swapping the names of two sequences reverses the differences.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from glioflow.data.checks.channel_checks import blank_channels

MIN_CASES = 5
_RIDGE, _MOST_DEVIATION = 0.3, 3.0
# Right pairs score 1 on average, swapped ones -1. On 65 LGG patients, each scored by the others, none was below -0.5.
_LIMIT, _MARGIN = -0.5, 1.5
# Cross-validation parts of the training cases; each part is scored by the others, in time linear in the cases.
_PARTS = 20
_SIDE_PX, _SLICES, _PIXELS = 64, 32, 10_000  # of the sample that is compared
_FOREGROUND = 0.15  # of the 99th percentile of the channels' mean
_QUANTILES = (2, 10, 25, 50, 75, 90, 98, 99.5)
_SHELLS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.01)  # from the rim (0) to the deepest point of a slice
_TAILS = ((0.0, 0.03), (0.03, 0.1), (0.1, 0.3), (0.7, 0.9), (0.9, 0.97), (0.97, 0.995), (0.995, 1.01))


class PairLooks(BaseModel):
    """How two channels differ in the training cohort.

    Attributes:
        channels: The two channels.
        scales: Size of each difference.
        weights: Weight of each difference, in its scale; correct pairs score 1 on average.
        limit: Score below which the two channels seem to be swapped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    channels: tuple[str, str]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    limit: float


def fit_channel_looks(images: Iterable[NDArray[np.floating[Any]]], channels: Sequence[str]) -> tuple[PairLooks, ...]:
    """Return the differences of each pair of channels in the training cases (S, h, w, C).

    Omits pairs that fewer than `MIN_CASES` cases have, and blank or equal channels.
    """
    by_pair: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for image in images:
        for pair, differences in _compare(image, channels):
            by_pair.setdefault(pair, []).append(differences)
    return tuple(_fit(pair, np.array(rows)) for pair, rows in by_pair.items() if len(rows) >= MIN_CASES)


def find_swapped(
    image: NDArray[np.floating[Any]], channels: Sequence[str], known: Sequence[PairLooks]
) -> list[tuple[str, str]]:
    """Return the pairs of channels of a prepared volume (S, h, w, C) whose names seem to be swapped."""
    by_pair = {looks.channels: looks for looks in known}
    return [
        pair
        for pair, differences in (_compare(image, channels) if by_pair else ())
        if pair in by_pair and _score(differences, by_pair[pair]) < by_pair[pair].limit
    ]


def _fit(pair: tuple[str, str], rows: NDArray[np.float64]) -> PairLooks:
    """Fit a pair; its limit is below every training case's score when fitted to the cases of the other parts."""
    parts, scores = min(len(rows), _PARTS), list[float]()
    for part in range(parts):
        left_out = np.arange(len(rows)) % parts == part
        looks = _solve(pair, rows[~left_out])
        scores += [_score(row, looks) for row in rows[left_out]]
    return _solve(pair, rows).model_copy(update={"limit": min(_LIMIT, _MARGIN * min(scores))})


def _solve(pair: tuple[str, str], rows: NDArray[np.float64]) -> PairLooks:
    scales = np.sqrt((rows**2).mean(axis=0)) + 1e-6
    scaled = np.clip(rows / scales, -_MOST_DEVIATION, _MOST_DEVIATION)
    weights = np.linalg.solve(scaled.T @ scaled / len(rows) + _RIDGE * np.eye(rows.shape[1]), scaled.mean(axis=0))
    weights /= max(1e-6, float((scaled @ weights).mean()))
    return PairLooks(channels=pair, scales=tuple(scales.tolist()), weights=tuple(weights.tolist()), limit=_LIMIT)


def _score(differences: NDArray[np.float64], looks: PairLooks) -> float:
    scaled = np.clip(differences / np.asarray(looks.scales), -_MOST_DEVIATION, _MOST_DEVIATION)
    return float(scaled @ np.asarray(looks.weights))


def _compare(
    image: NDArray[np.floating[Any]], channels: Sequence[str]
) -> Iterator[tuple[tuple[str, str], NDArray[np.float64]]]:
    """Yield each pair of different channels, and the numbers by which they differ."""
    sample, blank = _sample(image), blank_channels(image, channels)
    inside, depth = _locate(sample)
    if inside.sum() < len(_TAILS) * 100:  # too little to compare
        return
    every = int(inside.sum()) // _PIXELS + 1
    depth = depth[inside][::every]
    values = [sample[..., k][inside][::every] for k in range(len(channels))]
    edges = [_edges(sample[..., k])[inside][::every] for k in range(len(channels))]
    ranks = [_ranks(each) for each in values]
    looks = [_describe(*each, depth) for each in zip(values, ranks, edges, strict=True)]
    for one, other in itertools.combinations(range(len(channels)), 2):
        if {channels[one], channels[other]} & set(blank) or np.array_equal(sample[..., one], sample[..., other]):
            continue
        tails = np.array(_tails(ranks[one], ranks[other])) - np.array(_tails(ranks[other], ranks[one]))
        yield (channels[one], channels[other]), np.concatenate([looks[one] - looks[other], tails])


def _sample(image: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    slices = np.unique(np.linspace(0, image.shape[0] - 1, _SLICES).round().astype(int))
    step = max(1, min(image.shape[1:3]) // _SIDE_PX)
    return np.asarray(image[slices, ::step, ::step], np.float32)


def _locate(sample: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return the foreground, and the depth of each pixel of a slice in it, from 0 to 1."""
    import cv2

    mean = sample.mean(axis=-1)
    mean -= mean.min()
    inside = mean > _FOREGROUND * np.percentile(mean, 99)
    framed = np.pad(inside.astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    depth = np.stack([cv2.distanceTransform(plane, cv2.DIST_L2, 3)[1:-1, 1:-1] for plane in framed])
    return inside, depth / np.maximum(1, depth.max(axis=(1, 2), keepdims=True))


def _describe(
    values: NDArray[np.float32], ranks: NDArray[np.float64], edges: NDArray[np.float32], depth: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return scale-independent statistics of one channel's foreground."""
    quantiles = np.percentile(values, _QUANTILES)
    width = max(1e-6, float(quantiles[5] - quantiles[1]))
    numbers = [*((quantiles - quantiles[3]) / width), float(values.std()) / width]
    for low, high in itertools.pairwise(_SHELLS):
        shell = ranks[(depth >= low) & (depth < high)]
        numbers += [float(shell.mean()), float(shell.std())] if shell.size else [0.5, 0.3]
    return np.array([*numbers, float(edges.mean()) / width, float(np.percentile(edges, 95)) / width])


def _tails(one: NDArray[np.float64], other: NDArray[np.float64]) -> list[float]:
    """Return the ranks of the other channel where this channel is dark or bright."""
    numbers = []
    for low, high in _TAILS:
        there = other[(one >= low) & (one < high)]
        numbers += [float(there.mean()), float(there.std())] if there.size else [0.5, 0.3]
    return numbers


def _edges(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    across = np.abs(np.diff(plane, axis=2, append=plane[:, :, -1:]))
    return across + np.abs(np.diff(plane, axis=1, append=plane[:, -1:]))


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    ranks = np.empty(values.size)
    ranks[np.argsort(values, kind="stable")] = np.arange(values.size) / values.size
    return ranks

"""Figures about a model's results as PNG bytes: calibration, institutions, agreement, two models side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.reports.figures import INK, PREDICTION, QUIET, TRUTH, new_figure, to_png

Curve = Sequence[tuple[float, float, int]]


def reliability(curves: Mapping[str, Curve], *, title: str) -> bytes:
    """Draw the observed frequency of tumor by predicted probability; PNG.

    Args:
        curves: Name to mean probability, part that is tumor, and voxels, of each bin.
        title: Above the figure.
    """
    figure, (axes, counts) = new_figure(2, width=8.6, height=3.6)
    axes.plot([0, 1], [0, 1], color=QUIET, lw=1.2, ls="--", label="honest")
    for color, (name, curve) in zip((TRUTH, PREDICTION, INK), curves.items(), strict=False):
        predicted, true, voxels = (np.array(column, float) for column in zip(*curve, strict=True))
        axes.plot(predicted, true, color=color, marker="o", ms=4, lw=1.4, label=name)
        counts.plot(predicted, voxels, color=color, marker="o", ms=4, lw=1.4, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="part that is tumor", title=title)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    counts.set(
        xlim=(0, 1), yscale="log", xlabel="predicted probability", ylabel="voxels", title="Voxels by probability"
    )
    return to_png(figure)


def by_group(scores: Mapping[str, Sequence[float]], *, title: str, ylabel: str = "Dice") -> bytes:
    """Draw each group's scores as dots, with a line at the median; PNG."""
    figure, (axes,) = new_figure(1, width=max(4.2, 1.0 + 0.8 * len(scores)), height=3.4)
    rng = np.random.default_rng(0)
    for position, values in enumerate(scores.values()):
        across = position + rng.uniform(-0.18, 0.18, len(values))
        axes.scatter(across, values, s=16, color=TRUTH, alpha=0.65, lw=0)
        axes.hlines(np.median(values), position - 0.3, position + 0.3, color=PREDICTION, lw=1.6)
    names = [f"{name}\n{len(values)}" for name, values in scores.items()]
    axes.set(xticks=range(len(names)), ylim=(-0.02, 1.02), ylabel=ylabel, title=title)
    axes.set_xticklabels(names)
    return to_png(figure)


def volumes(true: Sequence[float], predicted: Sequence[float], *, unit: str) -> bytes:
    """Draw predicted against true tumor volumes on logarithmic axes, nothing at the lower end; PNG."""
    figure, (axes,) = new_figure(1, width=4.2, height=3.8)
    first, second = np.asarray(true, float), np.asarray(predicted, float)
    some = np.concatenate([first[first > 0], second[second > 0]])
    low, high = (some.min() / 2, some.max() * 2) if some.size else (1.0, 10.0)
    axes.plot([low, high], [low, high], color=QUIET, lw=1.2, ls="--")
    axes.scatter(np.maximum(first, low), np.maximum(second, low), s=18, color=TRUTH, alpha=0.7, lw=0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), title="Tumor volume")
    axes.set(xlabel=f"true, {unit}", ylabel=f"predicted, {unit}")
    axes.locator_params(axis="both", subs=(1, 2, 5) if high < 100 * low else (1,))
    for axis in (axes.xaxis, axes.yaxis):  # else labels between the powers of ten overlap
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.set_minor_formatter("")
    return to_png(figure)


def against(x: Sequence[float], y: Sequence[float], *, title: str, xlabel: str, ylabel: str) -> bytes:
    """Draw two numbers of each patient against each other; PNG."""
    figure, (axes,) = new_figure(1, width=4.2, height=3.8)
    axes.scatter(x, y, s=18, color=TRUTH, alpha=0.7, lw=0)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return to_png(figure)


def paired(first: Sequence[float], second: Sequence[float], *, names: tuple[str, str]) -> bytes:
    """Draw two models' Dice on the same patients against each other, and the differences in order; PNG."""
    figure, (axes, bars) = new_figure(2, width=9.0, height=3.8)
    a, b = np.asarray(first, float), np.asarray(second, float)
    axes.plot([0, 1], [0, 1], color=QUIET, lw=1.2, ls="--")
    axes.scatter(b, a, s=18, color=INK, alpha=0.7, lw=0)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel=f"Dice of {names[1]}", ylabel=f"Dice of {names[0]}")
    axes.set(title="A dot for each patient")
    axes.set_aspect("equal")
    ordered: NDArray[Any] = np.sort(a - b)
    bars.bar(range(len(ordered)), ordered, color=[TRUTH if value >= 0 else PREDICTION for value in ordered], width=0.8)
    bars.axhline(float(ordered.mean()), color=INK, lw=1.2, ls="--", label=f"mean {ordered.mean():+.3f}")
    bars.set(xticks=[], xlabel=f"{len(ordered)} patients", title="Difference of Dice, A minus B")
    bars.legend(frameon=False, fontsize=8, loc="upper left")
    return to_png(figure)


def intervals(entries: Mapping[str, tuple[float, float, float]], *, title: str, xlabel: str) -> bytes:
    """Draw values with their intervals, one below the other, and a line at zero; PNG.

    Args:
        entries: Name to value, low and high.
        title: Above the figure.
        xlabel: Label of the horizontal axis.
    """
    figure, (axes,) = new_figure(1, width=6.4, height=0.9 + 0.34 * len(entries))
    for position, (value, low, high) in enumerate(entries.values()):
        color = TRUTH if low > 0 else PREDICTION if high < 0 else INK
        axes.hlines(position, low, high, color=color, lw=1.8)
        axes.plot(value, position, marker="o", ms=5, color=color)
    axes.axvline(0, color=QUIET, lw=1.2, ls="--")
    axes.set(yticks=range(len(entries)), yticklabels=list(entries), title=title, xlabel=xlabel)
    axes.invert_yaxis()
    return to_png(figure)

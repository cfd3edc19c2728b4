"""Figures about a cohort as PNG bytes: counts, distributions, and pictures with their masks outlined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glioflow.reports.figures import INK, QUIET, TRUTH, new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# One color per label, in order; distinguishable with red-green color blindness.
LABEL_COLORS = ("#f6ad55", "#63b3ed", "#f687b3", "#68d391")


@dataclass(frozen=True)
class Picture:
    """One image of a row or a grid.

    Attributes:
        image: (H, W) of any range, or (H, W, 3) in [0, 1].
        title: Title above it.
        mask: (H, W) labels to outline, or None.
        filled: Fill the labels instead of outlining them.
        aspect: Height of a pixel over its width.
        window: Values shown as black and as white; None takes the image's own range.
    """

    image: NDArray[Any]
    title: str = ""
    mask: NDArray[Any] | None = None
    filled: bool = False
    aspect: float = 1.0
    window: tuple[float, float] | None = None


def window_of(image: NDArray[Any]) -> tuple[float, float]:
    """Return the values to draw black and white, robust to noise and a few bright spots."""
    low, high = (float(level) for level in np.percentile(image, [1, 99.7])) if image.size else (0.0, 1.0)
    return low, max(high, low + 1e-6)


def balance(parts: Mapping[str, int], *, title: str) -> bytes:
    """Draw the counts by kind as one bar, the first part in color; PNG."""
    figure, (axes,) = new_figure(1, width=9.6, height=1.15)
    left, total = 0, max(1, sum(parts.values()))
    for color, (name, count) in zip((TRUTH, QUIET, "#e2e8f0"), parts.items(), strict=False):
        axes.barh(0, count, left=left, color=color, height=0.7)
        inside = "white" if color == TRUTH else INK
        if count / total > 0.08:
            label = f"{count:,} {name}\n{count / total:.1%}"
            axes.text(left + count / 2, 0, label, ha="center", va="center", color=inside, fontsize=8)
        left += count
    axes.set(yticks=[], xlim=(0, total), title=title)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xticks([])
    return to_png(figure)


def bars(counts: Mapping[str, float], *, title: str, xlabel: str = "", limit: float | None = None) -> bytes:
    """Draw a horizontal bar for each name, the first on top, its number at its end; PNG.

    Args:
        counts: Name to number, none negative.
        title: Above the figure.
        xlabel: Label of the horizontal axis.
        limit: Right end of the axis; None fits the numbers.
    """
    figure, (axes,) = new_figure(1, width=5.2 if len(counts) < 8 else 9.6, height=max(1.6, 0.9 + 0.24 * len(counts)))
    names, values = list(counts), list(counts.values())
    axes.barh(range(len(names)), values, color=TRUTH, height=0.7)
    high = limit or max([*values, 1e-9])
    for position, value in enumerate(values):
        text = f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
        axes.text(value + 0.01 * high, position, text, va="center", fontsize=7, color=INK)
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1.1 * high), title=title, xlabel=xlabel)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return to_png(figure)


def histogram(values: Sequence[float], *, title: str, xlabel: str, ylabel: str, log: bool = False) -> bytes:
    """Draw the distribution of numbers with a line at the median, optionally on a logarithmic axis; PNG."""
    figure, (axes,) = new_figure(1, width=5.2, height=3.0)
    numbers = np.asarray([value for value in values if value > 0 or not log], float)
    if numbers.size:
        low, high = numbers.min(), max(numbers.max(), numbers.min() * 1.01 + 1e-9)
        count = int(np.clip(2 * np.sqrt(numbers.size), 5, 40))
        edges = np.geomspace(low, high, count + 1) if log else np.linspace(low, high, count + 1)
        axes.hist(numbers, bins=list(edges), color=TRUTH, alpha=0.85, edgecolor="white", linewidth=0.4)
        median = float(np.median(numbers))
        axes.axvline(median, color=INK, lw=1.1, ls="--", label=f"median {_plain(median)}")
        axes.legend(frameon=False, fontsize=8)
        if log:
            _logarithmic(axes, decades=float(np.log10(high / low)))
    axes.locator_params(axis="y", integer=True, steps=[1, 2, 5, 10])
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return to_png(figure)


def _logarithmic(axes: "Axes", *, decades: float) -> None:
    axes.set_xscale("log")
    axes.locator_params(axis="x", subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0))
    axes.xaxis.set_major_formatter(lambda value, _: _plain(value))
    axes.minorticks_off()


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def intensities(
    edges: NDArray[np.floating[Any]],
    channels: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    title: str,
    xlabel: str,
) -> bytes:
    """Draw the intensities of each channel, tumor against the rest, each as a density.

    Args:
        edges: (N + 1,) bin edges.
        channels: Name to the counts (N,) inside and outside of tumor.
        title: Above the figure.
        xlabel: Label of the horizontal axis.

    Returns:
        PNG.
    """
    figure, panels = new_figure(len(channels), width=2.9 * len(channels) + 0.4, height=2.9)
    centers, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    for axes, (name, (inside, outside)) in zip(panels, channels.items(), strict=True):
        height = 1e-9
        for counts, color, label in ((outside, "#a0aec0", "elsewhere"), (inside, TRUTH, "tumor")):
            if total := counts.sum():
                density = counts / total / width
                axes.fill_between(centers, density, step="mid", color=color, alpha=0.35, lw=0)
                axes.plot(centers, density, drawstyle="steps-mid", color=color, lw=1.2, label=label)
                # A peak of dark background would flatten the rest.
                height = max(height, 1.2 * density.max() if label == "tumor" else 3 * np.median(density[density > 0]))
        axes.set(title=name, xlabel=xlabel, yticks=[], ylim=(0, height))
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return to_png(figure)


def pictures(grid: Sequence[Sequence[Picture]], *, title: str = "", size: float = 1.9) -> bytes:
    """Draw images in rows, gray, their labels outlined; `size` is the side of each in inches; PNG."""
    from matplotlib.figure import Figure

    columns = max(len(row) for row in grid)
    # At most square, so that rows of pictures of different shapes stay aligned.
    tall = [min(1.0, max((p.image.shape[0] * p.aspect / p.image.shape[1] for p in row), default=1.0)) for row in grid]
    caption = 0.28 if any(picture.title for row in grid for picture in row) else 0.04
    top, gap = 0.2 if title else 0.0, 0.02
    width, height = columns * size, top + sum(tall) * size + len(grid) * caption
    figure = Figure(figsize=(width, height))
    for row, side in zip(grid, tall, strict=True):
        top += caption + side * size
        for k, picture in enumerate(row):  # placed by hand: a layout engine takes longer than all the drawing
            box = (k * size + gap, height - top, size - 2 * gap, side * size - gap)
            axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            axes.axis("off")
            _draw(axes, picture)
    if title:
        figure.suptitle(title, fontsize=10, color=INK, y=1 - 0.04 / height, va="top")
    return to_png(figure)


def _draw(axes: "Axes", picture: Picture) -> None:
    image = picture.image
    low, high = picture.window or window_of(image)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest", aspect=picture.aspect)
    axes.set_title(picture.title, fontsize=7.5, color=INK, pad=2, y=1)  # without y, each is fitted around hidden ticks
    if picture.mask is None:
        return
    for value in np.unique(picture.mask[picture.mask > 0]):
        inside, color = picture.mask == value, LABEL_COLORS[(int(value) - 1) % len(LABEL_COLORS)]
        if picture.filled:
            shade = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)] + [0.75]
            axes.imshow(inside[..., None] * np.array(shade), interpolation="nearest", aspect=picture.aspect)
        elif not inside.all():
            axes.contour(inside, levels=[0.5], colors=[color], linewidths=1.0)

"""Figures as PNG bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUTH, PREDICTION, INK, QUIET = "#2b6cb0", "#c53030", "#2d3748", "#cbd5e0"


def distribution_of_dice(scores: Mapping[str, float], *, title: str) -> bytes:
    """Draw each patient's Dice as a bar, ascending, with lines at mean and median.

    Args:
        scores: Dice by patient, in [0, 1].
        title: Above the figure.

    Returns:
        PNG.

    Source: the layout follows the figure of Buda, Saha and Mazurowski 2019.
    """
    figure, (axes,) = new_figure(1, width=min(14, max(7.2, 0.14 * len(scores))), height=3.4)
    values = sorted(scores.values())
    axes.bar(range(len(values)), values, color=QUIET, width=0.8)
    axes.margins(x=0.02)
    if values:
        mean, median = float(np.mean(values)), float(np.median(values))
        axes.axhline(mean, color=PREDICTION, lw=1.2, label=f"mean {mean:.3f}")
        axes.axhline(median, color=TRUTH, lw=1.2, ls="--", label=f"median {median:.3f}")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=9, frameon=False)
    axes.set(ylim=(0, 1), xticks=[], xlabel=f"{len(values)} patients", ylabel="Dice")
    axes.set_title(title, loc="left")
    return to_png(figure)


def curves(history: Mapping[str, Mapping[int, float]], *, title: str) -> bytes:
    """Draw values by epoch (from 0), one line per name; PNG."""
    figure, (axes,) = new_figure(1, width=5.5, height=3.4)
    for name, values in history.items():
        axes.plot([epoch + 1 for epoch in values], list(values.values()), marker="o", ms=3, lw=1.4, label=name)
    axes.set(xlabel="epoch", title=title)
    axes.legend(frameon=False)
    return to_png(figure)


def overlay(
    image: NDArray[np.floating[Any]], truth: NDArray[np.bool_] | None, prediction: NDArray[np.bool_], *, title: str
) -> bytes:
    """Draw one slice in gray with the outlines of truth (blue) and prediction (red).

    Args:
        image: (H, W), any range.
        truth: (H, W), or None.
        prediction: (H, W).
        title: Above the picture.

    Returns:
        PNG.
    """
    figure, (axes,) = new_figure(1, width=4.0, height=4.2)
    low, high = np.percentile(image, [1, 99.5])
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
    for mask, color in ((truth, TRUTH), (prediction, PREDICTION)):
        if mask is not None and mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=[color], linewidths=1.3)
    axes.set_title(title, fontsize=9)
    axes.axis("off")
    return to_png(figure)


def new_figure(count: int, *, width: float, height: float) -> tuple["Figure", Sequence["Axes"]]:
    """Return a figure of `count` panels in a row, in the common style; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panels = [figure.add_subplot(1, count, k + 1) for k in range(count)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=8)
        axes.title.set_fontsize(10)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set(fontsize=9, color=INK)
    return figure, panels


def to_png(figure: "Figure") -> bytes:
    """Return the drawn figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()

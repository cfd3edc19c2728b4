"""Kaplan-Meier curves of risk groups as a figure."""

from collections.abc import Mapping, Sequence

from glioflow.reports.figures import PREDICTION, TRUTH, new_figure, to_png


def risk_groups_figure(
    days: Mapping[str, Sequence[float]],
    survival: Mapping[str, Sequence[float]],
    *,
    log_rank_p: float | None,
    title: str,
) -> bytes:
    """Draw the survival of the groups `low` and `high` as steps, with the log-rank test's p-value.

    Args:
        days: Days of each group's steps, ascending.
        survival: After each of them, in [0, 1].
        log_rank_p: None if the test is undefined.
        title: Above the figure.

    Returns:
        PNG.
    """
    figure, (axes,) = new_figure(1, width=6.0, height=3.8)
    for name, color in (("low", TRUTH), ("high", PREDICTION)):
        axes.step(days[name], survival[name], where="post", color=color, lw=1.8, label=f"{name} predicted risk")
    axes.set(ylim=(0, 1.02), xlim=(0, None), xlabel="days", ylabel="without the event", title=title)
    axes.legend(frameon=False, loc="lower left", fontsize=8)
    if log_rank_p is not None:
        axes.text(0.98, 0.95, f"log-rank p = {log_rank_p:.3g}", transform=axes.transAxes, ha="right", fontsize=9)
    return to_png(figure)

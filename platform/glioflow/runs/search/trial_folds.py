"""The folds on which every trial of a search is measured, and a trial's result over them."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from glioflow import audit
from glioflow.data.splits import Split, check_split, deal
from glioflow.errors import UserError
from glioflow.runs.launch import Setting


def deal_folds(setting: Setting) -> tuple[Split, ...]:
    """Divide the split's training and validation patients into `search.folds` folds, which have no test patients.

    Returns:
        One split per fold, of which it validates on its own patients and trains on the others'; none for one fold.

    Raises:
        UserError: If there are fewer patients than folds, or a person would be in two parts.
    """
    number, split, records = setting.experiment.search.folds, setting.split, setting.cohort.entries()
    if number == 1:
        return ()
    known = {*split.train, *split.val}
    parts = deal([record for record in records if record.id in known], number, seed=setting.experiment.split.seed)
    folds = tuple(
        Split(train=tuple(sorted(known - {*part})), val=tuple(part), test=tuple(sorted(split.test))) for part in parts
    )
    for fold in folds:
        check_split(fold, records)
        if leaks := audit.find_split_leaks(fold, records):
            raise UserError(leaks[0].rule, leaks[0].value)
    return folds


def sum_up(folds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return a trial's metrics: with several folds, those of each as `val_fold_K/name`, and the mean of every mean.

    A mean that one fold does not have (`hd95_mean` without any tumor) is None.
    """
    if len(folds) == 1:
        return dict(folds[0])
    own = {
        name.replace("val/", f"val_fold_{k}/"): value
        for k, metrics in enumerate(folds)
        for name, value in metrics.items()
    }
    names = [name for name in folds[0] if name.endswith("_mean")]
    over = {name: [value for metrics in folds if (value := metrics.get(name)) is not None] for name in names}
    return own | {name: fmean(values) if len(values) == len(folds) else None for name, values in over.items()}

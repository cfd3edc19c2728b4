"""One bundle from the bundles of a cross-validation's folds, which predicts the mean of their probabilities."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, median_low

from glioflow.bundle.format import Description, Fold, Origin, load, save
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.evaluation import PostprocessSettings

# Fields that must be equal in the members of any ensemble.
ALIKE = ("target", "preprocess", "channels")
# Further fields that must be equal in the networks of one bundle.
_ONE_BUNDLE = (*ALIKE, "network_channels", "model", "inference")


def check_alike(descriptions: Sequence[Description], *, keys: Sequence[str] = ALIKE) -> None:
    """Raise `UserError` if two descriptions differ in one of the keys."""
    for description in descriptions[1:]:
        for key in keys:
            if getattr(description, key) != getattr(descriptions[0], key):
                rule, hint = f"the models of an ensemble must have the same {key}", "leave out the one that differs"
                raise UserError(rule, hint=hint)


def save_ensemble(
    out: Path, folders: Mapping[str, Path], *, origin: Origin, metrics: Mapping[str, float | None]
) -> Description:
    """Write the bundles in `folders`, keyed by run, as one bundle to `out`, which must not exist.

    Combines the choices for each network, see `combine`; uses the first bundle's statistics of the training images.

    Args:
        out: The new bundle.
        folders: At least two bundles.
        origin: Origin of the ensemble.
        metrics: Metrics of the ensemble.

    Raises:
        UserError: If a bundle is damaged, or they are incompatible.
    """
    members = {run_id: load(folder) for run_id, folder in folders.items()}
    descriptions = [member.description for member in members.values()]
    check_alike(descriptions, keys=_ONE_BUNDLE)
    chosen = {run_id: member.description.postprocess for run_id, member in members.items()}
    description = descriptions[0].model_copy(
        update={
            "folds": tuple(Fold(run_id=run_id, temperature=each.temperature) for run_id, each in chosen.items()),
            "postprocess": combine(list(chosen.values()), descriptions[0].target),
            "origin": origin,
            "volume_interval": None,
            "metrics": dict(metrics),
            "num_parameters": sum(each.num_parameters for each in descriptions),
        }
    )
    weights = {
        f"members.{index}.{name}": value
        for index, member in enumerate(members.values())
        for name, value in member.network.state_dict().items()
    }
    return save(out, description, weights)


def combine(settings: Sequence[PostprocessSettings], target: TargetSettings) -> PostprocessSettings:
    """Return the clean-up of an ensemble: medians of its members' choices.

    Keeps only the largest component if most members do. The temperature is 1, since each member has its own.
    """
    return PostprocessSettings(
        temperature=1.0,
        threshold=median(each.threshold for each in settings),
        largest_component=2 * sum(each.largest_component for each in settings) > len(settings),
        min_size_px=median_low(each.min_size_px for each in settings),
        min_total_px={
            name: size
            for name in target.names
            if (size := median_low(each.min_total_px.get(name, 0) for each in settings))
        },
        choose=settings[0].choose,
    )

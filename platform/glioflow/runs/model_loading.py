"""A model as a user names it, loaded: one bundle, or several as an ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glioflow.bundle.prediction import Ensemble, Predictor
from glioflow.errors import UserError
from glioflow.runs.crossval.out_of_fold import find_crossval
from glioflow.tracking import Tracking, Version


@dataclass(frozen=True)
class Member:
    """One bundle, loaded, with the run that made it and its registered version, where it is no bare folder."""

    predictor: Predictor
    run_id: str | None = None
    version: Version | None = None


def open_members(model: str) -> list[Member]:
    """Load what `Tracking.find_bundle` takes, or several of them, separated by commas.

    Raises:
        UserError: If one is not found.
    """
    members, tracking = [], None
    for name in (part.strip() for part in model.split(",")):
        if (Path(name) / "model.json").is_file():
            members.append(Member(Predictor.load(Path(name))))
            continue
        if find_crossval(name):
            rule = (
                "a cross-validation is no model and has judged its patients: compare two, or take the runs of its folds"
            )
            raise UserError(rule, name)
        tracking = tracking or Tracking()
        folder, version = tracking.find_bundle(name)
        run_id = version.run_id if version else name.removeprefix("runs:/").split("/")[0]
        members.append(Member(Predictor.load(folder), run_id, version))
    return members


def as_one(members: Sequence[Member]) -> Predictor:
    """Return the predictor of one member, or the ensemble of several; raises `UserError` if they do not go together."""
    return members[0].predictor if len(members) == 1 else Ensemble([member.predictor for member in members])

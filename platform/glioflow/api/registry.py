"""Registering models, promoting them through the gate, and the way back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glioflow import cluster, promotion
from glioflow.api.inputs import run_of
from glioflow.api.results import Result
from glioflow.cluster.storage import prepared_home
from glioflow.data.prepared.remote import local_folder
from glioflow.json_values import JsonObject
from glioflow.promotion import Verdict
from glioflow.reports.tables import Table
from glioflow.runs.registry.register import register as register_run


@dataclass(frozen=True)
class RegisteredVersion(Result):
    """A version of a registered model."""

    name: str
    version: int


class PromotionResult(Verdict, Result):
    """The gate's decision about a version, with its evidence: every rule with its numbers."""

    def to_json(self) -> JsonObject:
        """Return the values as `--json` prints them on the command line."""
        return self.model_dump(mode="json")

    def tables(self) -> list[Table]:
        """Return the rules with their numbers."""
        rows = [[r.rule, r.value, r.limit, "yes" if r.passed else "NO", r.note] for r in self.reasons]
        title = f"{self.name} version {self.version}: {self.decision}"
        return [Table(title, ["rule", "value", "limit", "holds", ""], rows)]


@dataclass(frozen=True)
class RollbackResult(Result):
    """The champion after a rollback, `version`, and the one that it replaced, `previous`."""

    name: str
    version: int
    previous: int | None


def register(
    run: Any, *, name: str | None = None, survival: str | None = None, crossval: Any = None
) -> RegisteredVersion:
    """Make the bundle of a run the next version of a model, and its challenger.

    Args:
        run: Id of a finished training or trial, or the result of `train`.
        name: Of the model; None takes the experiment's name.
        survival: Id of the run of a survival stage to put inside.
        crossval: A cross-validation, its id or result, whose interval of tumor volumes goes inside; None takes the one
            on whose masks the survival stage was fitted, if any.

    Raises:
        UserError: If a run does not exist, or has no bundle, stage or interval.
    """
    made = register_run(run_of(run), name=name, survival=survival, crossval=crossval and run_of(crossval))
    return RegisteredVersion(made.name, made.version)


def promote(
    model: str | RegisteredVersion, *, version: int | None = None, data: str | Path | None = None
) -> PromotionResult:
    """Put a version before the gate; move the alias `champion`, or say why not.

    Args:
        model: Its name, or the result of `register`.
        version: None takes the newest.
        data: The cohort of the test patients; None takes the one on record.

    Raises:
        UserError: If the version does not exist, or the cohort is not there or another one.
    """
    registered = model if isinstance(model, RegisteredVersion) else None
    name = registered.name if registered else str(model)
    if registered and version is None:
        version = registered.version
    with cluster.ending():
        source = local_folder(data, prepared_home()) if data else None
        verdict = promotion.promote(name, version=version, data=source, home=prepared_home())
    return PromotionResult(**vars(verdict))


def rollback(name: str) -> RollbackResult:
    """Make the previous champion the champion again.

    Args:
        name: Of the model.

    Raises:
        UserError: If there is none.
    """
    verdict = promotion.rollback(name)
    return RollbackResult(name, verdict.version, verdict.previous)

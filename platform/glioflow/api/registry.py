"""Registering models, promoting them through the gate, and rolling back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glioflow import cluster, promotion
from glioflow.api.inputs import model_name, registered_name, run_of
from glioflow.api.results import Result
from glioflow.cluster.storage import prepared_home
from glioflow.data.prepared.remote import local_folder
from glioflow.json_values import JsonObject
from glioflow.progress import Say, occasionally, print_progress
from glioflow.promotion import Verdict
from glioflow.reports.tables import Table
from glioflow.runs.registry.export import export as export_bundle
from glioflow.runs.registry.register import register as register_run
from glioflow.tracking import Tracking


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


@dataclass(frozen=True)
class ListedVersion:
    """A version of a registered model: its aliases, and the gate's decisions about it with their times."""

    name: str
    version: int
    aliases: list[str]
    decisions: list[str]


@dataclass(frozen=True)
class ModelList(Result):
    """The versions of registered models, and the store that they are in."""

    models: list[ListedVersion]
    store: str = field(repr=False)

    def to_json(self) -> JsonObject:
        """Return the values as `--json` prints them on the command line."""
        return {"models": super().to_json()["models"]}

    def tables(self) -> list[Table]:
        """Return the versions, a row each."""
        head = ["name", "version", "aliases", "decisions"]
        return [Table("", head, [[getattr(each, key) for key in head] for each in self.models])]

    def notes(self) -> list[str]:
        """Return a line if nothing is registered."""
        empty = f"no model is registered at {self.store}; GLIOFLOW_HOME and MLFLOW_TRACKING_URI name the store"
        return [] if self.models else [empty]


@dataclass(frozen=True)
class ExportedBundle(Result):
    """A bundle outside MLflow: the path of its folder or zip."""

    path: str


def register(run: Any, *, name: str | None = None, survival: Any = None, crossval: Any = None) -> RegisteredVersion:
    """Make the bundle of a run the next version of a model, and its challenger.

    Args:
        run: Id of a finished training or trial, or of a cross-validation for the ensemble of its folds; or the result
            of `train` or `crossval`.
        name: Name of the model; None takes the experiment's name.
        survival: A survival stage to put inside, the id of its run or the result of `fit_survival`.
        crossval: A cross-validation, its id or result, whose interval of tumor volumes goes inside; None takes `run`
            if it is one, otherwise the one on whose masks the survival stage was fitted, if any.

    Raises:
        UserError: If a run does not exist, or has no bundle, stage or interval.
    """
    made = register_run(
        run_of(run),
        name=name,
        survival=None if survival is None else run_of(survival),
        crossval=None if crossval is None else run_of(crossval),
    )
    return RegisteredVersion(made.name, made.version)


def promote(
    model: str | RegisteredVersion,
    *,
    version: int | None = None,
    data: str | Path | None = None,
    say: Say = print_progress,
) -> PromotionResult:
    """Put a version through the gate: it becomes the champion if it passes every rule.

    Args:
        model: Its name, or the result of `register`.
        version: None takes the newest.
        data: The cohort of the test patients; None takes the recorded one.
        say: Called with the part of the test patients that are measured, and now and then with a line.

    Raises:
        UserError: If the version or the cohort does not exist, or the cohort is not the recorded one.
    """
    name = registered_name(model)
    if version is None and isinstance(model, RegisteredVersion):
        version = model.version
    with cluster.ending():
        source = local_folder(data, prepared_home()) if data else None
        verdict = promotion.promote(name, version=version, data=source, home=prepared_home(), say=occasionally(say))
    return PromotionResult(**vars(verdict))


def rollback(name: str | RegisteredVersion) -> RollbackResult:
    """Make the previous champion the champion again.

    Args:
        name: Name of the model, or the result of `register`.

    Raises:
        UserError: If there is no previous champion.
    """
    verdict = promotion.rollback(registered_name(name))
    return RollbackResult(verdict.name, verdict.version, verdict.previous)


def list_models(name: str | RegisteredVersion | None = None) -> ModelList:
    """List versions, aliases and decisions of registered models.

    Args:
        name: Name of one model, or the result of `register`; None lists all.

    Raises:
        UserError: If no model has that name.
    """
    if name is not None:
        name = registered_name(name)
    tracking = Tracking()
    if name is not None and name not in tracking.names():
        raise tracking.unregistered(name)
    versions = []
    for each in tracking.names() if name is None else [name]:
        decided: dict[int, list[str]] = {}
        for verdict in promotion.decisions(tracking, each):
            decided.setdefault(verdict.version, []).append(f"{verdict.decision} {verdict.when}")
        versions += [
            ListedVersion(each, version.version, list(version.aliases), decided.get(version.version, []))
            for version in tracking.versions(each)
        ]
    return ModelList(versions, tracking.shown)


def export(model: Any, out: str | Path) -> ExportedBundle:
    """Write a bundle, with its card and checksums, to a folder or a zip that needs no MLflow.

    Args:
        model: A registered model, a run, a bundle's folder, or the result of `train` or `register`.
        out: New folder, or new file that ends with .zip.

    Raises:
        UserError: If the model does not exist or is incomplete, or `out` exists.
    """
    return ExportedBundle(str(export_bundle(model_name(model), Path(out))))

"""Loading a model by the name a user gives: one bundle, or several as an ensemble."""

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from glioflow.bundle import MODEL
from glioflow.bundle.prediction import Ensemble, Predictor
from glioflow.bundle.starter import STARTER, find_starter
from glioflow.errors import UserError
from glioflow.runs.crossval.ensemble import has_ensemble
from glioflow.runs.crossval.out_of_fold import find_crossval
from glioflow.tracking import Tracking, Version


@dataclass(frozen=True)
class Member:
    """One loaded bundle, with its run and registered version unless it is a bare folder."""

    predictor: Predictor
    run_id: str | None = None
    version: Version | None = None


def open_members(model: str, *, device: str = "auto") -> list[Member]:
    """Load what `Tracking.find_bundle` takes, a bundle's zip or `starter`, or several of them, separated by commas.

    Args:
        model: By name.
        device: Device of the forward pass; `auto` takes a GPU where there is one.

    Raises:
        UserError: If one is not found.
    """
    members, tracking = [], None
    # A path may hold a comma.
    names = [model] if os.path.exists(model) else [part.strip() for part in model.split(",")]
    if len(names) > 1 and ("" in names or len({*names}) < len(names)):
        rule = "the members of an ensemble must be different models, separated by single commas"
        raise UserError(rule, model, hint="name each of them once")
    for name in names:
        if name == STARTER:
            members.append(Member(Predictor.load(find_starter(), device=device)))
            continue
        if name.lower().endswith(".zip"):
            with unpacked(Path(name)) as folder:
                members.append(Member(Predictor.load(folder, device=device)))
            continue
        if (Path(name) / MODEL).is_file():
            members.append(Member(Predictor.load(Path(name), device=device)))
            continue
        tracking = tracking or Tracking()
        if (crossval := find_crossval(name)) and not has_ensemble(tracking, crossval):
            rule = f"run {name} is a cross-validation without a model of its own"
            hint = f"make the ensemble of its folds with `glioflow register {crossval}`, or name the run of a fold"
            raise UserError(rule, name, hint=hint)
        folder, version = tracking.find_bundle(name)
        run_id = version.run_id if version else name.removeprefix("runs:/").split("/")[0]
        members.append(Member(Predictor.load(folder, device=device), run_id, version))
    return members


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack a bundle's zip, as `export` writes it, and yield its folder for the duration of the block.

    Raises:
        UserError: If the file is missing, damaged, or holds no bundle.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist", path, hint="give a bundle's folder or zip, a run id, or NAME@alias")
    with tempfile.TemporaryDirectory(prefix="glioflow-bundle-") as scratch:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(scratch)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            hint = "export or copy it again"
            raise UserError(f"the zip cannot be read ({error})", file=path, hint=hint) from None
        descriptions = sorted(Path(scratch).rglob(MODEL))
        if len(descriptions) != 1:
            hint = "give a zip that `glioflow export` wrote"
            raise UserError(f"the zip of a bundle must hold one {MODEL}", len(descriptions), file=path, hint=hint)
        yield descriptions[0].parent


def as_one(members: Sequence[Member]) -> Predictor:
    """Return the predictor of one member, or the ensemble of several; raises `UserError` if they do not go together."""
    return members[0].predictor if len(members) == 1 else Ensemble([member.predictor for member in members])

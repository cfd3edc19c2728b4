"""Loaded versions: loaded beside the current one, warmed up, checked, switched in one step; independent of Ray.

A refused version is reported, and the previous one keeps answering. The argument of `adopt` contains everything
needed to reach the same state, so that a replica that starts later answers like the others.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from glioflow import bundle
from glioflow.bundle.answer import ModelId, ServingState
from glioflow.bundle.starter import STARTER, find_starter
from glioflow.cluster.storage import home
from glioflow.errors import RunFailed, UserError, option
from glioflow.promotion.golden import GOLDEN
from glioflow.serving.engine.batching import BatchedPredictor, Batcher
from glioflow.serving.engine.selection import Engine, choose_engine
from glioflow.serving.settings import Trial
from glioflow.tracking import CHALLENGER, Tracking, Version
from glioflow.tracking.addresses import STARTING_S


class NoChampion(UserError):  # noqa: N818 - what it is
    """No version has been promoted yet."""

    code = "no-champion"


class VersionId(BaseModel):
    """One version of a registered model, with its bundle's digest and its recorded golden answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    version: int
    run_id: str
    digest: str | None = None
    golden: dict[str, Any] | None = None

    @property
    def model_id(self) -> ModelId:
        """The version's name in answers."""
        return {"name": self.name, "version": self.version, "run_id": self.run_id}


class Wanted(BaseModel):
    """What a replica is to serve: the deployment's `user_config`.

    Attributes:
        name: Name of the registered model whose champion answers; used where `champion` is not given.
        champion: The version that answers.
        before: The version that answers where the champion is refused.
        challenger: The version that is tried on live traffic.
        trial: How much of the traffic it gets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str | None = None
    champion: VersionId | None = None
    before: VersionId | None = None
    challenger: VersionId | None = None
    trial: Trial = Trial()


@dataclass(frozen=True, eq=False)
class Served:
    """A loaded version, ready to answer."""

    id: VersionId
    predictor: BatchedPredictor
    engine: Engine


Load = Callable[[VersionId, Batcher], Served]


class Versions:
    """The versions that one replica holds."""

    def __init__(self, batcher: Batcher, say: Callable[..., None], *, load: Load | None = None) -> None:
        """Start without versions; call `say(event, **facts)` for every switch and refusal."""
        self._batcher, self._say, self._load = batcher, say, load or load_version
        self._lock = threading.Lock()
        self.champion: Served | None = None
        self.challenger: Served | None = None
        self.trial = Trial()
        self.refused: dict[str, str] = {}

    def adopt(self, wanted: Wanted) -> None:
        """Load the wanted versions; if a new one is refused, keep the old one.

        Raises:
            RunFailed: If neither the champion nor the previous one can be loaded, and no version is loaded.
        """
        with self._lock:
            self.trial = wanted.trial
            assert wanted.champion is not None
            for candidate in (wanted.champion, wanted.before):
                if candidate is None or (self.champion and self.champion.id == candidate):
                    break
                loaded = self._try(candidate)
                if loaded is not None:
                    self.champion = loaded  # a single assignment: running requests keep their version
                    self._say("switched", **candidate.model_id)
                    break
                if self.champion is not None:
                    break
            if self.champion is None:
                refused = "; ".join(f"{key}: {reason}" for key, reason in self.refused.items())
                raise RunFailed(f"no version could be loaded ({refused})")
            if wanted.challenger is None:
                self.challenger = None
            elif self.challenger is None or self.challenger.id != wanted.challenger:
                self.challenger = self._try(wanted.challenger)

    def _try(self, candidate: VersionId) -> Served | None:
        key = f"{candidate.name}/{candidate.version}"
        try:
            loaded = self._load(candidate, self._batcher)
        except Exception as error:  # a bad bundle can fail anywhere in the libraries
            # Only the rule, since values name folders of this machine.
            reason = error.rule if isinstance(error, UserError) else type(error).__name__
            self.refused[key] = reason
            self._say("refused", **candidate.model_id, reason=reason)
            return None
        self.refused.pop(key, None)
        return loaded

    def state(self) -> ServingState:
        """Return the loaded and the refused versions."""
        return {
            "engine": asdict(self.champion.engine) if self.champion else None,
            "challenger": self.challenger.id.model_id if self.challenger else None,
            "trial": self.trial.model_dump(),
            "refused": dict(self.refused),
        }


def find_wanted(name: str | None, trial: Trial, *, patience_s: float = 0) -> Wanted:
    """Return the versions of the registry's aliases: the champion, and the challenger if it gets traffic.

    Args:
        name: Name of the registered model; None takes the only one with a champion.
        trial: Fraction of the traffic for a challenger.
        patience_s: How long to wait for the registry; see `Tracking`.

    Raises:
        NoChampion: If no model, or not the named one, has a champion yet.
        UserError: If there are several and no name.
    """
    if name == STARTER:
        return Wanted(name=name, champion=_starter(), trial=trial)
    tracking = Tracking(patience_s=patience_s)
    names = [each for each in tracking.names() if tracking.champion(each)]
    if name is None:
        if len(names) > 1:
            raise UserError("several models have a champion", hint=f"name one with {option('name')}", choices=names)
        if not names:
            raise NoChampion("no model has a champion yet", hint="`glioflow promote NAME` makes a version the champion")
        name = names[0]
    elif name in tracking.names() and name not in names:
        hint = f"`glioflow promote {name}` makes one of its versions the champion"
        raise NoChampion(f"model {name!r} has no champion yet", name, names or None, hint=hint)
    champion = tracking.version(name)
    challenger = None
    if trial.shadow or trial.canary:
        try:
            challenger = tracking.version(name, alias=CHALLENGER)
        except UserError:
            challenger = None
    tried = challenger is not None and challenger.version != champion.version
    return Wanted(
        name=name,
        champion=_identify(tracking, champion),
        challenger=_identify(tracking, challenger) if tried and challenger else None,
        trial=trial,
    )


def _starter() -> VersionId:
    """Return the bundled model as version 0, a number that no registered version has."""
    return VersionId(name=STARTER, version=0, run_id=STARTER, digest=bundle.digest_of(find_starter()))


def _identify(tracking: Tracking, version: Version) -> VersionId:
    try:
        golden = json.loads(tracking.document(version, GOLDEN))
    except (UserError, ValueError):
        golden = None
    return VersionId(
        name=version.name,
        version=version.version,
        run_id=version.run_id,
        digest=version.tags.get("glioflow.bundle"),
        golden=golden,
    )


def fetch_version(version: VersionId) -> Path:
    """Return the folder of a version's bundle on this machine, fetching it if necessary; any node may call this.

    Raises:
        UserError: If it cannot be fetched.
    """
    if version.name == STARTER:
        return find_starter()
    folder = home() / "serving" / f"{version.name}-{version.version}"
    if not (folder / "model.json").is_file():
        tracking = Tracking(patience_s=STARTING_S)
        tracking.fetch_bundle(tracking.version(version.name, number=version.version), folder)
    return folder


def load_version(version: VersionId, batcher: Batcher) -> Served:
    """Load a version's bundle, check its seal and digest, warm it up, and check its golden answer.

    Raises:
        UserError: If the bundle was changed, or its answer differs from the one at registration.
    """
    folder = fetch_version(version)
    if version.digest is not None and bundle.digest_of(folder) != version.digest:
        rule = "the bundle of a version must be the one that was registered"
        raise UserError(rule, f"{version.name}/{version.version}", hint="register the run again")
    predictor = cast(BatchedPredictor, BatchedPredictor.load(folder))
    engine = choose_engine(predictor, version.golden)
    predictor.batcher = batcher
    return Served(version, predictor, engine)

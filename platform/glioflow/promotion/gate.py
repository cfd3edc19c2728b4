"""The gate: measure all evidence again, allow one promotion of a model at a time, move the alias `champion` last."""

import json
from contextlib import AbstractContextManager
from pathlib import Path

from glioflow.clock import now
from glioflow.cluster.lease import holding
from glioflow.cluster.storage import home as state_folder
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.errors import UserError
from glioflow.progress import Say, portion, quiet
from glioflow.promotion import rules
from glioflow.promotion.evidence import Entry, measure_anew
from glioflow.promotion.golden import GOLDEN, golden_answer, golden_difference
from glioflow.promotion.record import (
    Reason,
    Verdict,
    champion_before,
    count_uses,
    decisions,
    record,
)
from glioflow.tracking import CHALLENGER, CHAMPION, Tracking, Version
from glioflow.tracking.lineage import who


def promote(
    name: str, *, version: int | None = None, data: Path | None = None, home: Path, say: Say = quiet
) -> Verdict:
    """Evaluate a version by the gate's rules and, if it passes, make it the champion.

    Args:
        name: Name of the registered model.
        version: Its number; None takes the newest.
        data: The cohort; None takes the prepared one that the run recorded.
        home: Folder of the prepared cohorts.
        say: Called after each test patient that is measured.

    Raises:
        UserError: If the version or the cohort does not exist, the bundle was changed, the version is the champion
            already, cohort or split are not the recorded ones, or another promotion of this model is under way or
            ended first.
    """
    tracking = Tracking()
    challenger = tracking.version(name, number=version) if version else _newest(tracking, name)
    with _alone(name):
        champion = tracking.champion(name)
        if champion is not None and champion.version == challenger.version:
            raise UserError(f"version {challenger.version} of {name} is the champion already", challenger.version)
        entry = Entry.open(tracking, challenger)
        cohort = entry.recorded_cohort(tracking, data, home, say)
        sources = cohort.manifest.judged_by
        used = count_uses(tracking, test=entry.split.test_digest, cohort=sources)
        reasons = _apply_rules(tracking, entry, champion, cohort, data, home, used, say)
        verdict = Verdict(
            decision=rules.decide(reasons),
            reasons=tuple(reasons),
            name=name,
            version=challenger.version,
            previous=champion.version if champion else None,
            test=entry.split.test_digest,
            times_test_used=used,
            who=who(),
            when=now(),
        )
        _check_unmoved(tracking, name, champion)
        record(tracking, verdict, sources=sources, cohort=cohort)
        if verdict.decision == "promoted":
            tracking.set_alias(name, CHAMPION, challenger.version)
            tracking.drop_alias(name, CHALLENGER, challenger.version)
    return verdict


def rollback(name: str) -> Verdict:
    """Make the previous champion the champion again.

    Raises:
        UserError: If there is no champion, none before it, or a promotion of this model is under way.
    """
    tracking = Tracking()
    with _alone(name):
        present = tracking.version(name)
        previous = champion_before(decisions(tracking, name), present.version)
        if previous is None:
            rule = f"{name} had no champion before version {present.version}, so there is nothing to roll back to"
            raise UserError(rule, present.version, hint="promote another version with `glioflow promote`")
        tracking.bundle_of(tracking.version(name, number=previous))
        verdict = Verdict(
            decision="rolled-back",
            reasons=(),
            name=name,
            version=previous,
            previous=present.version,
            test="",
            times_test_used=0,
            who=who(),
            when=now(),
        )
        record(tracking, verdict)
        tracking.set_alias(name, CHAMPION, previous)
    return verdict


def _alone(name: str) -> AbstractContextManager[None]:
    """Allow one process of this home at a time to promote a model."""
    return holding(state_folder() / "locks" / name, f"another promotion or rollback of {name}")


def _check_unmoved(tracking: Tracking, name: str, champion: Version | None) -> None:
    """Refuse if another home, which this home's lease does not cover, promoted meanwhile."""
    after = tracking.champion(name)
    if (after and after.version) != (champion and champion.version):
        rule = f"the champion of {name} changed while the version was judged against it"
        raise UserError(rule, f"version {after.version}" if after else "no champion", hint="promote again")


def _apply_rules(
    tracking: Tracking,
    entry: Entry,
    champion: Version | None,
    cohort: PreparedCohort,
    data: Path | None,
    home: Path,
    used: int,
    say: Say,
) -> list[Reason]:
    settings, split = entry.settings, entry.split
    reasons = [
        *rules.clean(split, cohort, settings),
        rules.enough(split, cohort, settings),
        *rules.smoke(_golden(tracking, entry)),
        rules.fresh(used, settings),
    ]
    if not split.test:
        return reasons
    cases = cohort.cases(split.test)
    half = 1.0 if champion is None else 0.5
    measured = measure_anew(entry.predictor, cases, say=portion(say, f"version {entry.version.version}", 0, half))
    reasons += rules.alone(entry.predictor, measured, cases, settings)
    if champion is not None:
        rival = Entry.open(tracking, champion)
        mine, theirs = entry.predictor.description, rival.predictor.description
        if mine.target != theirs.target:
            raise UserError(
                "a challenger must have the champion's target",
                mine.target,
                hint="register it under another name",
            )
        reasons.append(rules.unseen(rival.trained, [case.record for case in cases]))
        seen = rival.as_it_sees(cohort, data, home, say)
        report_part = portion(say, f"champion, version {champion.version}", half, 1)
        theirs_measured = measure_anew(rival.predictor, seen.cases(split.test), say=report_part)
        reasons += rules.against(theirs_measured, measured, settings)
    return reasons


def _golden(tracking: Tracking, entry: Entry) -> float | None:
    """Return how much the answer to the golden study changed; None if none was registered."""
    try:
        before = json.loads(tracking.document(entry.version, GOLDEN))
    except UserError:
        return None
    return golden_difference(before, golden_answer(entry.predictor))


def _newest(tracking: Tracking, name: str) -> Version:
    versions = tracking.versions(name)
    if not versions:
        raise tracking.unregistered(name)
    return versions[0]

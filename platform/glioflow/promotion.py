"""The gate before `champion`: rules with their numbers, the record of every decision, and the way back."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from glioflow import audit, bundle
from glioflow.config.gate import GateSettings
from glioflow.data.prepared import PreparedCase, PreparedCohort, find_or_prepare, is_prepared
from glioflow.data.splits import Split
from glioflow.errors import UserError
from glioflow.evaluation import compare_rows
from glioflow.prediction import Predictor, measure, measure_empty, measure_flair_threshold
from glioflow.tracking import CHAMPION, Tracking, Version

DECISIONS = "decisions"
Decision = Literal["promoted", "rejected", "insufficient-evidence", "rolled-back"]


class Reason(BaseModel):
    """One rule of the gate: what was measured, what was asked, and whether it holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rule: str
    value: float | str | None
    limit: float | str | None
    passed: bool


class Verdict(BaseModel):
    """A decision and its evidence.

    Attributes:
        decision: What was decided.
        reasons: Every rule with its numbers.
        name: Of the model.
        version: That stood before the gate.
        previous: Champion before; None where there was none.
        test: Digest of the test patients' list.
        times_test_used: How often these patients have judged a version of this model before.
        who: Who asked.
        when: UTC, ISO 8601.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    decision: Decision
    reasons: tuple[Reason, ...]
    name: str
    version: int
    previous: int | None
    test: str
    times_test_used: int
    who: str
    when: str


def promote(name: str, *, version: int | None = None, data: Path | None = None, home: Path) -> Verdict:
    """Put a version before the gate and, if it passes, let `champion` mean it.

    Args:
        name: Of the registered model.
        version: Its number; None takes the newest.
        data: The cohort; None takes the prepared one that the run recorded.
        home: Where prepared cohorts live.

    Raises:
        UserError: If the version or the cohort is not there, the version is champion already, or cohort or split are
            not the recorded ones.
    """
    tracking = Tracking()
    challenger = tracking.version(name, number=version) if version else _newest(tracking, name)
    champion = tracking.champion(name)
    if champion is not None and champion.version == challenger.version:
        raise UserError("the version before the gate is not the champion itself", f"{name}/{challenger.version}")
    folder, _ = tracking.find_bundle(f"models:/{name}/{challenger.version}")
    if bundle.digest_of(folder) != challenger.tags.get("glioflow.bundle"):
        raise UserError("a registered bundle must be as it was sealed", f"{name}/{challenger.version} was changed")
    predictor = Predictor.load(folder)
    settings = _gate_settings(tracking, challenger.run_id)
    split = Split.model_validate(_read_up(tracking, challenger.run_id, "split.json"))
    if split.digest != predictor.description.origin.split:
        raise UserError("a version is judged on the split it was trained with", f"another split in {challenger.run_id}")
    cohort = _recorded_cohort(tracking, challenger, predictor, data, home)
    used = sum(verdict.test == split.test_digest for verdict in decisions(tracking, name))
    rival = None if champion is None else _Rival.meet(tracking, champion, predictor, cohort, data, home)
    reasons = _judge(predictor, rival, cohort, split, settings)
    decision = _decide(reasons)
    verdict = Verdict(
        decision=decision,
        reasons=tuple(reasons),
        name=name,
        version=challenger.version,
        previous=champion.version if champion else None,
        test=split.test_digest,
        times_test_used=used,
        who=_who(),
        when=_now(),
    )
    _record(tracking, verdict)
    if decision == "promoted":
        tracking.set_alias(name, CHAMPION, challenger.version)
    return verdict


def rollback(name: str) -> Verdict:
    """Let `champion` mean the version that was champion before the present one.

    Raises:
        UserError: If there is no champion, or none before it.
    """
    tracking = Tracking()
    now = tracking.version(name)
    previous = _before(decisions(tracking, name), now.version)
    if previous is None:
        raise UserError(f"a rollback of {name!r} needs a champion before the present one", f"version {now.version}")
    tracking.version(name, number=previous)
    verdict = Verdict(
        decision="rolled-back",
        reasons=(),
        name=name,
        version=previous,
        previous=now.version,
        test="",
        times_test_used=0,
        who=_who(),
        when=_now(),
    )
    _record(tracking, verdict)
    tracking.set_alias(name, CHAMPION, previous)
    return verdict


def decisions(tracking: Tracking, name: str) -> list[Verdict]:
    """Return every recorded decision about `name`, newest first."""
    found = tracking.find_all(DECISIONS, model=name)
    whole = [run.info.run_id for run in found if run.info.status == "FINISHED"]  # others died while they were written
    return [Verdict.model_validate(tracking.read_json(run_id, "verdict.json")) for run_id in whole]


def _before(newest_first: Sequence[Verdict], present: int) -> int | None:
    """Return the champion before `present`, replaying the record: a rollback takes back what came after its version."""
    line: list[int] = []
    for verdict in reversed(newest_first):
        if verdict.decision == "promoted":
            line.append(verdict.version)
        elif verdict.decision == "rolled-back" and verdict.version in line:
            del line[_last(line, verdict.version) + 1 :]
    if present in line:  # else the alias was moved by hand, or a rollback was recorded and died
        del line[_last(line, present) :]
    return line[-1] if line else None


def _last(line: Sequence[int], version: int) -> int:
    return len(line) - 1 - line[::-1].index(version)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _newest(tracking: Tracking, name: str) -> Version:
    versions = tracking.versions(name)
    if not versions:
        raise UserError(f"no registered model {name!r} with a version", choices=tracking.names())
    return versions[0]


def _read_up(tracking: Tracking, run_id: str, artifact: str) -> Any:
    """Read an artifact of a run, or of the search it belongs to."""
    if tracking.has_artifact(run_id, artifact):
        return tracking.read_json(run_id, artifact)
    parent = tracking.run(run_id).data.tags.get("mlflow.parentRunId")
    if parent is None:
        raise UserError("a version before the gate comes from a run that recorded its split", f"run {run_id}")
    return tracking.read_json(parent, artifact)


def _gate_settings(tracking: Tracking, run_id: str) -> GateSettings:
    import yaml

    parent = tracking.run(run_id).data.tags.get("mlflow.parentRunId")
    holder = run_id if tracking.has_artifact(run_id, "experiment.yaml") else parent
    said = yaml.safe_load(tracking.download(f"runs:/{holder}/experiment.yaml").read_text())
    return GateSettings.model_validate(said.get("gate", {}))


def _recorded_cohort(
    tracking: Tracking, version: Version, predictor: Predictor, data: Path | None, home: Path
) -> PreparedCohort:
    origin, steps = predictor.description.origin, predictor.description.preprocess
    source = data or Path(_read_up(tracking, version.run_id, "cohort.json")["path"])
    if not source.exists():
        raise UserError("the recorded cohort must be reachable; give it with --data DIR", source)
    cohort = find_or_prepare(source, steps, home=home)
    if cohort.manifest.source_fingerprint != origin.source_fingerprint:
        raise UserError(
            f"a version is judged on the cohort it recorded (fingerprint {origin.source_fingerprint})",
            f"{source} with {cohort.manifest.source_fingerprint}",
        )
    return cohort


@dataclass(frozen=True)
class _Rival:
    """The champion, and the challenger's test cohort as the champion's own preprocessing makes it."""

    predictor: Predictor
    cohort: PreparedCohort

    @classmethod
    def meet(
        cls,
        tracking: Tracking,
        champion: Version,
        challenger: Predictor,
        cohort: PreparedCohort,
        data: Path | None,
        home: Path,
    ) -> "_Rival":
        folder, _ = tracking.find_bundle(f"models:/{champion.name}/{champion.version}")
        predictor = Predictor.load(folder)
        mine, theirs = challenger.description, predictor.description
        if mine.target != theirs.target:
            raise UserError("a challenger answers the champion's question; register it under another name", mine.target)
        if mine.preprocess == theirs.preprocess:
            return cls(predictor, cohort)
        if data is None or is_prepared(data):
            raise UserError(
                f"champion {champion.version} was trained with another preprocessing; give the raw cohort with --data",
                data or "no --data",
            )
        return cls(predictor, find_or_prepare(data, theirs.preprocess, home=home))


def _judge(
    challenger: Predictor,
    rival: _Rival | None,
    cohort: PreparedCohort,
    split: Split,
    settings: GateSettings,
) -> list[Reason]:
    leaks = audit.find_split_leaks(split, cohort.records)
    reasons = [Reason(rule="audit finds no patient in two parts", value=len(leaks), limit=0, passed=not leaks)]
    num_patients = len({cohort.case(case_id).record.patient for case_id in split.test})
    reasons.append(
        Reason(
            rule="enough test patients",
            value=num_patients,
            limit=settings.min_patients,
            passed=num_patients >= settings.min_patients,
        )
    )
    if not split.test:
        return reasons
    cases = cohort.cases(split.test)
    rows = measure(challenger, cases)
    mean = _mean(rows, "dice")
    reasons += _beats_baselines(challenger, cases, mean, settings)
    if settings.max_false_positive_slice_rate is not None:
        rate = _mean(rows, "false_positive_slice_rate")
        limit = settings.max_false_positive_slice_rate
        reasons.append(Reason(rule="false-positive slices", value=rate, limit=limit, passed=rate <= limit))
    if rival is not None:
        reasons.append(_against_champion(rival.predictor, rival.cohort.cases(split.test), rows, settings))
    return reasons


def _beats_baselines(
    challenger: Predictor, cases: Sequence[PreparedCase], mean: float, settings: GateSettings
) -> list[Reason]:
    found = {"all-empty": _mean(measure_empty(challenger.description.target, cases), "dice")}
    if (rows := measure_flair_threshold(challenger.description, cases)) is not None:
        found["FLAIR threshold"] = _mean(rows, "dice")
    return [
        Reason(
            rule=f"mean test Dice above the {name} baseline",
            value=mean,
            limit=dice + settings.margin_over_baseline,
            passed=mean > dice + settings.margin_over_baseline,
        )
        for name, dice in found.items()
    ]


def _against_champion(
    champion: Predictor, cases: Sequence[PreparedCase], rows: list[dict[str, Any]], settings: GateSettings
) -> Reason:
    theirs = measure(champion, cases)
    compared = compare_rows(rows, theirs)
    low = -1.0 if compared is None else compared.ci95[0]
    return Reason(
        rule="not worse than the champion (lower end of the paired 95 % interval of mean Dice)",
        value=low,
        limit=-settings.margin,
        passed=low >= -settings.margin,
    )


def _decide(reasons: Sequence[Reason]) -> Decision:
    failed = [reason for reason in reasons if not reason.passed]
    if any(reason.rule == "enough test patients" for reason in failed):
        return "insufficient-evidence"
    return "rejected" if failed else "promoted"


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    values = [float(row[key]) for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else 0.0


def _record(tracking: Tracking, verdict: Verdict) -> None:
    tags = {"model": verdict.name, "version": str(verdict.version), "decision": verdict.decision, "who": verdict.who}
    run_id = tracking.start(DECISIONS, f"{verdict.name}-{verdict.version}-{verdict.decision}", tags=tags)
    tracking.log_json(run_id, "verdict.json", verdict.model_dump(mode="json"))
    tracking.finish(run_id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

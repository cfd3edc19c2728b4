"""The append-only record of decisions: one closed MLflow run each, never changed."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.tracking import Tracking
from glioflow.tracking.datasets import prepared_dataset
from glioflow.tracking.run import Opening, open_run

DECISIONS = "decisions"
Decision = Literal["promoted", "rejected", "insufficient-evidence", "rolled-back"]


class Reason(BaseModel):
    """One rule of the gate: measured value, limit, whether it holds, and remarks."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rule: str
    value: float | str | None
    limit: float | str | None
    passed: bool
    note: str = ""


class Verdict(BaseModel):
    """A decision and its evidence.

    Attributes:
        decision: The decision.
        reasons: Every rule with its numbers.
        name: Name of the model.
        version: The version that was judged.
        previous: The champion before; None if there was none.
        test: Digest of the test patients' list.
        times_test_used: How often these patients have judged a version of any model before.
        who: The user who asked for it.
        when: Time of the decision, UTC, ISO 8601.
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


def record(tracking: Tracking, verdict: Verdict, *, sources: str = "", cohort: PreparedCohort | None = None) -> None:
    """Append a decision.

    Args:
        tracking: Tracking that gets the record.
        verdict: The decision and its evidence.
        sources: Fingerprint of the files that the test patients are from.
        cohort: Cohort of the test patients; None if nobody was measured.
    """
    opening = Opening(
        kind="decision",
        experiment=DECISIONS,
        name=f"{verdict.name}-{verdict.version}-{verdict.decision}",
        tags={
            "model": verdict.name,
            "version": str(verdict.version),
            "decision": verdict.decision,
            "who": verdict.who,
            "test": verdict.test,
            "cohort": sources,
        },
        datasets=() if cohort is None else (prepared_dataset(cohort, "testing", test_patients=verdict.test),),
    )
    # No spool: if MLflow is unreachable, the alias is not moved, and a later record must not say that it was.
    with open_run(tracking, opening, keep=False) as run:
        run.log_json("verdict.json", verdict.model_dump(mode="json"))


def decisions(tracking: Tracking, name: str) -> list[Verdict]:
    """Return every recorded decision about `name`, newest first."""
    records = tracking.find_all(DECISIONS, model=name)
    whole = [run.info.run_id for run in records if run.info.status == "FINISHED"]  # others were interrupted
    return [Verdict.model_validate(tracking.read_json(run_id, "verdict.json")) for run_id in whole]


def count_uses(tracking: Tracking, *, test: str, cohort: str) -> int:
    """Return how often these test patients of this cohort have been used to judge a version of any model."""
    return sum(run.info.status == "FINISHED" for run in tracking.find_all(DECISIONS, test=test, cohort=cohort))


def champion_before(newest_first: Sequence[Verdict], present: int) -> int | None:
    """Return the champion before `present` by replaying the record; a rollback undoes promotions after its version."""
    line: list[int] = []
    for verdict in reversed(newest_first):
        if verdict.decision == "promoted":
            line.append(verdict.version)
        elif verdict.decision == "rolled-back" and verdict.version in line:
            del line[_last(line, verdict.version) + 1 :]
    if present in line:  # else the alias was moved by hand, or a recorded rollback was interrupted
        del line[_last(line, present) :]
    return line[-1] if line else None


def _last(line: Sequence[int], version: int) -> int:
    return len(line) - 1 - line[::-1].index(version)

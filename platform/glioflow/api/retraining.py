"""The loop closed: a champion trained again with the corrections that were accepted."""

from dataclasses import dataclass, field
from pathlib import Path

from glioflow import cluster
from glioflow.api.inputs import Overrides, override_list, registered_name, run_of
from glioflow.api.registry import RegisteredVersion
from glioflow.api.results import Result, metrics_table
from glioflow.progress import Say, print_progress
from glioflow.promotion import Reason
from glioflow.reports.tables import Table
from glioflow.runs.retrain.placement import UnusedCorrection, UsedCorrection
from glioflow.runs.retrain.run import AcceptedCorrections
from glioflow.runs.retrain.run import retrain as run_retrain
from glioflow.serving.http.feedback import Feedback


@dataclass(frozen=True)
class RetrainResult(Result):
    """A champion trained again with corrections, and the gate's decision about it.

    Attributes:
        run_id: Id of the training run, or of the cross-validation whose networks became an ensemble.
        name: Name of the registered model.
        version: The new version.
        decision: The gate's decision.
        previous: The champion before.
        used: The corrections that were used: the case that has the mask, and its part of the split.
        unused: The corrections that were not used, and why.
        reasons: Every rule of the gate with its numbers.
        metrics: Metrics of the run, by name.
        networks: Number of networks trained: one, or the folds of an ensemble if the champion is one.
    """

    run_id: str
    name: str
    version: int
    decision: str
    previous: int | None
    used: list[UsedCorrection]
    unused: list[UnusedCorrection]
    reasons: list[Reason] = field(repr=False)
    metrics: dict[str, float | None] = field(repr=False)
    networks: int = 1

    def tables(self) -> list[Table]:
        """Return the corrections, the metrics, and the rules of the gate."""
        rows = [[each.id, each.case, each.part, "new mask" if each.replaces_mask else "new case"] for each in self.used]
        rows += [[each.id, "", "", each.why] for each in self.unused]
        judged = [[r.rule, r.value, r.limit, "yes" if r.passed else "NO", r.note] for r in self.reasons]
        made = "one network" if self.networks == 1 else f"an ensemble of {self.networks} folds"
        title = f"{self.name} version {self.version}, {made} as the champion: {self.decision}"
        return [
            Table("corrections", ["correction", "case", "part", ""], rows),
            metrics_table(self.run_id, self.metrics),
            Table(title, ["rule", "value", "limit", "holds", ""], judged),
        ]


def retrain(
    name: str | RegisteredVersion,
    data: str | Path | None = None,
    *,
    overrides: Overrides = (),
    warm: bool = False,
    resume: str | RetrainResult | None = None,
    say: Say = print_progress,
) -> RetrainResult:
    """Train a champion's experiment again on its cohort with the accepted corrections, and put it through the gate.

    Args:
        name: Name of the registered model, or the result of `register`.
        data: Present folder of the champion's cohort; None takes the recorded one.
        overrides: As for `train`; preprocessing, target and split stay as the champion's.
        warm: Whether to start from the champion's weights, not from new ones.
        resume: Id of an interrupted run of this function.
        say: Called with each line of progress, and with the part of the work that is done, in [0, 1].

    Raises:
        UserError: If there is no champion, its cohort is gone, or no correction is new to it.
        RunFailed: If the training fails; its run can be resumed.
    """
    name = registered_name(name)
    feedback = Feedback()
    cases = [(cohort, case) for cohort in feedback.accepted_cohorts() for case in cohort.cases]
    cases.sort(key=lambda pair: (feedback.accepted_at(pair[1].id), pair[1].id))
    accepted = AcceptedCorrections(cases, feedback.key_of)
    with cluster.ending():
        done = run_retrain(
            name,
            accepted,
            data,
            overrides=override_list(overrides),
            warm=warm,
            resume=None if resume is None else run_of(resume),
            say=say,
        )
    verdict = done.verdict
    return RetrainResult(
        run_id=done.run_id,
        name=verdict.name,
        version=verdict.version,
        decision=verdict.decision,
        previous=verdict.previous,
        used=done.used,
        unused=done.unused,
        reasons=list(verdict.reasons),
        metrics=done.metrics,
        networks=done.networks,
    )

"""The gate's evidence, measured again: two bundles, the recorded cohort and split, scores of the test patients."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from glioflow.bundle.measurement import measure_segmentation
from glioflow.bundle.prediction import Predictor
from glioflow.config.gate import GateSettings
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort, is_prepared
from glioflow.data.prepared.preparation import MapCases, find_or_prepare
from glioflow.data.prepared.remote import recorded_cohort
from glioflow.data.splits import Split
from glioflow.errors import UserError, option
from glioflow.evaluation import Reliability, count_reliability
from glioflow.evaluation.patients import CaseScores, Rows, patient_means
from glioflow.progress import Say, counted, lines_of, quiet
from glioflow.tracking import Tracking, Version
from glioflow.tracking.trained import SPLIT, Trained, read_trained

# Tumor-free voxels below this are certain background, which would hide errors of calibration.
_DOUBTFUL = 0.01


@dataclass(frozen=True)
class Entry:
    """A version with the records of its training."""

    version: Version
    predictor: Predictor
    trained: Trained
    settings: GateSettings

    @property
    def split(self) -> Split:
        """Of its training."""
        return self.trained.split

    @classmethod
    def open(cls, tracking: Tracking, version: Version) -> "Entry":
        """Load a version.

        Raises:
            UserError: If its bundle is not the registered one, or its run did not record its split and experiment.
        """
        predictor = Predictor.load(tracking.bundle_of(version))
        _holder(tracking, version.run_id, SPLIT)
        trained = read_trained(tracking, version.run_id, predictor.description.origin.split)
        if trained is None:
            rule = f"run {version.run_id} records another split than its bundle"
            hint = "register a version from a run that recorded its own split"
            raise UserError(rule, predictor.description.origin.split, hint=hint)
        holder = _holder(tracking, version.run_id, "experiment.yaml")
        experiment = yaml.safe_load(tracking.download(f"runs:/{holder}/experiment.yaml").read_text())
        return cls(version, predictor, trained, GateSettings.model_validate(experiment.get("gate", {})))

    def recorded_cohort(self, tracking: Tracking, data: Path | None, home: Path, say: Say = quiet) -> PreparedCohort:
        """Open the version's recorded cohort, and check its fingerprint.

        Args:
            tracking: Tracking that records it.
            data: Present folder of the cohort, raw or prepared; None takes the recorded path.
            home: Folder of the prepared cohorts.
            say: Called after each case, if it is prepared now.

        Raises:
            UserError: If it does not exist, or differs from the recorded one.
        """
        origin, steps = self.predictor.description.origin, self.predictor.description.preprocess
        target = self.predictor.description.target
        source = data or recorded_cohort(Path(_read_up(tracking, self.version.run_id, "cohort.json")["path"]))
        if not source.exists():
            raise UserError(
                f"the recorded cohort {source} does not exist",
                source,
                hint=f"give the cohort with {option('data', 'DIR')}",
            )
        cohort = find_or_prepare(source, steps, home=home, target=target, map_cases=_saying(say))
        if cohort.manifest.source_fingerprint != origin.source_fingerprint:
            raise UserError(
                f"{source} is not the cohort that version {self.version.version} recorded (fingerprint "
                f"{origin.source_fingerprint})",
                cohort.manifest.source_fingerprint,
                hint=f"give the recorded cohort with {option('data', 'DIR')}",
            )
        return cohort

    def as_it_sees(self, cohort: PreparedCohort, data: Path | None, home: Path, say: Say = quiet) -> PreparedCohort:
        """Return another version's cohort with this one's preprocessing.

        Raises:
            UserError: If that is another one and `data` is not a raw cohort.
        """
        steps = self.predictor.description.preprocess
        if cohort.manifest.steps == steps:
            return cohort
        if data is None or is_prepared(data):
            raise UserError(
                f"champion {self.version.version} was trained with another preprocessing, for which the raw cohort is "
                "needed",
                data,
                hint=f"give the raw cohort with {option('data', 'DIR')}",
            )
        target = self.predictor.description.target
        return find_or_prepare(data, steps, home=home, target=target, map_cases=_saying(say))


def _saying(say: Say) -> MapCases:
    """Return how to prepare cases one by one, with a line after each."""
    lines = lines_of(say)
    return lambda prepare, cases: map(prepare, counted(list(cases), "preparing the cohort: case", lines))


@dataclass(frozen=True)
class Measured:
    """Results of a version on the test patients.

    Attributes:
        rows: As `prediction.measure` gives them.
        reliability: Reliability of the probability of any tumor, over doubtful voxels and those that are tumor.
        latency_s: Median time for one study, prepared image to mask.
    """

    rows: list[CaseScores]
    reliability: Reliability
    latency_s: float

    def mean(self, key: str) -> float | None:
        """Return the mean of a metric over the patients for whom it is defined."""
        return mean(self.rows, key)


def measure_anew(predictor: Predictor, cases: Sequence[PreparedCase], *, say: Say = quiet) -> Measured:
    """Measure a version on labeled cases, at least one."""
    rows, times, reliabilities = [], [], []
    for case in counted(cases, "case", say):
        began = time.perf_counter()
        segmentation = predictor.segment(case.image, case.record.moves)
        times.append(time.perf_counter() - began)
        rows.append(measure_segmentation(segmentation, case, predictor.description.target))
        truth = case.reference() > 0
        voxels = truth | (segmentation.tumor_probability >= _DOUBTFUL)
        probability = np.clip(segmentation.tumor_probability[voxels], 0, 1)
        reliabilities.append(count_reliability(probability, truth[voxels]))
    total = reliabilities[0]
    for reliability in reliabilities[1:]:
        total = total + reliability
    return Measured(rows, total, statistics.median(times))


def mean(rows: Rows, key: str) -> float | None:
    """Return the mean of a metric over the patients for whom it is defined; None without any."""
    values = patient_means(rows, key).values()
    return statistics.fmean(values) if values else None


def _read_up(tracking: Tracking, run_id: str, artifact: str) -> Any:
    """Read an artifact of a run, or of the search it belongs to."""
    return tracking.read_json(_holder(tracking, run_id, artifact), artifact)


def _holder(tracking: Tracking, run_id: str, artifact: str) -> str:
    if tracking.has_artifact(run_id, artifact):
        return run_id
    parent = tracking.run(run_id).data.tags.get("mlflow.parentRunId")
    if parent is None:
        raise UserError(
            f"run {run_id} did not record {artifact}, which the gate needs",
            run_id,
            hint="register a version from a run of train, search or crossval",
        )
    return str(parent)

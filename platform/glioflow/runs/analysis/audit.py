"""The leakage audit of an experiment as a run: its leaks, and how much a leak would inflate its score."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from glioflow import audit, cluster
from glioflow.audit.gap import Kind
from glioflow.audit.leaks import Leak
from glioflow.cluster.storage import data_folder
from glioflow.config import Experiment, data_source, override
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.splits import Split, SplitSettings, by_case, check_split, make_split, read_split
from glioflow.errors import UserError
from glioflow.progress import Say, quiet
from glioflow.quantities import count
from glioflow.reports.audit_page import audit_page
from glioflow.runs.analysis.leakage_gap import Gap, measure_gap
from glioflow.runs.launch import (
    Setting,
    check_machine,
    check_weights,
    connect_for,
    open_cohort_for,
    opening_of,
)
from glioflow.runs.source import list_source, try_steps
from glioflow.survival import patient_key, read_clinical
from glioflow.tracking import Tracking
from glioflow.tracking.run import Run, open_run
from glioflow.tracking.spool import run_folder

if TYPE_CHECKING:
    import pandas as pd

    from glioflow.survival.leakage_example import LeakageExample


class SplitDice(TypedDict):
    """Mean Dice under both kinds of split; None if nothing was trained."""

    slice_split_dice: float | None
    patient_split_dice: float | None


class AuditAnswer(SplitDice):
    """An audit in JSON; the scores other than the baselines' are the network's.

    Keys:
        leaks: `rule` and `value` of each.
        baselines: Dice of the baselines that need no training, by name.
        scores: Scores by kind of split, then by predictor.
        death01_example: Accuracies of the reproduced published score, by name; None if it was not reproduced.
        notes: Parts that were left out, and why.
        run_id: The run with the report.
    """

    leaks: list[dict[str, str]]
    baselines: dict[str, SplitDice]
    scores: dict[str, dict[str, dict[str, float]]]
    death01_example: dict[str, float] | None
    notes: list[str]
    run_id: str


@dataclass(frozen=True)
class Audited:
    """Result of an audit.

    Attributes:
        run_id: MLflow run with `audit.json` and `audit.html`.
        leaks: Leaks of the experiment.
        gap: Scores of network and baselines by kind of split; None if the experiment leaks or they were not requested.
        example: The reproduced published death01 score; None if the clinical table does not allow it.
        notes: Parts that were left out, and why.
    """

    run_id: str
    leaks: list[Leak]
    gap: Gap | None
    example: "LeakageExample | None"
    notes: list[str]

    def answer(self) -> AuditAnswer:
        """Return the result as plain numbers, lists and strings."""
        scores = {} if self.gap is None else self.gap
        names = [name for name in scores.get("slice", {}) if name != "network"]

        def dice(kind: Kind, name: str) -> float | None:
            return scores[kind][name].dice if scores else None

        return {
            "leaks": [leak.model_dump() for leak in self.leaks],
            "slice_split_dice": dice("slice", "network"),
            "patient_split_dice": dice("patient", "network"),
            "baselines": {
                name: {"slice_split_dice": dice("slice", name), "patient_split_dice": dice("patient", name)}
                for name in names
            },
            "scores": {
                str(kind): {name: s.model_dump() for name, s in by_name.items()} for kind, by_name in scores.items()
            },
            "death01_example": None if self.example is None else self.example.model_dump(),
            "notes": self.notes,
            "run_id": self.run_id,
        }


def audit_experiment(
    experiment: Experiment,
    data: str | Path | None,
    *,
    clinical: Path | None = None,
    outcomes: Path | None = None,
    seen: Sequence[Path] = (),
    train: bool = True,
    say: Say = quiet,
) -> Audited:
    """Look for leaks, and where there are none measure what they would have done.

    Args:
        experiment: The experiment to audit.
        data: Cohort, raw or prepared; None takes the experiment's.
        clinical: Clinical table; None takes the one beside the cases, if there is one.
        outcomes: Follow-up besides it.
        seen: Other cohorts that something was learned from, such as those behind pretrained weights.
        train: Whether to train under both kinds of split.
        say: Called with each line of progress.

    Raises:
        UserError: If anything given is wrong in itself.
    """
    source = data_source(data, experiment.data.source)
    _check_readable(clinical, outcomes, seen)
    listed = list_source(experiment, source)
    alone = override(experiment, {"training.num_workers": 1})  # the gap trains with one worker
    if train:
        check_machine(alone)
    tracking = Tracking()
    channels = len(try_steps(listed, [experiment.preprocess])[0].channels)
    if train:
        check_weights(alone.resolved, channels)
    cohort = open_cohort_for(experiment.preprocess, listed, experiment.target, say=say)
    split = _split_as_given(experiment.split, cohort)
    setting = Setting(experiment, cohort, split, tracking)
    notes: list[str] = []
    table = _read_table(cohort, clinical, outcomes, notes)
    leaks = [*_split_leaks(setting, Path(source), seen), *_table_leaks(experiment, table, notes)]
    say(count(len(leaks), "leak") if leaks else "no leak found")
    if not leaks:
        check_split(split, cohort.entries())
    train = train and not leaks and _has_gap(setting, notes)
    if train:
        connect_for(alone, tracking)
        if cluster.is_elsewhere():
            check_weights(alone.resolved, channels)
    with open_run(tracking, opening_of(setting, "audit", f"{experiment.name}-audit")) as run:
        gap = example = None
        if leaks:
            notes.append("nothing was trained: the experiment leaks")
        else:
            example = _example(cohort, table, notes)
            gap = measure_gap(setting, run_folder(run.run_id), say) if train else None
        audited = Audited(run.run_id, leaks, gap, example, notes)
        _log(run, audited, experiment.name)
    return audited


def _check_readable(clinical: Path | None, outcomes: Path | None, seen: Sequence[Path]) -> None:
    """Refuse a clinical table or another cohort that cannot be read, before any long work begins."""
    for path in (clinical, outcomes):
        if path is not None:
            read_clinical(path)
    for path in seen:
        audit.cases_of(path)


def _split_as_given(settings: SplitSettings, cohort: PreparedCohort) -> Split:
    """Return the split of an experiment, including any leaks in a split file."""
    if settings.method == "file":
        return by_case(read_split(settings, data_folder()), cohort.records)
    return make_split(cohort.entries(), settings, folder=data_folder())


def _read_table(
    cohort: PreparedCohort, clinical: Path | None, outcomes: Path | None, notes: list[str]
) -> "pd.DataFrame | None":
    """Return the clinical table, or only a note if the table beside the cases cannot be read."""
    path = clinical or cohort.clinical
    try:
        return None if path is None else read_clinical(path, outcomes=outcomes)
    except UserError as error:
        if clinical is not None or outcomes is not None:
            raise
        notes.append(f"the cohort's clinical table cannot be used: {error}")
        return None


def _split_leaks(setting: Setting, source: Path, seen: Sequence[Path]) -> list[Leak]:
    split, records = setting.split, setting.cohort.entries()
    aliases, known = audit.read_aliases([source, *seen]), {record.id for record in records}
    leaks = audit.find_split_leaks(split, records, aliases=aliases)
    leaks += audit.find_in_other_cohorts(split, setting.cohort, seen, aliases)
    earlier = {
        run.info.run_name: Split.model_validate(setting.tracking.read_json(run.info.run_id, "split.json"))
        for run in setting.tracking.find_all(setting.experiment.name, kind="search")
        if run.data.tags.get("glioflow.cohort_source") == setting.cohort.manifest.source_fingerprint
    }
    leaks += audit.find_selection_leaks(split, setting.experiment.search.model_dump(mode="json"), earlier)
    listed = {case_id for part in (split.train, split.val, split.test) for case_id in part if case_id in known}
    return leaks + audit.find_image_leaks(split, setting.cohort.cases(sorted(listed)))


def _table_leaks(experiment: Experiment, table: "pd.DataFrame | None", notes: list[str]) -> list[Leak]:
    leaks = audit.find_input_leaks(experiment.survival, table)
    if table is None:
        notes.append("no clinical table: the survival stage's inputs are known by their names alone")
        return leaks
    leaks += audit.find_filled_columns(table)
    if not leaks:
        alone = experiment.survival.model_copy(update={"shape_features": ()})
        try:
            leaks += audit.find_preparation_leaks(table, alone)
        except UserError as error:
            notes.append(f"the survival stage's folds were not tried: {error}")
    return leaks


def _example(cohort: PreparedCohort, table: "pd.DataFrame | None", notes: list[str]) -> "LeakageExample | None":
    from glioflow.survival.leakage_example import rebuild_leakage

    if table is None:
        return None
    try:
        return rebuild_leakage(table, slice_features(cohort))
    except UserError as error:
        notes.append(f"the death01 example was not rebuilt: {error}")
        return None


def slice_features(cohort: PreparedCohort) -> "pd.DataFrame":
    """Return one row per slice, indexed by patient: area, centroid and spread of its tumor, zeros without one."""
    import pandas as pd

    from glioflow.features.flat import measure_slice

    names = ("area_px", "centroid_row_px", "centroid_column_px", "coordinate_std_row_px", "coordinate_std_column_px")
    rows, patients = [], []
    for record in cohort.records:
        if record.areas_px is None:
            continue
        for plane in np.asarray(cohort.case(record.id).mask) > 0:
            measured = measure_slice(plane) if plane.any() else {}
            rows.append([float(measured.get(name) or 0) for name in names])
            patients.append(patient_key(record.patient))
    return pd.DataFrame(rows, columns=list(names), index=pd.Index(patients, name="patient"))


def _has_gap(setting: Setting, notes: list[str]) -> bool:
    """Return whether a split by slice can be compared with the split by patient; if not, note why."""
    if setting.experiment.training.sampling.patch is not None:
        notes.append("no leakage gap: this network takes volumes, which no split cuts into slices")
        return False
    if not setting.split.test:
        notes.append("no leakage gap: the split has no test patients")
        return False
    return True


def _log(run: Run, audited: Audited, name: str) -> None:
    answer = audited.answer()
    metrics = {"audit/num_leaks": float(len(audited.leaks))}
    for kind, by_model in (audited.gap or {}).items():
        for model, scores in by_model.items():
            metrics |= {f"audit/{kind}_split/{model}/{key}": float(v) for key, v in scores.model_dump().items()}
    run.log_metrics(metrics)
    run.log_json("audit.json", answer)
    example = None if audited.example is None else audited.example.model_dump()
    run.log_text("audit.html", audit_page(name, answer["leaks"], answer["scores"], example, audited.notes))

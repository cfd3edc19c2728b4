"""Registration of a finished run's bundle, with an optional survival stage, as a model version."""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from glioflow import bundle
from glioflow.bundle.card import CARD, CARD_HTML, card, card_html, subgroup_metrics
from glioflow.bundle.prediction import Predictor
from glioflow.bundle.starter import check_not_reserved
from glioflow.cluster.storage import home
from glioflow.evaluation import VolumeInterval
from glioflow.promotion.golden import GOLDEN, golden_answer, golden_study
from glioflow.runs.analysis.survival import masks_of, read_stage
from glioflow.runs.crossval.ensemble import make_ensemble
from glioflow.runs.crossval.run import VOLUME_INTERVAL
from glioflow.runs.recorded import check_finished, is_scored
from glioflow.runs.train.test_patients import PER_PATIENT
from glioflow.tracking import BUNDLE, CHALLENGER, Tracking, Version

# Tags of a run that appear in its versions' cards.
_LINEAGE = ("mlflow.source.git.commit", "glioflow.dirty", "glioflow.source", "python")


def register(
    run_id: str, *, name: str | None = None, survival: str | None = None, crossval: str | None = None
) -> Version:
    """Register the bundle of a run as the next version of a model, and make it the challenger.

    Args:
        run_id: A finished training, trial or cross-validation, which becomes the ensemble of its folds.
        name: Name of the model; None takes the experiment's name.
        survival: Run id of a survival stage to put inside.
        crossval: Run id of a cross-validation whose interval for the tumor volume is put inside; None takes `run_id`
            if it is one, else the one on whose masks the survival stage was fitted, if any.

    Raises:
        UserError: If a run does not exist, is not finished and not scored, has no bundle, stage or interval, or has a
            bundle that cannot be loaded.
    """
    if name is not None:
        check_not_reserved(name)
    tracking = Tracking()
    run = tracking.run(run_id)
    if run.data.tags.get("glioflow.kind") == "crossval":
        make_ensemble(tracking, run_id)
        run = tracking.run(run_id)  # read again: it now has scores of the test patients
        crossval = crossval or (run_id if tracking.has_artifact(run_id, VOLUME_INTERVAL) else None)
    elif not is_scored(run) and tracking.has_artifact(run_id, BUNDLE):
        check_finished(run, "registered")
    folder = tracking.download(f"runs:/{run_id}/{BUNDLE}")
    stage = read_stage(survival) if survival else None
    metrics = {key: float(value) for key, value in run.data.metrics.items() if key.startswith(("val/", "test/"))}
    out = home() / "making" / uuid.uuid4().hex
    try:
        known = {**metrics, **_subgroups(tracking, run_id)}
        interval = _volume_interval(tracking, crossval, survival)
        bundle.with_stage(folder, out, survival=stage, metrics=known, volume_interval=interval)
        predictor = Predictor.load(out)
        description = predictor.description
        name = name or description.origin.experiment
        check_not_reserved(name)
        documents = {
            **cards(out, title=name, lineage=lineage(run, survival)),
            GOLDEN: json.dumps(golden_answer(predictor)),
        }
        tags = {
            "glioflow.test": description.origin.test,
            "glioflow.cohort": description.origin.fingerprint,
            **({"glioflow.survival_run": survival} if survival else {}),
        }
        example = golden_study(description).image[:2]
        made = tracking.register(name, run_id, out, tags=tags, documents=documents, example=example)
        tracking.set_alias(name, CHALLENGER, made.version)
        return made
    finally:
        shutil.rmtree(out, ignore_errors=True)


def cards(folder: Path, *, title: str, lineage: dict[str, str]) -> dict[str, str]:
    """Return the card of the bundle in `folder` by file name, in Markdown and HTML."""
    description = bundle.read_description(folder)
    stage = folder / bundle.SURVIVAL
    task = json.loads(stage.read_text()).get("task") if stage.is_file() else None
    return {
        CARD: card(description, title=title, survival=task, lineage=lineage),
        CARD_HTML: card_html(description, title=title, survival=task, lineage=lineage),
    }


def lineage(run: Any, survival: str | None = None) -> dict[str, str]:
    """Return the facts about a bundle's run that its card states."""
    tags = run.data.tags
    facts = {key.split(".")[-1].replace("_", " "): tags[key] for key in _LINEAGE if key in tags}
    return {"run": run.info.run_id, **facts, **({"survival stage of run": survival} if survival else {})}


def _volume_interval(tracking: Tracking, crossval: str | None, survival: str | None) -> VolumeInterval | None:
    """Read the interval of the given cross-validation, or of the one behind the survival stage's masks."""
    if crossval is None and survival is not None:
        masks = masks_of(tracking.run(survival))
        crossval = masks if masks and tracking.has_artifact(masks, VOLUME_INTERVAL) else None
    if crossval is None:
        return None
    return VolumeInterval.model_validate(tracking.read_json(crossval, VOLUME_INTERVAL))


def _subgroups(tracking: Tracking, run_id: str) -> dict[str, float | None]:
    if not tracking.has_artifact(run_id, PER_PATIENT):
        return {}
    return subgroup_metrics(tracking.read_json(run_id, PER_PATIENT))

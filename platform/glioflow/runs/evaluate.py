"""A model on a labeled cohort: per patient, summed up, beside its baselines."""

from pathlib import Path
from typing import Any

from glioflow import cluster
from glioflow.config.places import prepared_home
from glioflow.data.prepared import find_or_prepare
from glioflow.errors import UserError
from glioflow.evaluation import summarize
from glioflow.prediction import Predictor, measure, measure_empty, measure_flair_threshold
from glioflow.tracking import Tracking

# Two experts on LGG against each other (Buda, Saha, Mazurowski 2019).
HUMAN_LGG = {"dice_mean": 0.84, "dice_std": 0.02}


def evaluate(model: str, source: Path) -> dict[str, Any]:
    """Measure a model on every labeled patient of a cohort.

    Args:
        model: A bundle's folder, a run, or a registered model.
        source: The cohort, raw or prepared with the model's own preprocessing.

    Returns:
        `per_patient`, `dice_mean`, `dice_median`, `dice_ci95`, `baselines`, `num_parameters` and the other summaries.

    Raises:
        UserError: If the model or the cohort cannot be read, or no case has a mask.
    """
    local = Path(model)
    if (local / "model.json").is_file():
        predictor = Predictor.load(local)
    else:
        tracking = Tracking()
        predictor = Predictor.load(tracking.find_bundle(model)[0])
    said = predictor.description
    if not source.exists():
        raise UserError("the cohort must exist", source)
    cohort = find_or_prepare(source, said.preprocess, home=prepared_home(), map_cases=cluster.map_parallel)
    if cohort.channels != said.network_channels:
        raise UserError(f"this model takes the channels {list(said.network_channels)}", list(cohort.channels))
    cases = cohort.cases(record.id for record in cohort.records if record.areas_px is not None)
    if not cases:
        raise UserError("an evaluation needs cases with masks", source)
    rows = measure(predictor, cases)
    baselines = {"all_empty": _dice(measure_empty(said.target, cases))}
    if (bright := measure_flair_threshold(said, cases)) is not None:
        baselines["flair_threshold"] = _dice(bright)
    if cohort.manifest.format == "lgg":
        baselines["human"] = HUMAN_LGG
    return {"per_patient": rows, **summarize(rows), "baselines": baselines, "num_parameters": said.num_parameters}


def _dice(rows: list[dict[str, Any]]) -> dict[str, float]:
    summary = summarize(rows)
    return {"dice_mean": summary["dice_mean"], "dice_median": summary["dice_median"]}

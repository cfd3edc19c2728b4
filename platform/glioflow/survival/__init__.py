"""From shape features and clinical values to a risk, with its honest evaluation: `death01` or time to event."""

from glioflow.survival.clinical import features_of_patients, join_features, patient_key, read_clinical
from glioflow.survival.evaluation import SurvivalEvaluation, evaluate_stage
from glioflow.survival.settings import SurvivalSettings
from glioflow.survival.stage import SurvivalAnswer, SurvivalStage, fit_stage

__all__ = [
    "SurvivalAnswer",
    "SurvivalEvaluation",
    "SurvivalSettings",
    "SurvivalStage",
    "evaluate_stage",
    "fit_stage",
    "features_of_patients",
    "join_features",
    "patient_key",
    "read_clinical",
]

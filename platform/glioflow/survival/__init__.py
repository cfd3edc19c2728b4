"""Survival stage: a risk from shape features and clinical values, with its evaluation; `death01` or time to event."""

from glioflow.survival.clinical_csv import patient_key
from glioflow.survival.clinical_table import read_clinical
from glioflow.survival.evaluated import SurvivalEvaluation
from glioflow.survival.patient_features import features_of_patients, join_features
from glioflow.survival.settings import SurvivalSettings
from glioflow.survival.stage import SurvivalAnswer, SurvivalStage

__all__ = [
    "SurvivalAnswer",
    "SurvivalEvaluation",
    "SurvivalSettings",
    "SurvivalStage",
    "features_of_patients",
    "join_features",
    "patient_key",
    "read_clinical",
]

"""The experiment: what one YAML file may say, and where things live. Unknown keys are errors."""

from glioflow.config.experiment import Experiment, load_experiment, override
from glioflow.config.places import data_source, home

__all__ = ["Experiment", "data_source", "home", "load_experiment", "override"]

"""The experiment: the keys of its YAML file, and where files are stored. Unknown keys are errors."""

from glioflow.cluster.storage import data_source, home
from glioflow.config.experiment import Experiment, load_experiment, load_recorded, override, with_augmentation

__all__ = ["Experiment", "data_source", "home", "load_experiment", "load_recorded", "override", "with_augmentation"]

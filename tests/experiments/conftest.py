"""Two tiny cohorts, one of each kind that the experiment files are about."""

from collections.abc import Callable
from pathlib import Path

import pytest

from glioflow.config import Experiment
from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg


@pytest.fixture(scope="session")
def cohort_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Experiment], Path]:
    """Return a function that gives an experiment the raw cohort of four patients that is of its kind; read only."""
    root = tmp_path_factory.mktemp("cohorts")
    synthesize_lgg(root / "kaggle_3m", patients=4, seed=1, size=48, slices=(4, 5))
    synthesize_brats(root / "brats", patients=4, seed=1, size=40, slices=72)  # slices 60 to 135 leave twelve
    return lambda experiment: root / ("brats" if (experiment.data.source or "").startswith("brats") else "kaggle_3m")

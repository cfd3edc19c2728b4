"""What the network says in its own geometry comes back to the original one, whatever the steps of an experiment."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from shrunk import FILES

from glioflow.config import Experiment, load_experiment
from glioflow.data.case import Case
from glioflow.data.formats.detect import open_cohort
from glioflow.data.preprocessing.geometry import restore
from glioflow.data.preprocessing.pipeline import Volume, preprocess
from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg
from glioflow.evaluation import dice_per_case

# One experiment for each combination of steps that there is.
COMBINATIONS = {repr(load_experiment(path).preprocess): load_experiment(path) for path in FILES}
EXPERIMENTS = list(COMBINATIONS.values())


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Experiment], Case]:
    """Return a function that gives an experiment a case of its kind, at half the real size."""
    root = tmp_path_factory.mktemp("half")
    synthesize_lgg(root / "lgg", patients=1, seed=3, size=128, slices=(24, 24))
    synthesize_brats(root / "brats", patients=1, seed=5, size=120, slices=140)

    def case_of(experiment: Experiment) -> Case:
        brats = (experiment.data.source or "").startswith("brats")
        cohort = open_cohort(root / ("brats" if brats else "lgg"))
        return cohort.read(cohort.cases[0].id)

    return case_of


def shapes(case: Case) -> list[Case]:
    """Return the case as it is, and cut to odd sides of which none is like another."""
    s, h, w = case.shape
    cut = np.s_[: s - 1, h // 10 :, : w - 9]
    assert case.mask is not None
    return [case, replace(case, image=case.image[cut], mask=case.mask[cut], slice_numbers=case.slice_numbers[: s - 1])]


def seen(case: Case, volume: Volume) -> NDArray[np.bool_]:
    """Return where in the original geometry the network looked at all."""
    return np.asarray(restore(np.ones(volume.image.shape[:3], np.float32), volume.moves)) > 0.5


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_labels_come_back_in_place(experiment: Experiment, case_of: Callable[[Experiment], Case]) -> None:
    for case in shapes(case_of(experiment)):
        volume = preprocess(case, experiment.preprocess)
        assert volume.mask is not None
        assert case.mask is not None
        assert volume.mask.shape == volume.image.shape[:3]
        back = np.asarray(restore(volume.mask, volume.moves))
        assert back.shape == case.shape
        assert back.dtype == np.uint8
        looked = seen(case, volume)
        assert not back[~looked].any()
        for label in np.unique(case.mask[case.mask > 0]):
            assert dice_per_case(back == label, (case.mask == label) & looked) > 0.85, label


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_probabilities_of_several_outputs_come_back_in_place(
    experiment: Experiment, case_of: Callable[[Experiment], Case]
) -> None:
    case = shapes(case_of(experiment))[1]
    volume = preprocess(case, experiment.preprocess)
    assert volume.mask is not None
    assert case.mask is not None
    outputs = np.stack([volume.mask > 0, volume.mask == 1, volume.mask == 0], axis=-1).astype(np.float32)
    back = np.asarray(restore(outputs, volume.moves))
    assert back.shape == (*case.shape, 3)
    assert back.min() >= 0
    assert back.max() <= 1 + 1e-6
    looked = seen(case, volume)
    assert looked[case.mask > 0].any()
    assert dice_per_case(back[..., 0] > 0.5, (case.mask > 0) & looked) > 0.9


def test_the_crops_of_the_experiments_lose_no_tumor(case_of: Callable[[Experiment], Case]) -> None:
    for experiment in EXPERIMENTS:
        if any(step.step == "slice_range" for step in experiment.preprocess):
            continue  # as published: tumor outside of the range is missed, and counted so
        case = case_of(experiment)
        assert case.mask is not None
        assert seen(case, preprocess(case, experiment.preprocess))[case.mask > 0].mean() > 0.99, experiment.name

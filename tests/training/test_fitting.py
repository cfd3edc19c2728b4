"""What validates a network between two epochs."""

import numpy as np
import pytest
import torch
from torch import nn

from bundles import Bright
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.evaluation import PostprocessSettings, dice_per_case
from glioflow.evaluation.settings import InferenceSettings
from glioflow.models import LossSettings, ModelSettings
from glioflow.training.fitting import build_and_fit, validate, validate_at_network_size
from glioflow.training.settings import TrainingSettings


@pytest.fixture
def cases(prepared):
    return prepared.cases([record.id for record in prepared.records[:3]])


def dice_of(cases, tiny, **options):
    return validate(
        Bright(above=0.1),
        cases,
        target=tiny.target,
        inference=InferenceSettings(),
        postprocess=PostprocessSettings(),
        precision="fp32",
        **options,
    )


def test_a_transformer_that_resamples_its_positions_is_refused_in_deterministic_mode_on_a_gpu(cases, monkeypatch):
    monkeypatch.setattr("glioflow.training.fitting.choose_device", lambda: torch.device("cuda"))
    chosen = TrainingSettings(deterministic=True)
    never = lambda *_: pytest.fail("it was trained")  # noqa: E731
    height, width = cases[0].record.prepared_shape[1:]
    try:
        with pytest.raises(UserError, match=rf"slices of 224 x 224; got {height} x {width}; resize to that size"):
            build_and_fit(
                ModelSettings(architecture="dpt"), LossSettings(), TargetSettings(), chosen, cases, never, never
            )
    finally:
        torch.use_deterministic_algorithms(False)


def test_validation_is_the_mean_dice_of_whole_volumes_in_the_original_geometry(cases, tiny):
    shown = {}
    metrics = dice_of(cases, tiny, show=lambda case, mask: shown.setdefault(case.record.id, mask))
    expected = [dice_per_case(shown[case.record.id], case.reference() > 0) for case in cases]
    assert metrics == {"val/dice": pytest.approx(float(np.mean(expected)), abs=0)}
    assert 0 < metrics["val/dice"] < 1


def test_each_worker_measures_its_share(cases, tiny):
    shown = []
    dice_of(cases, tiny, rank=1, world_size=2, show=lambda case, _: shown.append(case.record.id))
    assert shown == [cases[1].record.id]


def test_nothing_is_measured_where_nobody_validates(tiny):
    assert dice_of([], tiny) == {}


def test_a_patient_with_two_scans_counts_once(cases, tiny):
    alone = [dice_of([case], tiny)["val/dice"] for case in cases]
    person = {"patient": cases[0].record.patient}
    second = PreparedCase(cases[1].record.model_copy(update=person), cases[1].folder)
    found = dice_of([cases[0], second, cases[2]], tiny)["val/dice"]
    assert found == pytest.approx(((alone[0] + alone[1]) / 2 + alone[2]) / 2)
    assert found != pytest.approx(sum(alone) / 3)


@pytest.mark.parametrize(
    "target",
    [
        TargetSettings(),
        TargetSettings(kind="multiclass", labels=(1,)),
        TargetSettings(kind="regions", regions={"any": (1,), "core": (1, 2)}, decode={"any": 1, "core": 1}),
    ],
    ids=lambda target: target.kind,
)
def test_validation_at_network_size_is_the_mean_dice_of_prepared_masks_by_patient(cases, target):
    class Fixed(nn.Module):
        """Tumor where a channel is bright, in every output but the background."""

        def __init__(self):
            super().__init__()
            self.device = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            logits = 100 * (images[:, 1:2] - 0.1)
            return torch.cat([-logits] * (target.num_outputs - len(target.names)) + [logits] * len(target.names), 1)

    expected = []
    for case in cases:
        found = np.asarray(case.image[..., 1], np.float32) > 0.1
        truth = target.split(np.asarray(case.mask))
        expected.append(np.mean([dice_per_case(found, truth[name]) for name in target.names]))
    person = {"patient": cases[0].record.patient}
    second = PreparedCase(cases[1].record.model_copy(update=person), cases[1].folder)
    options = {"target": target, "inference": InferenceSettings(batch_size=3), "threshold": 0.5, "precision": "fp32"}
    metrics = validate_at_network_size(Fixed(), [cases[0], second, cases[2]], **options)
    mean = ((expected[0] + expected[1]) / 2 + expected[2]) / 2
    assert metrics == {"val/dice_at_network_size": pytest.approx(mean, abs=1e-12)}
    assert 0 < mean < 1
    assert validate_at_network_size(Fixed(), [], **options) == {}

from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from glioflow.data.batches.sampling import PatchBatches
from glioflow.data.batches.settings import SamplingSettings
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.preparation import prepare
from glioflow.data.preprocessing.intensity_steps import ZScore
from glioflow.data.synthetic.cohort import synthesize_brats
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError

REGIONS = TargetSettings(kind="regions", regions={"WT": (1, 2, 4), "ET": (4,)}, decode={"WT": 2, "ET": 4})


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    path = tmp_path_factory.mktemp("patches")
    synthesize_brats(path / "brats", patients=2, seed=0, size=48, slices=30)
    made = prepare(open_cohort(path / "brats"), path / "out", (ZScore(nonzero=True),))
    return made.cases(record.id for record in made.records)


def batches(cases, method="tumor", patch=(16, 24, 20), **more):
    keys = {"augmentation": "none", "tumor_patches": more.pop("tumor_patches", 0.5)} | (
        {"augmentation": more.pop("augmentation")} if "augmentation" in more else {}
    )
    settings = SamplingSettings(method=method, patch=patch, **keys)
    return PatchBatches(cases, REGIONS, settings, **{"batch_size": 3, "seed": 0, **more})


def same(one, other):
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(one, other, strict=True))


def test_patches_are_what_the_network_and_the_loss_take(cases):
    loader = batches(cases)
    images, targets = loader.batch(0)
    assert images.shape == (3, 4, 16, 24, 20)
    assert targets.shape == (3, 2, 16, 24, 20)
    assert loader.steps_per_pass == 2 * 30 * 48 * 48 // (16 * 24 * 20 * 3)


def test_a_patch_is_cut_from_its_place(cases):
    loader = batches(cases)
    images, targets = loader.batch(4)
    for index, (number, window) in enumerate(loader.draw(4)):
        a, b, c = window.start
        part = cases[number].image[a : a + 16, b : b + 24, c : c + 20].astype(np.float32)
        assert np.array_equal(images[index].numpy(), np.moveaxis(part, -1, 0))
        assert np.array_equal(targets[index, 0].numpy(), cases[number].mask[a : a + 16, b : b + 24, c : c + 20] > 0)


@pytest.mark.parametrize("storage", ["host", "device"])
@pytest.mark.parametrize("patch", [(16, 24, 20), (40, 48, 52)])
def test_a_patch_is_the_same_wherever_the_arrays_lie(cases, storage, patch):
    there = batches(cases, patch=patch, storage=storage)
    here = batches(cases, patch=patch)
    assert all(same(one, other) for one, other in zip(here.steps(0, 5), there.steps(0, 5), strict=True))


@pytest.mark.parametrize("augmentation", ["none", "strong"])
def test_a_batch_is_a_function_of_seed_and_step(cases, augmentation):
    one = list(batches(cases, augmentation=augmentation).steps(0, 4))
    resumed = list(batches(cases, augmentation=augmentation).steps(2, 4))
    assert all(same(a, b) for a, b in zip(one[2:], resumed, strict=True))
    assert not same(one[0], one[1])
    assert not same(one[0], batches(cases, augmentation=augmentation, seed=1).batch(0))


def test_tumor_patches_hold_tumor_and_uniform_ones_seldom_do(cases):
    def share(**settings):
        loader = batches(cases, patch=(4, 8, 8), **settings)
        hits = [
            bool(window.apply(loader.cases[number].mask).any())
            for step in range(60)
            for number, window in loader.draw(step)
        ]
        return float(np.mean(hits))

    assert share(tumor_patches=1.0) == 1.0
    assert share(method="uniform") < 0.35
    assert 0.4 < share(tumor_patches=0.5) < 0.75


def test_workers_share_one_draw(cases):
    whole = batches(cases, batch_size=6).draw(3)
    workers = [batches(cases, batch_size=2, rank=rank, world_size=3).draw(3) for rank in range(3)]
    assert [workers[index % 3][index // 3] for index in range(6)] == whole


def test_a_patch_larger_than_the_volume_has_it_in_its_middle(cases):
    images, _ = batches(cases, patch=(40, 48, 52)).batch(0)
    assert images.shape == (3, 4, 40, 48, 52)
    assert not images[:, :, :5].any()
    assert not images[:, :, 35:].any()
    assert images[:, :, 5:35].any()


def test_mistakes_are_named(cases):
    with pytest.raises(ValidationError, match=r"buda is for slices only.*light"):
        batches(cases, augmentation="buda")
    with pytest.raises(UserError, match=r"sampling\.patch"):
        PatchBatches(cases, REGIONS, SamplingSettings(), batch_size=1, seed=0).batch(0)
    with pytest.raises(ValidationError, match="for slices only"):
        SamplingSettings(method="epoch", patch=(8, 8, 8))


def test_cases_are_those_that_numpys_choice_draws(cases):
    many = [cases[k % 2] for k in range(30)]
    loader = batches(many, tumor_patches=0.0, batch_size=1)
    for step in range(40):
        chosen = np.random.default_rng([0, step]).choice(len(many), p=loader.weights)
        assert loader.draw(step)[0][0] == chosen


def test_a_draw_touches_only_the_drawn_cases():
    class Counted(list):
        """Cases that count how often one is read."""

        reads = 0

        def __getitem__(self, index):
            type(self).reads += 1
            return super().__getitem__(index)

    loader = batches([labeled(f"patient-{k // 3}", k) for k in range(900)], tumor_patches=0.0, batch_size=2)
    loader.cases = Counted(loader.cases)
    assert np.allclose(loader.weights, 1 / 900)
    loader.draw(0)
    assert Counted.reads == 2


def labeled(patient, number):
    record = SimpleNamespace(id=str(number), patient=patient, areas_px=(1,) * 20, prepared_shape=(20, 24, 24))
    return SimpleNamespace(record=record)

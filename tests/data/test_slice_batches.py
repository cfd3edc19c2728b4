from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from glioflow.data.batches.sampling import SliceBatches
from glioflow.data.batches.settings import SamplingSettings
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.preparation import prepare
from glioflow.data.preprocessing.geometry_steps import ResizePlane
from glioflow.data.preprocessing.intensity_steps import UnitScale
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    path = tmp_path_factory.mktemp("loaders")
    synthesize_lgg(path / "lgg", patients=4, seed=0, size=40, slices=(5, 8))
    made = prepare(open_cohort(path / "lgg"), path / "out", (UnitScale(), ResizePlane(size=24)))
    return made.cases(record.id for record in made.records)


def fake(patient, areas, image=None):
    record = SimpleNamespace(id=f"{patient}-{len(areas or ())}", patient=patient, areas_px=areas)
    return SimpleNamespace(record=record, image=np.zeros((len(areas or (1,)), 4, 4, 1)), mask=None)


def batches(cases, method="tumor", **more):
    settings = SamplingSettings(method=method, augmentation=more.pop("augmentation", "light"))
    return SliceBatches(cases, TargetSettings(), settings, **{"batch_size": 4, "seed": 0, **more})


def same(one, other):
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(one, other, strict=True))


def test_shapes_and_types_are_what_the_network_and_the_loss_take(cases):
    loader = batches(cases)
    images, targets = loader.batch(0)
    assert images.shape == (4, 3, 24, 24)
    assert targets.shape == (4, 1, 24, 24)
    assert str(images.dtype) == str(targets.dtype) == "torch.float32"
    assert loader.steps_per_pass == sum(case.image.shape[0] for case in cases) // 4


@pytest.mark.parametrize("method", ["tumor", "uniform", "epoch"])
def test_a_batch_is_a_function_of_seed_and_step(cases, method):
    one = list(batches(cases, method).steps(0, 6))
    resumed = list(batches(cases, method).steps(3, 6))
    assert all(same(a, b) for a, b in zip(one[3:], resumed, strict=True))
    assert not same(one[0], one[1])
    assert not same(one[0], batches(cases, method, seed=1).batch(0))


def test_an_epoch_shows_every_slice_once(cases):
    loader = batches(cases, "epoch", batch_size=3)
    drawn = np.concatenate([loader.draw(step) for step in range(len(loader.index))])
    for number in range(3):
        seen = drawn[number * len(loader.index) : (number + 1) * len(loader.index)]
        assert sorted(seen) == list(range(len(loader.index)))


@pytest.mark.parametrize("method", ["tumor", "uniform", "epoch"])
def test_workers_share_one_draw_between_them(cases, method):
    whole = batches(cases, method, batch_size=6)
    workers = [batches(cases, method, batch_size=2, rank=rank, world_size=3) for rank in range(3)]
    for step in range(4):
        parts = [worker.draw(step) for worker in workers]
        assert np.array_equal(np.stack(parts, axis=1).ravel(), whole.draw(step))
    assert workers[0].steps_per_pass == whole.steps_per_pass


def test_budas_weights_by_hand():
    # a: areas 0, 10 and 20 with mean 10, raised by 1: 1, 11, 21 of 33; b is one patient of two cases without tumor.
    weights = batches([fake("a", (0, 10, 20)), fake("b", (0,)), fake("b", (0, 0, 0))]).weights
    assert np.allclose(weights, np.array([1 / 33, 11 / 33, 21 / 33, 1 / 4, 1 / 4, 1 / 4, 1 / 4]) / 2)


def test_slices_are_drawn_as_their_weights_say():
    loader = batches([fake("a", (0, 10, 20)), fake("b", (5, 5))], batch_size=20000)
    counts = np.bincount(loader.draw(0), minlength=5) / 20000
    assert np.allclose(counts, loader.weights, atol=0.015)


def test_uniform_draws_every_slice_alike():
    counts = np.bincount(batches([fake("a", (0, 100, 0))], "uniform", batch_size=9000).draw(0)) / 9000
    assert np.allclose(counts, 1 / 3, atol=0.03)


def test_without_augmentation_the_prepared_slice_itself_is_given(cases):
    loader = batches(cases, augmentation="none")
    images, targets = loader.batch(5)
    number, s = loader.index[loader.draw(5)[2]]
    assert np.array_equal(images[2].numpy().transpose(1, 2, 0), cases[number].image[s].astype(np.float32))
    assert np.array_equal(targets[2, 0].numpy(), cases[number].mask[s] > 0)


@pytest.mark.parametrize("storage", ["host", "device"])
@pytest.mark.parametrize("augmentation", ["none", "strong"])
def test_a_batch_is_the_same_wherever_the_arrays_lie(cases, storage, augmentation):
    there = batches(cases, storage=storage, augmentation=augmentation)
    here = batches(cases, augmentation=augmentation)
    assert all(same(one, other) for one, other in zip(here.steps(0, 5), there.steps(0, 5), strict=True))


def test_images_made_of_bytes_take_a_byte_a_voxel_and_lose_nothing():
    values = np.arange(256, dtype=np.float32).reshape(4, 8, 8, 1) / 255
    case = fake("a", (1,) * 4, values.astype(np.float16))
    case.record.prepared_shape, case.record.channels = (4, 8, 8), ("flair",)
    case.mask = np.ones((4, 8, 8), np.uint8)
    case.image = values.astype(np.float16)
    loader = batches([case], augmentation="none", storage="device")
    assert loader.resident.num_bytes == 2 * 256
    images, _ = loader.batch(0)
    assert np.array_equal(images[:, 0].numpy(), case.image[loader.draw(0), :, :, 0].astype(np.float32))
    case.image = case.image + np.float16(0.001)
    assert batches([case], augmentation="none", storage="device").resident.num_bytes == 3 * 256


def test_every_thread_count_gives_the_same_batches(cases):
    one = list(batches(cases, augmentation="buda").steps(0, 6))
    again = list(batches(cases, augmentation="buda").steps(0, 6))
    assert all(same(a, b) for a, b in zip(one, again, strict=True))
    assert not same(one[0], batches(cases, augmentation="none").batch(0))


def test_an_unknown_augmentation_is_named_before_anything_is_drawn(cases):
    with pytest.raises(ValidationError, match=r"'heavy'.*buda"):
        batches(cases, augmentation="heavy")


def test_a_case_without_a_mask_is_refused_and_named():
    with pytest.raises(UserError, match="a mask; got b-0"):
        batches([fake("a", (1, 2)), fake("b", None)])
    with pytest.raises(UserError, match="at least one case"):
        batches([])


def test_slices_are_those_that_numpys_choice_draws():
    some = [fake(f"p{k % 7}", tuple((k * s) % 11 for s in range(k % 5 + 1))) for k in range(40)]
    for method in ("tumor", "uniform"):
        loader = batches(some, method, batch_size=50)
        for step in range(20):
            rng = np.random.default_rng([0, step])
            assert np.array_equal(loader.draw(step), rng.choice(len(loader.index), size=50, p=loader.weights))

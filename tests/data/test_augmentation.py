import itertools
import warnings

import numpy as np
import pytest
import torch

from glioflow.data.batches.augmentation import Augmentation
from glioflow.data.batches.policies import POLICIES, PUBLISHED, Chance, Policy, check_policy
from glioflow.data.batches.published import build_published
from glioflow.data.batches.published_3d import build_published_3d
from glioflow.errors import UserError

VARYING = [name for name in POLICIES if name != "none"]
SHAPES = [(48, 40), (20, 32, 28)]


def batch(spatial=(48, 40), channels=3, size=24, low=0.1, high=0.9):
    """Samples with a bright box on a dark ground, and their masks."""
    masks = torch.zeros(size, *spatial, dtype=torch.uint8)
    masks[(slice(None), *(slice(n // 5, n // 2) for n in spatial))] = 2
    images = torch.where(masks[:, None] > 0, high, low).expand(size, channels, *spatial).contiguous()
    return images, masks


def vary(policy, images, masks, *, step=0, **more):
    return Augmentation(policy, **{"seed": 0, **more})(step, images.clone(), masks.clone())


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("spatial", SHAPES, ids=str)
@pytest.mark.parametrize("channels", [1, 4])
def test_image_and_mask_move_together(name, spatial, channels):
    images, masks = batch(spatial, channels)
    for step in range(2):
        out, moved = vary(POLICIES[name], images, masks, step=step)
        assert (out.shape, moved.shape) == (images.shape, masks.shape)
        assert (out.dtype, moved.dtype) == (torch.float32, torch.uint8)
        assert set(moved.unique().tolist()) <= {0, 2}
        for image, mask in zip(out, moved > 0, strict=True):
            mean = image.amax(0)  # of the channels, one of which may be dropped
            bright = mean > (mean.min() + mean.max()) / 2
            overlap = 2 * (bright & mask).sum() / (bright.sum() + mask.sum())
            assert overlap > 0.75, f"{overlap}"


@pytest.mark.parametrize("name", VARYING)
@pytest.mark.parametrize("spatial", SHAPES, ids=str)
def test_seed_and_step_decide(name, spatial):
    images, masks = batch(spatial)
    images += 0.05 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    outs = [vary(POLICIES[name], images, masks, step=step)[0] for step in range(3)]
    again = [vary(POLICIES[name], images, masks, step=step)[0] for step in range(3)]
    assert all(torch.equal(one, other) for one, other in zip(outs, again, strict=True))
    assert not torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], vary(POLICIES[name], images, masks, seed=1)[0])


@pytest.mark.parametrize("name", [*VARYING])
def test_a_sample_is_varied_alike_by_one_worker_and_by_several(name):
    policy = Policy(**{**vars(POLICIES[name]), "noise": Chance()})  # noise is drawn by each worker
    images, masks = batch(size=12)
    whole, moved = vary(policy, images, masks)
    for rank in range(3):
        part, part_moved = vary(policy, images[rank::3], masks[rank::3], rank=rank, world_size=3)
        assert torch.allclose(part, whole[rank::3], atol=1e-6)
        assert torch.equal(part_moved, moved[rank::3])


@pytest.mark.parametrize("name", VARYING)
def test_z_scores_are_not_cut_to_the_unit_range_and_new_voxels_are_background(name):
    images, masks = batch(low=-1.0, high=5.0)
    brightest = -0.5 if name == "light" else 1.0
    for step in range(4):
        out, moved = vary(POLICIES[name], images, masks, step=step)
        for image, mask in zip(out, moved > 0, strict=True):
            assert ((image.amax(0) > brightest) & ~mask).float().mean() < 0.06
            assert image.amax(0)[mask].mean() > 2


def test_a_rotation_turns_by_its_angle_and_a_scale_by_its_factor():
    images, masks = batch((64, 64), size=1)
    quarter = Policy(rotation=Chance(1.0, 90, 90))
    _, moved = vary(quarter, images, masks)
    turned = [torch.rot90(masks, turns, (1, 2)) for turns in (1, 3)]
    assert any(torch.equal(moved, expected) for expected in turned)
    double = Policy(scale=Chance(1.0, 2.0, 2.0))
    middle = torch.zeros_like(masks)
    middle[:, 24:40, 24:40] = 2
    _, grown = vary(double, images, middle)
    assert int((grown > 0).sum()) == 4 * 16 * 16


def test_a_slice_that_is_not_square_keeps_its_angles():
    images, masks = torch.zeros(1, 1, 40, 80), torch.zeros(1, 40, 80, dtype=torch.uint8)
    masks[:, 10:30, 30:50] = 2  # a square stays one
    _, moved = vary(Policy(rotation=Chance(1.0, 45, 45)), images, masks)
    rows, columns = (moved[0] > 0).any(1).sum(), (moved[0] > 0).any(0).sum()
    assert abs(int(rows) - int(columns)) <= 1
    assert 380 < int((moved > 0).sum()) < 440


def test_who_is_not_chosen_stays_as_it_was_to_the_last_bit():
    images, masks = torch.rand(64, 2, 16, 16), torch.zeros(64, 16, 16, dtype=torch.uint8)
    out, _ = vary(Policy(rotation=Chance(0.3, 5, 10)), images, masks)
    kept = sum(torch.equal(one, other) for one, other in zip(images, out, strict=True))
    assert 30 < kept < 60


OPERATIONS = {
    "mirror": Policy(mirror=(1.0, 0, 0)),
    "elastic": Policy(elastic=Chance(1.0, 1.5, 1.5)),
    "gain": Policy(gain=Chance(1.0, 0.8, 0.8)),
    "offset": Policy(offset=Chance(1.0, 0.1, 0.1)),
    "contrast": Policy(contrast=Chance(1.0, 0.7, 0.7)),
    "gamma": Policy(gamma=Chance(1.0, 1.5, 1.5)),
    "bias": Policy(bias=Chance(1.0, 0.3, 0.3)),
    "blur": Policy(blur=Chance(1.0, 1.0, 1.0)),
    "low_resolution": Policy(low_resolution=Chance(1.0, 0.5, 0.5)),
    "noise": Policy(noise=Chance(1.0, 0.05, 0.05)),
    "drop": Policy(drop=1.0),
}


@pytest.mark.parametrize(("name", "spatial"), list(itertools.product(OPERATIONS, SHAPES)), ids=str)
def test_every_operation_changes_the_image_and_only_moves_change_the_mask(name, spatial):
    images, masks = batch(spatial, size=3)
    images += 0.02 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    out, moved = vary(OPERATIONS[name], images, masks)
    assert torch.isfinite(out).all()
    assert all(not torch.equal(one, other) for one, other in zip(out, images, strict=True))
    assert torch.equal(moved, masks) == (name not in ("mirror", "elastic"))


def test_noise_has_its_standard_deviation():
    images = torch.full((8, 1, 64, 64), 0.5)
    images[:, :, 0, 0], images[:, :, 0, 1] = 0.0, 1.0
    out, _ = vary(OPERATIONS["noise"], images, torch.zeros(8, 64, 64, dtype=torch.uint8))
    assert float((out - images).std()) == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize(
    ("build", "name", "spatial"),
    [
        (build_published, "buda", (48, 40)),
        (build_published, "light-0.1", (48, 40)),
        (build_published, "strong-0.1", (48, 40)),
        (build_published_3d, "light-0.1", (20, 32, 28)),
        (build_published_3d, "strong-0.1", (20, 32, 28)),
    ],
)
def test_policies_for_one_sample_vary_it_by_its_seed(build, name, spatial):
    image, mask = (part[0].numpy() for part in batch(spatial, size=1))
    image = np.moveaxis(image, 0, -1).copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outs = [build(name)(image, mask, seed)[0] for seed in range(8)]
    again = [build(name)(image, mask, seed)[0] for seed in range(8)]
    assert all(np.array_equal(one, other) for one, other in zip(outs, again, strict=True))
    assert len({out.tobytes() for out in outs}) > 3


def test_unknown_policies_are_named_with_those_that_fit():
    with pytest.raises(UserError, match=r"'heavy'.*none"):
        check_policy("heavy", volumes=False)
    with pytest.raises(UserError, match=r"for slices only.*strong"):
        check_policy(PUBLISHED[0], volumes=True)

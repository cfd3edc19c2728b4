import numpy as np
import pytest

from glioflow.data.case import Case
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.writing import encode_nifti
from glioflow.data.prepared.preparation import prepare
from glioflow.data.preprocessing.brain_mask import BrainMask
from glioflow.data.preprocessing.brain_shape import approximate_brain
from glioflow.data.preprocessing.geometry_steps import CropBox, ResizePlane
from glioflow.data.preprocessing.intensity_steps import UnitScale
from glioflow.data.preprocessing.pipeline import preprocess
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.errors import UserError


def head(shape=(6, 128, 128)):
    """A bright scalp, a dark skull, a gray brain with a hole in it; returns image and brain."""
    s, h, w = shape
    y, x = np.mgrid[:h, :w]
    radius = np.hypot(y - h / 2, (x - w / 2) * 1.2)
    plane = np.where(radius < 60, 220, 0)
    plane[radius < 55] = 8
    plane[radius < 48] = 120
    plane[radius < 8] = 10
    image = np.repeat(plane[None, ..., None], s, axis=0)
    noise = np.random.default_rng(0).integers(0, 6, image.shape)
    return (image + noise).astype(np.uint8), np.repeat((radius < 48)[None], s, axis=0)


def case_of(image, files=()):
    mask = np.zeros(image.shape[:3], np.uint8)
    mask[:, 60:70, 40:50] = 1
    return Case("a", "a", image, mask, ("flair",), tuple(range(1, len(image) + 1)), files=files)


def test_approximation_keeps_the_brain_and_its_holes_and_drops_the_scalp():
    image, brain = head()
    volume = preprocess(case_of(image), (UnitScale(), BrainMask()))
    found = volume.image[..., 0] > 0
    assert (found & brain).sum() > 0.98 * (brain & (image[..., 0] > 0)).sum()
    assert (found & ~brain).sum() < 0.05 * brain.sum()
    assert volume.mask.any()
    assert not volume.moves


def hard_head(side):
    """A head that each rule of the approximation is there for; returns image and brain, (4, side, side).

    Beside scalp, skull and brain: a bridge from scalp to brain, a piece as bright as the brain beside it, a dark
    fissure open to the outside, and one dim slice.
    """
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) * 256 / side
    radius = np.hypot(y, x)
    brain = (radius < 86) & ~((y > 40) & (np.abs(x) < 60))
    plane = np.where(radius < 112, 200, 0)
    plane[radius < 100] = 50
    plane[brain] = 120
    plane[(np.abs(x) < 7) & (y < -80) & (radius < 100)] = 120
    plane[np.hypot(y - 68, x) < 16] = 120
    plane[(np.abs(y) < 4) & (x < -40) & brain] = 5
    image = np.repeat(plane[None, ..., None], 4, axis=0) * np.array([1, 1, 0.35, 1])[:, None, None, None]
    return image.astype(np.uint8), np.repeat(brain[None], 4, axis=0)


@pytest.mark.parametrize("side", [128, 256])
def test_approximation_is_the_largest_piece_of_what_is_neither_dark_nor_thin_nor_outermost(side):
    image, brain = hard_head(side)
    found = approximate_brain(image.astype(np.float32), 5)
    for inside, truth in zip(found, brain, strict=True):
        assert (inside & truth).sum() > 0.98 * truth.sum()
        assert (inside & ~truth).sum() < 0.06 * truth.sum()


@pytest.mark.parametrize("value", [0, 7])
def test_without_a_head_the_image_stays(value):
    image = np.full((3, 32, 32, 1), value, np.uint8)
    assert np.array_equal(
        preprocess(case_of(image[:, :32].repeat(3, 1).repeat(3, 2)), (BrainMask(),)).image.max(), value
    )


def test_a_mask_file_beside_the_case_is_used_wherever_the_step_stands(tmp_path):
    image, brain = head()
    case = case_of(image, files=(tmp_path / "a_flair.nii.gz",))
    given = np.zeros_like(brain, dtype=np.uint8)
    given[:, 40:80, 40:80] = 1
    (tmp_path / "a_brain.nii.gz").write_bytes(encode_nifti(given, case))
    step = BrainMask(file="{case}_brain.nii.gz")
    first = preprocess(case, (step,)).image[..., 0]
    assert np.array_equal(first > 0, (given > 0) & (image[..., 0] > 0))
    later = preprocess(case, (CropBox(), ResizePlane(size=64), step)).image[..., 0]
    assert (later > 0).mean() == pytest.approx(1600 / (100 * 120), rel=0.1)


def test_a_missing_mask_file_is_named(tmp_path):
    case = case_of(head()[0], files=(tmp_path / "a_flair.nii.gz",))
    with pytest.raises(UserError, match=r"a_brain\.nii\.gz"):
        preprocess(case, (BrainMask(file="{case}_brain.nii.gz"),))
    with pytest.raises(UserError, match="without files"):
        preprocess(case_of(head()[0]), (BrainMask(file="brain.nii.gz"),))


def test_another_brain_mask_makes_another_cohort(tmp_path):
    synthesize_lgg(tmp_path / "lgg", patients=1, seed=0, size=40, slices=(5, 5))
    cohort = open_cohort(tmp_path / "lgg")
    case = cohort.read(cohort.cases[0].id)
    path = case.files[0].parent / "brain.nii.gz"
    prints = []
    for size in (10, 20):
        brain = np.zeros(case.shape, np.uint8)
        brain[:, 5 : 5 + size, 5:30] = 1
        path.write_bytes(encode_nifti(brain, case))
        steps = (UnitScale(), BrainMask(file="brain.nii.gz"), ResizePlane(size=24))
        prints.append(prepare(open_cohort(tmp_path / "lgg"), tmp_path / f"out{size}", steps).manifest.fingerprint)
    assert prints[0] != prints[1]


def test_a_brain_mask_lies_beside_the_images_also_where_the_masks_of_the_tumor_have_a_folder_of_their_own(tmp_path):
    image, brain = head((4, 32, 32))
    case = case_of(image)
    for folder, volume in (("volumes/a", image[..., 0]), ("labels/a", brain), ("volumes/a_brain_mask", brain)):
        path = tmp_path / f"{folder}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_nifti(volume.astype(np.uint8), case))
    steps = (UnitScale(), BrainMask(file="{case}_brain_mask.nii.gz"))
    prepared = prepare(open_cohort(tmp_path), tmp_path / "out", steps)
    assert np.array_equal(prepared.case("a").image[..., 0] > 0, brain & (image[..., 0] > 0))

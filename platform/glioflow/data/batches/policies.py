"""Named augmentation policies: how often and how far each operation of `augmentation` varies a sample."""

from dataclasses import dataclass

from glioflow.errors import UserError, unknown_name


@dataclass(frozen=True)
class Chance:
    """An operation that a sample undergoes with a probability, at a strength drawn evenly from [low, high]."""

    probability: float = 0.0
    low: float = 0.0
    high: float = 0.0


OFF = Chance()


@dataclass(frozen=True)
class Policy:
    """What is done to samples; intensities are in [0, 1] of the sample's own range.

    Attributes:
        mirror: Probability along W, H and S.
        rotation: Degrees in the plane.
        tilt: Degrees out of the plane, about H and about W; volumes only.
        scale: Factor of size.
        scale_axes: Whether each axis has a factor of its own.
        elastic: Standard deviation in voxels of random shifts, one every 16 voxels, smooth in between.
        gain: Factor of all intensities.
        offset: Added to all intensities.
        contrast: Factor of the difference from the mean; the range is kept.
        gamma: Exponent.
        bias: Strength of a smooth multiplicative field, as the standard deviation of its logarithm.
        blur: Standard deviation in voxels of a Gaussian, at most 1.
        low_resolution: Factor of the number of voxels along each axis, by nearest voxels down and linearly up again.
        noise: Standard deviation of Gaussian noise.
        drop: Probability that one channel of several is set to 0.
    """

    mirror: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: Chance = OFF
    tilt: Chance = OFF
    scale: Chance = OFF
    scale_axes: bool = True
    elastic: Chance = OFF
    gain: Chance = OFF
    offset: Chance = OFF
    contrast: Chance = OFF
    gamma: Chance = OFF
    bias: Chance = OFF
    blur: Chance = OFF
    low_resolution: Chance = OFF
    noise: Chance = OFF
    drop: float = 0.0


POLICIES: dict[str, Policy] = {
    "none": Policy(),
    # Mirrored left to right, small rotations and scales.
    "light": Policy(
        mirror=(0.5, 0, 0),
        rotation=Chance(0.7, -10, 10),
        tilt=Chance(0.7, -3, 3),
        scale=Chance(0.7, 0.92, 1.08),
    ),
    "strong": Policy(
        mirror=(0.5, 0.2, 0.2),
        rotation=Chance(0.8, -20, 20),
        tilt=Chance(0.5, -10, 10),
        scale=Chance(0.8, 0.85, 1.15),
        elastic=Chance(0.2, 0.5, 1.5),
        gain=Chance(0.5, 0.8, 1.2),
        offset=Chance(0.5, -0.2, 0.2),
        gamma=Chance(0.3, 0.8, 1.25),
        bias=Chance(0.15, 0.1, 0.3),
        blur=Chance(0.15, 0.4, 1.0),
        low_resolution=Chance(0.1, 0.5, 1.0),
        noise=Chance(0.2, 0.01, 0.04),
        drop=0.05,
    ),
    # After Isensee et al. 2021, supplementary note 4; their noise is in z-scores, of which a range has about ten.
    "nnunet": Policy(
        mirror=(0.5, 0.5, 0.5),
        rotation=Chance(0.2, -30, 30),
        tilt=Chance(0.2, -30, 30),
        scale=Chance(0.2, 0.7, 1.4),
        scale_axes=False,
        gain=Chance(0.15, 0.75, 1.25),
        contrast=Chance(0.15, 0.75, 1.25),
        gamma=Chance(0.3, 0.7, 1.5),
        blur=Chance(0.2, 0.5, 1.0),
        low_resolution=Chance(0.25, 0.5, 1.0),
        noise=Chance(0.1, 0.0, 0.03),
    ),
}

# Policies of published systems, made of albumentations' transforms, for slices: see `published`.
PUBLISHED = ("buda",)
# The meaning of these names in the first release, for training runs that it started.
FIRST_RELEASE = {"light": "light-0.1", "strong": "strong-0.1"}


def check_policy(name: str, *, volumes: bool) -> None:
    """Raise `UserError` unless `name` is a policy for slices, or for patches of volumes."""
    if name in POLICIES or name in FIRST_RELEASE.values() or (name in PUBLISHED and not volumes):
        return
    if name in PUBLISHED:
        raise UserError(f"augmentation {name} is for slices only", name, [*POLICIES])
    raise unknown_name("augmentation", name, [*POLICIES, *(() if volumes else PUBLISHED)])

"""Sizes of slices, patches and batches, and the choice between volumes and slices."""

import math

from glioflow.planning.facts import CohortFacts, Machine

# Above this ratio of spacings, or with fewer slices, a volume is processed by slice (nnU-Net's threshold).
ANISOTROPIC, FEWEST_SLICES = 3.0, 24
# Share of zero voxels from which the background counts as removed (0.6 and more in skull-stripped images).
CUT_AWAY = 0.35
# Largest patch on CPU cores, and the coarsest voxels that its extent is bought with, in mm.
CPU_PATCH, COARSEST_MM = 64, 2.0
# Minimum batch and patch, even if a step does not fit.
SMALLEST_BATCH, SMALLEST_PATCH = 2, 32


def is_cut_away(facts: CohortFacts) -> bool:
    """Return whether the background counts as removed, as in skull-stripped images."""
    return facts.background >= CUT_AWAY


def is_volumetric(facts: CohortFacts) -> tuple[bool, str]:
    """Return whether a 3D network is planned, and why."""
    if facts.spacing_mm is None:
        return False, "slices one by one: the files do not say how far apart slices are"
    ratio = facts.spacing_mm[0] / min(facts.spacing_mm[1:])
    if ratio >= ANISOTROPIC:
        return (
            False,
            f"slices one by one: slices lie {ratio:.1f} times as far apart as pixels ({ANISOTROPIC:g} and more)",
        )
    if facts.head[0] < FEWEST_SLICES:
        return False, f"slices one by one: {facts.head[0]} slices are too few for 3D patches (at least {FEWEST_SLICES})"
    spacing = " x ".join(f"{x:g}" for x in facts.spacing_mm)
    within = max(facts.spacing_mm) / min(facts.spacing_mm)
    if within >= ANISOTROPIC:  # acquired in sagittal or coronal slices
        return True, f"volumes: pixels within a slice lie up to {within:.1f} times as far apart ({spacing} mm)"
    return True, f"volumes: slices lie close enough ({spacing} mm)"


def is_thin(facts: CohortFacts) -> bool:
    """Return whether slices get their neighbors as channels (2.5D): closely spaced, but too few for 3D patches."""
    if facts.spacing_mm is None:
        return False
    close = facts.spacing_mm[0] / min(facts.spacing_mm[1:]) < ANISOTROPIC
    return close and 3 <= facts.head[0] < FEWEST_SLICES


def plane_size(facts: CohortFacts, machine: Machine) -> int:
    """Return the side of a slice, from the head or the image, in steps of 32, as large as the machine allows."""
    cut = is_cut_away(facts) and not (facts.whole_numbers and facts.values[1] <= 255)
    side = max(facts.head[1:] if cut else facts.shape[1:])
    return int(max(64, min(256 if machine.gpus else 128, 32 * math.ceil(side / 32))))


def working_spacing(facts: CohortFacts, machine: Machine) -> list[float]:
    """Return the median spacing; without a GPU a coarser one, as far as the head is larger than a patch."""
    assert facts.spacing_mm is not None
    if machine.gpus:
        return list(facts.spacing_mm)
    longest = max(size * own for size, own in zip(facts.head, facts.spacing_mm, strict=True))
    least = min(COARSEST_MM, round(longest / CPU_PATCH, 2))
    return [max(least, own) for own in facts.spacing_mm]


def patch_size(facts: CohortFacts, machine: Machine, spacing: list[float], *, halved: int = 0) -> list[int]:
    """Return the patch along S, H, W, in steps of 16: the head as far as the device allows, `halved` so often."""
    assert facts.spacing_mm is not None
    most = CPU_PATCH if not machine.gpus else 128 if machine.gpu_memory_gb >= 15 else 96
    extents = [size * own / new for size, own, new in zip(facts.head, facts.spacing_mm, spacing, strict=True)]
    patch = [int(max(16, min(most, 16 * math.ceil(size / 16)))) for size in extents]
    for _ in range(halved):
        longest = patch.index(max(patch))
        patch[longest] = max(SMALLEST_PATCH, 16 * (patch[longest] // 32))
    return patch


def batch_size(volumetric: bool, *, halved: int = 0) -> int:
    """Return the number of slices or patches in a batch, `halved` this many times."""
    return 2 if volumetric else max(SMALLEST_BATCH, 16 >> halved)

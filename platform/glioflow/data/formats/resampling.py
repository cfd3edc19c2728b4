"""Resampling of a study's images from several grids onto the grid of one channel, if the user requests it."""

from collections.abc import Mapping

import numpy as np

from glioflow.data.formats.nifti_header import MAX_VOXELS
from glioflow.data.formats.volume import Volume, same_grid
from glioflow.data.sequences import sequence_of
from glioflow.errors import TooLarge, UserError

OTHER_GRIDS = "register them, or write `resample_to: CHANNEL` into a file cohort.yaml beside the cases"


def reference_of(channels: Mapping[str, Volume], resample_to: str, case_id: str) -> str:
    """Return the channel named by `resample_to`, in any of its spellings; raises `UserError` if there is none."""
    wanted = sequence_of(resample_to.lower())
    channel = next((name for name in channels if sequence_of(name) == wanted), None)
    if channel is None:
        raise UserError(f"case {case_id} must have the channel of resample_to", resample_to, list(channels))
    return channel


def settle_grids(
    channels: Mapping[str, Volume], resample_to: str, case_id: str
) -> tuple[dict[str, Volume], tuple[str, ...]]:
    """Return all volumes on the grid of one channel, and a sentence that names the resampled ones.

    Args:
        channels: Volumes of a case, whose positions in the patient can be compared.
        resample_to: Channel whose grid is kept.
        case_id: Id of the case, for errors.

    Raises:
        UserError: If there is no such channel.
        TooLarge: If the result would have more voxels than a study may have.
    """
    onto = channels[reference_of(channels, resample_to, case_id)]
    if len(channels) * onto.data.size > MAX_VOXELS:
        raise TooLarge(f"a study must have at most {MAX_VOXELS} voxels", f"more in {case_id} on one grid")
    others = [name for name, volume in channels.items() if not same_grid(volume, onto)]
    settled = {name: resample(volume, onto) if name in others else volume for name, volume in channels.items()}
    return settled, (f"resampled to the grid of {resample_to}: {', '.join(others)}",) if others else ()


def on_one_grid(
    volumes: dict[str, Volume], resample_to: str | None, frames: set[str], case_id: str
) -> tuple[dict[str, Volume], str, tuple[str, ...]]:
    """Return the volumes of series on the grid of one channel, its name, and a warning about what was resampled.

    Args:
        volumes: By channel.
        resample_to: As for `settle_grids`; None accepts only volumes on one grid.
        frames: Frames of reference of the series.
        case_id: Id of the case, for errors.

    Raises:
        UserError: If they are not on one grid, and cannot or must not be resampled.
    """
    resampled: tuple[str, ...] = ()
    first_name = next(iter(volumes)) if resample_to is None else reference_of(volumes, resample_to, case_id)
    if resample_to is not None and len(frames) < 2:  # positions in two frames of reference cannot be compared
        volumes, resampled = settle_grids(volumes, resample_to, case_id)
    for name, volume in volumes.items():
        if not same_grid(volume, volumes[first_name]):
            rule = "all series of a study must lie on one grid"
            hint = OTHER_GRIDS if resample_to is None else "register them: their frames of reference differ"
            raise UserError(rule, f"{name} on another grid than {first_name} in {case_id}", hint=hint)
    return volumes, first_name, resampled


def resample(volume: Volume, onto: Volume, *, labels: bool = False) -> Volume:
    """Return a volume on another grid, 0 outside: by linear interpolation, or by nearest voxel for labels.

    If the voxels of the other grid are larger, the volume is first smoothed accordingly.
    """
    from scipy import ndimage

    assert volume.grid.affine is not None
    assert onto.grid.affine is not None
    there = np.linalg.inv(volume.grid.affine) @ onto.grid.affine
    data = volume.grid.to_file(volume.data)
    if not labels:
        steps = np.linalg.norm(there[:3, :3], axis=1)
        data = ndimage.gaussian_filter(np.asarray(data, np.float32), np.maximum(0, (steps - 1) / 2))
    shape = onto.grid.to_file(onto.data).shape
    moved = ndimage.affine_transform(data, there[:3, :3], there[:3, 3], output_shape=shape, order=0 if labels else 1)
    return Volume(onto.grid.from_file(moved), onto.grid, onto.spacing_mm, onto.oriented, onto.measured)

"""A single mask from any kind of file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.data.formats import brats, slices
from glioflow.data.formats.dataset_json import labels_in, read_description, regions_in
from glioflow.data.formats.study import read_study
from glioflow.data.formats.volume_files import NEARLY_WHOLE, read_volume
from glioflow.data.formats.volume_names import is_nifti
from glioflow.errors import UserError, not_found, option
from glioflow.label_schemes import SCHEMES, LabelScheme, one_scheme, scheme_named, scheme_with, schemes_that_hold


def read_mask(path: Path) -> tuple[NDArray[np.uint8], tuple[float, float, float] | None]:
    """Read a mask.

    Args:
        path: A NIfTI, TIFF or PNG file, or the folder of one LGG case, whose `_mask.tif` files form one volume.

    Returns:
        (S, H, W) uint8 labels, and the spacing in mm, None if the file does not state it.

    Raises:
        UserError: If the path does not exist or is not a mask.
    """
    if not path.exists():
        raise not_found(path, hint="give the file of a mask or the folder of one LGG case")
    if path.is_file() and is_nifti(path.name):
        volume = read_volume(path)  # not as a study, where `_mask.nii.gz` is a mask without an image
        return _labels(volume.data, path), volume.spacing_mm
    if path.is_file() and slices.is_slice(path.name):  # for the same reason
        image, spacing_mm = slices.read_image(path)[None], None
    else:
        case = read_study([path])
        if case.mask is not None:
            return case.mask, case.spacing_mm
        image, spacing_mm = case.image, case.spacing_mm
    if image.shape[-1] != 1 and not (image == image[..., :1]).all():
        raise UserError("a mask must have one channel", f"{image.shape[-1]} channels", file=path)
    return _labels(image[..., 0], path), spacing_mm


def scheme_of(path: Path, labels: NDArray[np.uint8], name: str | None) -> LabelScheme:
    """Return the meaning of the labels of a mask: the scheme `name`, or what is stated beside it, or its names imply.

    nnU-Net's `dataset.json` goes before names: its copies of BraTS have the names of the cases, and other numbers.

    Raises:
        UserError: If there is no such scheme, nothing implies one, or the mask holds other labels.
    """
    values = [int(value) for value in np.unique(labels) if value]
    if name is not None:
        named = scheme_named(name)
    elif description := read_description(path):
        stated = labels_in(description)
        known = regions_in(description) or scheme_with(stated)
        if known is None:
            rule = "dataset.json names the labels of the mask, but no regions, and no known scheme has these names"
            shown = ", ".join(f"{number} {label}" for number, label in stated.items())
            raise UserError(rule, shown, hint=f"give {option('scheme')}", choices=SCHEMES)
        named = known
    else:
        names = next((brats.schemes_of(each) for each in (path.name, path.parent.name) if brats.is_named(each)), ())
        names = names or tuple(schemes_that_hold(values))
        if not names:
            raise UserError("the labels of a mask must be those of a known scheme", values[:8], SCHEMES)
        named = one_scheme(names, path.name)
    if not set(values) <= named.labels.keys():
        rule = f"a mask of the scheme {named.name} must hold only its labels, {sorted(named.labels)}"
        raise UserError(rule, values[:8], schemes_that_hold(values))
    return named


def _labels(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    if not np.isfinite(values).all():
        raise UserError("a mask must hold finite numbers", "NaN or infinity", file=path)
    labels = np.rint(values).astype(np.int64)
    if (
        np.abs(labels - values).max(initial=0) > NEARLY_WHOLE
        or labels.min(initial=0) < 0
        or labels.max(initial=0) > 255
    ):
        raise UserError("a mask must hold whole label values from 0 to 255", file=path)
    if labels.max(initial=0) == 255 and np.isin(labels, (0, 255)).all():
        return np.asarray(labels > 0, np.uint8)  # a binary mask as stored in images
    return np.asarray(labels, np.uint8)

"""Shape classes of pyradiomics, if installed. Independent of our own features."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.errors import UserError, option


def measure_radiomics(
    mask: NDArray[np.bool_], *, spacing_mm: tuple[float, float, float] | None, image: NDArray[np.floating] | None = None
) -> dict[str, float]:
    """Measure a mask by pyradiomics.

    Args:
        mask: (S, H, W), at least one voxel set.
        spacing_mm: Distance of neighbors along S, H, W.
        image: (S, H, W), for the classes of intensity and texture; None measures only shape.

    Returns:
        Values by pyradiomics' own names, e.g. `shape_Sphericity`.

    Raises:
        UserError: If pyradiomics is not installed, the mask is empty, or the spacing is unknown.
    """
    try:
        import radiomics.featureextractor as featureextractor
        import SimpleITK
    except ImportError:
        raise UserError(
            "radiomics needs the package pyradiomics, which is optional: pip install 'glioflow[radiomics]', or, where "
            "PyPI's does not build (Python 3.11 and later), pip install from its source repository"
        ) from None
    if spacing_mm is None:
        raise UserError(
            f"radiomics needs the spacing; give {option('spacing')} as z,y,x in millimeters", "a mask without it"
        )
    if not mask.any():
        raise UserError("radiomics needs a mask with tumor", "an empty one")
    images: list[Any] = []
    for values in (mask.astype(np.float32) if image is None else image.astype(np.float32), mask.astype(np.uint8)):
        converted = SimpleITK.GetImageFromArray(values)
        converted.SetSpacing([float(step) for step in reversed(spacing_mm)])
        images.append(converted)
    extractor = featureextractor.RadiomicsFeatureExtractor(additionalInfo=False)
    if image is None:
        extractor.disableAllFeatures()
        extractor.enableFeatureClassByName("shape")
    features = extractor.execute(*images)
    return {name.removeprefix("original_"): float(value) for name, value in features.items()}

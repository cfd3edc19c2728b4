"""From a mask to named shape features, in 2D and 3D, and their association with genomic clusters."""

from glioflow.features.mask import MaskFeatures, RegionFeatures, measure_mask, measure_regions

__all__ = ["MaskFeatures", "RegionFeatures", "measure_mask", "measure_regions"]

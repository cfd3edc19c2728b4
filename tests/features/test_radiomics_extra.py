"""pyradiomics is optional: without it there is a clear word, with it its values under its names."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from glioflow.errors import UserError
from glioflow.features.radiomics import measure_radiomics

BOX = np.pad(np.ones((2, 3, 4), bool), 2)


def test_without_the_package_the_answer_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "radiomics", None)
    monkeypatch.setitem(sys.modules, "radiomics.featureextractor", None)
    with pytest.raises(UserError, match=r"glioflow\[radiomics\]"):
        measure_radiomics(BOX, spacing_mm=(1, 1, 1))


def test_with_the_package_mask_and_spacing_arrive_in_its_order(monkeypatch):
    seen = {}

    class Image:
        def __init__(self, values):
            self.values = values

        def SetSpacing(self, steps):  # noqa: N802 - ITK's spelling
            self.steps = steps

    class Extractor:
        def __init__(self, **options):
            pass

        def disableAllFeatures(self):  # noqa: N802
            seen["classes"] = []

        def enableFeatureClassByName(self, name):  # noqa: N802
            seen["classes"].append(name)

        def execute(self, image, mask):
            seen.update(steps=mask.steps, voxels=int(mask.values.sum()))
            return {"original_shape_Sphericity": np.float64(0.5)}

    extractors = SimpleNamespace(RadiomicsFeatureExtractor=Extractor)
    monkeypatch.setitem(sys.modules, "radiomics", SimpleNamespace(featureextractor=extractors))
    monkeypatch.setitem(sys.modules, "radiomics.featureextractor", extractors)
    monkeypatch.setitem(sys.modules, "SimpleITK", SimpleNamespace(GetImageFromArray=Image))
    assert measure_radiomics(BOX, spacing_mm=(3, 2, 1)) == {"shape_Sphericity": 0.5}
    assert seen == {"classes": ["shape"], "steps": [1.0, 2.0, 3.0], "voxels": 24}
    with pytest.raises(UserError, match="needs the spacing"):
        measure_radiomics(BOX, spacing_mm=None)

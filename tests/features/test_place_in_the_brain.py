"""Where a tumor lies in the brain: the same in served answers, out-of-fold rows, manual masks and the verb."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bundles import Bright, describe
from glioflow.bundle.prediction import Predictor
from glioflow.cli import app
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.mask_file import read_mask
from glioflow.data.preprocessing.brain_mask import locate_brain
from glioflow.data.preprocessing.brain_shape import approximate_brain
from glioflow.features.mask import NO_BRAIN
from glioflow.runs.analysis.survival import measure_shapes
from glioflow.runs.scoring import score_cases


def test_an_answer_and_an_out_of_fold_row_have_the_same_features(tiny, lgg, prepared):
    predictor = Predictor(describe(tiny), Bright())
    case_id = prepared.records[0].id
    served = predictor.predict(open_cohort(lgg).read(case_id)).features.volume
    row = score_cases(predictor, [prepared.case(case_id)], with_features=True).rows[0]
    assert served["midline_distance_px"] is not None
    assert served["brain_fraction"] is not None
    known = {name for name, value in served.items() if value is not None}
    assert {name for name, value in row["features"].items() if value is not None} == known
    for name in known:
        assert row["features"][name] == pytest.approx(served[name], rel=1e-3), name


def test_manual_masks_have_their_place_from_a_raw_cohort_a_prepared_one_and_its_uri(lgg, prepared):
    found = [
        measure_shapes(None, "manual", at, "testing").features for at in (lgg, prepared.path, f"file://{prepared.path}")
    ]
    assert found[0] == found[1] == found[2]
    assert all(values["side"] in (-1, 0, 1) for values in found[0].values())


def test_the_verb_takes_the_brain_from_the_images_beside_a_mask_or_from_the_one_named(lgg):
    folder = next(path for path in sorted(lgg.iterdir()) if path.is_dir())
    assert measured(folder)["volume"]["midline_distance_px"] is not None
    mask = max(folder.glob("*_mask.tif"), key=lambda path: read_mask(path)[0].sum())
    assert measured(mask)["undefined"]["side"] == NO_BRAIN
    image = mask.with_name(mask.name.replace("_mask", ""))
    assert measured(mask, "--image", image)["volume"]["side"] is not None


def test_a_coarse_look_finds_about_the_brain_that_a_close_one_finds():
    rows, columns = np.mgrid[:256, :256]
    plane = np.where(np.hypot(rows - 120, (columns - 140) * 1.2) < 80, 120, 0)
    image = np.repeat(plane[None, ..., None], 6, axis=0).astype(np.uint8)
    coarse, close = locate_brain(image), approximate_brain(image.astype(np.float32), 5)
    assert 2 * (coarse & close).sum() / (coarse.sum() + close.sum()) > 0.95
    assert np.flatnonzero(coarse.any(axis=(0, 1))).mean() == pytest.approx(140, abs=2)
    assert locate_brain(np.zeros((3, 40, 40, 1), np.uint8)) is None


def measured(mask: Path, *options: object) -> dict:

    done = CliRunner().invoke(app, ["features", str(mask), *map(str, options), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])["features"]

"""Studies to answers on disk, as `glioflow predict` writes them."""

import json

import numpy as np
import pytest
import tifffile

from bundles import changed, describe
from data.dicom_series import write_series
from glioflow import bundle
from glioflow.api.answer_folder import predict_studies
from glioflow.models import build_network


def quiet(*_):
    pass


@pytest.fixture
def model(tiny, tmp_path):
    network = build_network(tiny.model, in_channels=3, num_outputs=1)
    bundle.save(tmp_path / "model", describe(tiny), network.state_dict())
    return str(tmp_path / "model")


def test_a_folder_of_many_studies_is_answered_study_by_study(model, lgg, tmp_path):
    cases = sorted(path.name for path in lgg.iterdir() if path.is_dir())
    told = []
    done = predict_studies(model, [lgg], tmp_path / "out", say=lambda *said: told.append(said[1]))
    assert [each["id"] for each in done] == cases
    assert told[-1] == 1
    for case in cases:
        answer = json.loads((tmp_path / "out" / case / "answer.json").read_text())
        masks = sorted((tmp_path / "out" / case).rglob("*_mask.tif"))
        assert len(masks) == len(answer["study"]["slices"])
        assert tifffile.imread(masks[0]).shape == (48, 48)


def test_every_label_of_a_dicom_study_is_a_segment_of_what_is_written(tiny, tmp_path):
    import highdicom
    import torch

    experiment = changed(tiny, target={"kind": "multiclass", "labels": [1, 2, 4]}, loss={"name": "cross_entropy"})
    network = build_network(experiment.model, in_channels=1, num_outputs=4)
    with torch.no_grad():
        list(network.parameters())[-1].copy_(torch.tensor([0.0, 0, 0, 90]))  # label 4 everywhere
    said = describe(experiment, channels=("flair",), network_channels=("flair",))
    bundle.save(tmp_path / "model", said, network.state_dict())
    write_series(tmp_path / "study", np.random.default_rng(0).integers(0, 200, (4, 16, 16)).astype(np.uint16))
    done = predict_studies(str(tmp_path / "model"), [tmp_path / "study"], tmp_path / "out", say=quiet)
    written = highdicom.seg.segread(done[0]["mask"])
    names = [written.get_segment_description(number).segment_label for number in written.segment_numbers]
    assert names == ["label_1", "label_2", "label_4"]
    assert (written.get_volume(combine_segments=True).array == 3).all()

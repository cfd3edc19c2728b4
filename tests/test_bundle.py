"""A bundle on disk: what comes back is what was saved, and nothing else is let in."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bundles import changed, describe
from glioflow import bundle
from glioflow.bundle.ensemble import combine
from glioflow.bundle.format import Fold, _seal
from glioflow.bundle.prediction import Predictor
from glioflow.errors import UserError
from glioflow.evaluation import PostprocessSettings
from glioflow.models import ModelSettings, build_network
from glioflow.models.side_by_side import SideBySide
from glioflow.survival import SurvivalSettings
from glioflow.survival.stage_fitting import fit_stage


def trained(experiment, seed=0):
    torch.manual_seed(seed)
    network = build_network(experiment.model, in_channels=3, num_outputs=1).train()
    network(torch.rand(4, 3, 32, 32))  # batch norm has statistics of its own
    return network.eval()


def described(experiment, network):
    return describe(experiment, num_parameters=sum(parameter.numel() for parameter in network.parameters()))


@pytest.fixture
def saved(tiny, tmp_path):
    network = trained(tiny)
    bundle.save(tmp_path / "bundle", described(tiny, network), network.state_dict())
    return tmp_path / "bundle"


def stage():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age_years": rng.normal(50, 10, 40),
            "death01": rng.integers(0, 2, 40).astype(float),
            "bevr": rng.normal(0.4, 0.1, 40),
        },
        index=pd.Index([f"TCGA_CS_{k:04d}" for k in range(40)], name="patient"),
    )
    chosen = SurvivalSettings(task="death01", repeats=2, num_bootstrap=50, num_permutations=0)
    return fit_stage(table, chosen)


def test_a_bundle_from_before_max_drift_only_warns(saved):
    path = saved / "model.json"
    values = json.loads(path.read_text())
    assert bundle.read_description(saved).entry.max_drift == 25
    del values["entry"]["max_drift"], values["seal"]
    path.write_text(json.dumps({**values, "seal": _seal(values)}))
    assert bundle.read_description(saved).entry.max_drift is None


@pytest.mark.parametrize(
    "model",
    [{"architecture": "buda-unet"}, {"architecture": "unet", "encoder": "resnet18", "freeze": "batchnorm"}],
    ids=lambda model: model["architecture"],
)
def test_a_loaded_bundle_predicts_exactly_as_the_network_that_was_saved(tiny, tmp_path, model):
    experiment = changed(tiny, model=model)
    network = trained(experiment).to(memory_format=torch.channels_last)
    bundle.save(tmp_path / "bundle", described(experiment, network), network.state_dict())
    image = np.random.default_rng(0).random((3, 32, 32, 3), dtype=np.float32)
    # Kernels differ by memory format, and on some CPUs so do their roundings.
    saved = network.to(memory_format=torch.contiguous_format)
    before = Predictor(described(experiment, saved), saved).probabilities(image)
    loaded = Predictor.load(tmp_path / "bundle", device="cpu")
    np.testing.assert_array_equal(loaded.probabilities(image), before)
    assert not loaded.network.training


class Constant(torch.nn.Module):
    """A network with the same logits at each voxel."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits[:, None, None].expand(len(images), -1, *images.shape[2:])


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_a_bundle_of_several_networks_answers_their_mean_and_how_far_they_differ(tiny, kind):
    softmax = kind == "multiclass"
    temperatures = [1.0, 2.0]
    logits = [[-40.0, 0.5, 3.0], [30.0, -2.0, 1.0]] if softmax else [[40.0], [-1.0]]
    experiment = changed(tiny, target={"kind": kind, "labels": [1, 2]} if softmax else {"kind": kind})
    folds = [Fold(run_id=str(k), temperature=each) for k, each in enumerate(temperatures)]
    networks = SideBySide([Constant(*each) for each in logits], temperatures, softmax=softmax)
    predictor = Predictor(described(experiment, networks).model_copy(update={"folds": tuple(folds)}), networks)
    image = np.zeros((2, 4, 4, 3), np.float32)
    scaled = [torch.tensor(each) / heat for each, heat in zip(logits, temperatures, strict=True)]
    members = np.stack([(each.softmax(0) if softmax else torch.sigmoid(each)).numpy() for each in scaled])
    np.testing.assert_allclose(predictor.probabilities(image)[0, 0, 0], members.mean(0), atol=1e-6)
    spread = predictor.segment(image, (), spread=True).spread
    tumor = 1 - members[:, 0] if softmax else members[:, 0]
    assert spread.num_members == 2
    assert spread.probability_std == pytest.approx(tumor.std(), abs=1e-6)
    assert spread.mask_disagreement == 1, "the second finds no tumor"
    assert predictor.segment(image, ()).spread is None


def test_an_ensembles_clean_up_is_in_the_middle_of_its_members(tiny):
    target = changed(
        tiny, target={"kind": "regions", "regions": {"WT": [1, 2], "ET": [2]}, "decode": {"WT": 1, "ET": 2}}
    ).target
    each = [
        PostprocessSettings(threshold=0.3, largest_component=True, min_total_px={"ET": 100}, temperature=2),
        PostprocessSettings(threshold=0.4, min_size_px=20, min_total_px={"ET": 500}),
        PostprocessSettings(threshold=0.7, largest_component=True, min_size_px=50),
    ]
    combined = combine(each, target)
    assert (combined.temperature, combined.threshold, combined.largest_component) == (1, 0.4, True)
    assert (combined.min_size_px, combined.min_total_px) == (20, {"ET": 100})


def test_a_bundle_of_pretrained_weights_loads_where_those_are_not(tiny, tmp_path):
    plain = {"architecture": "unet", "encoder": "resnet18"}
    weights = tmp_path / "encoder.pth"
    torch.save(build_network(ModelSettings(**plain), in_channels=3, num_outputs=1).body.encoder.state_dict(), weights)
    model = {**plain, "weights": str(weights), "input_scaling": "symmetric"}
    experiment = changed(tiny, model=model)
    network = trained(experiment)
    bundle.save(tmp_path / "bundle", described(experiment, network), network.state_dict())
    weights.unlink()
    loaded = bundle.load(tmp_path / "bundle")
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded.network(image), network(image))


def test_the_survival_stage_travels_inside(saved, tmp_path):
    fitted = stage()
    bundle.with_stage(saved, tmp_path / "both", survival=fitted, metrics={"test/dice_mean": 0.5})
    loaded = bundle.load(tmp_path / "both")
    assert loaded.survival is not None
    asked = ({"bevr": 0.3}, {"age_years": 60})
    assert loaded.survival.predict(*asked) == fitted.predict(*asked)
    assert loaded.description.metrics == {"test/dice_mean": 0.5}
    assert bundle.load(saved).survival is None
    assert bundle.digest_of(saved) != bundle.digest_of(tmp_path / "both")


def test_a_new_network_comes_without_the_old_stage(saved, tmp_path):
    bundle.with_stage(saved, tmp_path / "both", survival=stage(), metrics={})
    bundle.with_stage(tmp_path / "both", tmp_path / "again", survival=None, metrics={})
    assert bundle.load(tmp_path / "again").survival is None


def test_nothing_in_a_bundle_is_pickled(saved):
    assert {path.name for path in saved.iterdir()} == {"model.json", "weights.safetensors"}
    for path in saved.iterdir():
        content = path.read_bytes()
        assert not content.startswith((b"\x80", b"PK"))
    json.loads((saved / "model.json").read_text())


def refused(folder: Path, *texts: str) -> None:
    with pytest.raises(UserError) as error:
        bundle.load(folder)
    assert all(text in str(error.value) for text in texts), str(error.value)


def test_one_changed_byte_of_the_weights_is_refused(saved):
    path = saved / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(saved, "weights.safetensors", "missing or was changed")


def test_a_description_changed_by_hand_is_refused(saved):
    path = saved / "model.json"
    path.write_text(path.read_text().replace('"threshold": 0.5', '"threshold": 0.4'))
    refused(saved, "model.json", "was changed")


def test_a_description_without_its_list_of_files_is_refused(saved):
    path = saved / "model.json"
    description = json.loads(path.read_text())
    description["files"] = {}
    path.write_text(json.dumps(description))
    refused(saved, "model.json", "changed")


def test_a_missing_file_is_named(saved):
    (saved / "weights.safetensors").unlink()
    refused(saved, "weights.safetensors", "missing")
    (saved / "model.json").unlink()
    refused(saved, "not a bundle: it has no model.json")


@pytest.mark.parametrize("name", ["extra.pkl", "survival.json"])
def test_a_file_that_was_not_sealed_is_refused(saved, name):
    (saved / name).write_text("{}")
    refused(saved, name, "model.json, weights.safetensors and survival.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", '{"format": 2}'])
def test_something_else_called_model_json_is_refused(saved, text):
    (saved / "model.json").write_text(text)
    refused(saved)


def test_a_later_format_says_which_is_read(saved):
    (saved / "model.json").write_text('{"format": 2, "new": 1}')
    refused(saved, "must have format 1", "got 2")


def test_weights_of_another_network_are_refused_by_name(tiny, tmp_path):
    other = changed(tiny, model={"architecture": "unet", "encoder": "resnet18"})
    network = trained(tiny)
    bundle.save(tmp_path / "bundle", described(other, network), network.state_dict())
    refused(
        tmp_path / "bundle",
        "weights.safetensors: the weights do not fit the network of model.json, unet: ",
        "tensors are missing, such as body.encoder.",
        "export the bundle again",
    )


def test_a_bundle_works_wherever_it_is_copied(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "elsewhere")
    assert bundle.digest_of(saved) == bundle.digest_of(tmp_path / "elsewhere")
    bundle.load(tmp_path / "elsewhere")

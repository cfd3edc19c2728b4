"""A training that begins with the weights of a whole network, such as those of a bundle."""

import pytest
import torch
from safetensors.torch import save_file

from bundles import changed
from glioflow.errors import UserError
from glioflow.models import build_network
from glioflow.training.fitting import build_and_fit


def fit(experiment, cases):
    return build_and_fit(
        experiment.model,
        experiment.loss,
        experiment.target,
        experiment.training,
        cases,
        lambda _: {},
        lambda *_: None,
    )[1].weights


@pytest.fixture
def still(tiny, tmp_path):
    """Return a function that gives an experiment which begins with a file and hardly learns."""

    def make(weights):
        save_file(weights, tmp_path / "start.safetensors")
        training = {**tiny.training.model_dump(mode="json"), "learning_rate": 1e-12, "weight_decay": 0, "keep": "last"}
        return changed(tiny, training={**training, "epochs": 1, "start": str(tmp_path / "start.safetensors")})

    return make


def test_a_training_begins_with_the_weights_of_a_bundle(still, tiny, prepared):
    torch.manual_seed(77)
    begun = build_network(tiny.model, in_channels=3, num_outputs=1).state_dict()
    ended = fit(still(begun), prepared.cases(prepared.records.ids()))
    learned = [name for name in begun if name.endswith("weight") and begun[name].ndim > 1]
    assert all(torch.allclose(ended[name], begun[name], atol=1e-6) for name in learned)


def test_weights_of_another_network_are_refused(still, prepared):
    with pytest.raises(UserError, match=r"weights of training\.start do not fit the network"):
        fit(still({"some.weight": torch.zeros(3)}), prepared.cases(prepared.records.ids()))


def test_a_file_that_is_not_there_is_named_with_its_key(tiny, prepared):
    training = {**tiny.training.model_dump(mode="json"), "start": "nowhere.safetensors"}
    with pytest.raises(UserError, match=r"nowhere\.safetensors does not exist.*set training\.start to a path"):
        fit(changed(tiny, training=training), prepared.cases(prepared.records.ids()))

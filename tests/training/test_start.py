"""A training that begins with the weights of a whole network, such as those of a bundle."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bundles import changed
from glioflow.errors import UserError
from glioflow.models import build_network
from glioflow.models.weights import misfit
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
    other = still({"some.weight": torch.zeros(3)})
    rule = r"weights of training\.start do not fit the network of the experiment: \d+ of its \d+ tensors are missing"
    with pytest.raises(UserError, match=f"{rule}.*; got .*start.safetensors; set the section model to"):
        fit(other, prepared.cases(prepared.records.ids()))
    Path(str(other.training.start)).with_name("model.json").write_text(
        '{"model": {"architecture": "fpn", "encoder": "x"}}'
    )
    with pytest.raises(UserError, match=r"they were made for model\.architecture=fpn and model\.encoder=x; set"):
        fit(other, prepared.cases(prepared.records.ids()))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: state.pop("weight"), "1 of its 2 tensors are missing, such as weight"),
        (lambda state: state.update(weight=torch.zeros(3, 1)), r"1 have another shape: weight is (3, 1), not (3, 2)"),
        (lambda state: state.update(other=torch.zeros(1)), "1 belong to another network, such as other"),
    ],
)
def test_what_keeps_weights_from_fitting_is_said_in_words(change, why):
    network = torch.nn.Linear(2, 3)
    state = network.state_dict()
    change(state)
    assert misfit(network, state) == why


def test_a_file_that_is_not_there_is_named_with_its_key(tiny, prepared):
    training = {**tiny.training.model_dump(mode="json"), "start": "nowhere.safetensors"}
    with pytest.raises(UserError, match=r"nowhere\.safetensors does not exist.*set training\.start to a path"):
        fit(changed(tiny, training=training), prepared.cases(prepared.records.ids()))

"""Every configuration that a search of the repository can come to is an experiment whose network can be built."""

from pathlib import Path

import optuna
import pytest
import torch
from shrunk import FILES, title

from glioflow.config import load_experiment, override
from glioflow.models import build_loss, build_network
from glioflow.runs.search.searcher import enqueue, suggest_point

SEARCHED = [path for path in FILES if load_experiment(path).search.space]


@pytest.mark.parametrize("path", SEARCHED, ids=title)
def test_forty_draws_and_the_first_points_are_experiments_that_can_be_built(path: Path) -> None:
    experiment = load_experiment(path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    first, built, draws = list(experiment.search.first), set(), []
    enqueue(study, first)
    for _ in range(40):
        draws.append(suggest_point(study.ask(), experiment.search))
        drawn = override(experiment, experiment.search.overrides(draws[-1]))
        build_loss(drawn.loss, task=drawn.target.task)
        network = drawn.model.model_copy(update={"weights": None})
        if (settings := network.model_dump_json()) not in built:
            built.add(settings)
            with torch.device("meta"):
                build_network(network, in_channels=3, num_outputs=1)
    assert draws[: len(first)] == first
    assert len(built) > 1

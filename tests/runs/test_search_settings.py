"""What a search may say: pairs of sampler and scheduler, kinds of parameters, preprocessing by name."""

import pytest

from glioflow.config import Experiment, override
from glioflow.config.experiment import check_search
from glioflow.config.search import SCHEDULERS, SearchSettings
from glioflow.data.formats.detect import open_cohort
from glioflow.data.preprocessing.pipeline import ResizePlane
from glioflow.errors import UserError
from glioflow.runs.launch import check_resources
from glioflow.runs.search.run import search
from glioflow.runs.search.searcher import build_sampler

RATE = {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}}
DECAY = {"training.weight_decay": {"kind": "float", "low": 0.0, "high": 1e-2}}
LOSS = {"loss.name": {"kind": "choice", "values": ["dice", "dice_bce"]}}
EPOCHS = {"training.epochs": {"kind": "int", "low": 2, "high": 3}}
PENALTY = {"survival.penalties": {"kind": "choice", "values": [[0.1], [1.0]]}}
REPEATS = {"survival.repeats": {"kind": "int", "low": 2, "high": 3}}
SPACES = {"grid": LOSS | EPOCHS, "cmaes": RATE | DECAY}
ALL = [name for name in SearchSettings.model_fields["scheduler"].annotation.__args__]


def experiment_with(search):
    return override(Experiment(), {"search": search})


@pytest.mark.parametrize("scheduler", ALL)
@pytest.mark.parametrize("sampler", list(SCHEDULERS))
def test_pairs_that_make_sense_are_taken_and_the_rest_refused_with_the_choices(sampler, scheduler):
    settings = {"sampler": sampler, "scheduler": scheduler, "space": SPACES.get(sampler, RATE | DECAY)}
    if scheduler in SCHEDULERS[sampler]:
        build_sampler(experiment_with(settings).search, begun=0)
        return
    with pytest.raises(UserError) as caught:
        experiment_with(settings)
    assert caught.value.choices == list(SCHEDULERS[sampler])
    assert caught.value.value == scheduler


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"sampler": "grid", "space": RATE}, "of kind choice or int"),
        ({"sampler": "cmaes", "scheduler": "none", "space": LOSS | RATE}, "of kind float or int"),
        ({"sampler": "cmaes", "scheduler": "none", "space": RATE}, "two parameters"),
        ({"sampler": "random", "scheduler": "pbt", "space": EPOCHS}, "may change during a training"),
        (
            {"sampler": "random", "scheduler": "pbt", "space": RATE, "budget_hours": 1},
            "budget_hours must be null",
        ),
        (
            {"sampler": "cmaes", "scheduler": "none", "space": RATE | DECAY, "objectives": ["dice", "hd95"]},
            "must be one objective",
        ),
        ({"space": RATE, "objectives": ["hd95"]}, "must include dice"),
        ({"space": {"training.num_workers": {"kind": "int", "low": 1, "high": 2}}}, "book the same resources"),
        (
            {"sampler": "random", "scheduler": "pbt", "space": RATE, "folds": 2},
            "must be 1 in a pbt search",
        ),
        ({"space": EPOCHS, "folds": 2}, "compared at equal steps"),
        ({"space": RATE, "objectives": ["dice", "c_index"]}, "search.folds must be at least 2"),
        ({"space": PENALTY, "folds": 2}, "search.objectives must include c_index"),
        (
            {"space": REPEATS, "folds": 2, "objectives": ["dice", "c_index"]},
            "the stage is judged.*survival.penalties",
        ),
        ({"space": {"preprocess": {"kind": "choice", "values": ["a"]}}}, "names in search.preprocess"),
        ({"space": RATE, "preprocess": {"a": [{"step": "unit"}]}}, "names in search.preprocess"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_its_rule(settings, rule):
    with pytest.raises(UserError, match=rule):
        experiment_with(settings)


@pytest.mark.parametrize(
    ("space", "rule"),
    [
        ({"target": [{"preset": "brats-2021"}, {"preset": "brats-2023"}]}, "scores of different tasks do not compare"),
        ({"target.kind": ["binary"]}, "scores of different tasks do not compare"),
        ({"training": [{"num_workers": 2}]}, r"single keys of training, .*; choose one of: training\.accumulate"),
        ({"survival": [{"repeats": 1}]}, "single keys of survival"),
        (
            {"model.encoder": ["resnet18"], "model": [{"architecture": "fpn"}]},
            r"model must come before model\.encoder, whose value it would replace",
        ),
    ],
)
def test_a_search_refuses_keys_that_would_change_what_all_trials_share_or_undo_each_other(space, rule):
    choices = {key: {"kind": "choice", "values": values} for key, values in space.items()}
    with pytest.raises(UserError, match=rule):
        check_search(experiment_with({"space": choices}))


def test_a_key_after_its_section_counts():
    space = {"model": [{"architecture": "fpn"}], "model.encoder": ["resnet18"]}
    experiment = experiment_with({"space": {key: {"kind": "choice", "values": each} for key, each in space.items()}})
    check_search(experiment)
    (point,) = experiment.search.grid()
    chosen = override(experiment, point).model
    assert (chosen.architecture, chosen.encoder) == ("fpn", "resnet18")


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_samplers_that_know_no_conditions_refuse_them(sampler):
    space = EPOCHS | {"training.learning_rate": {**RATE["training.learning_rate"], "when": {"training.epochs": [2]}}}
    with pytest.raises(UserError, match="cannot have conditional parameters"):
        experiment_with({"sampler": sampler, "scheduler": "none", "space": space})


def test_the_survival_stage_is_searched_where_the_c_index_is_an_objective():
    experiment = experiment_with({"space": PENALTY, "folds": 2, "objectives": ["dice", "c_index"]})
    assert override(experiment, {"survival.penalties": [0.1]}).survival.penalties == (0.1,)


def test_workers_are_a_number_or_the_fewest_and_the_most():
    with pytest.raises(UserError, match=r"with fewest below most.*\[2, 2\]"):
        override(Experiment(), {"training.num_workers": [2, 2]})
    elastic = override(Experiment(), {"training.num_workers": [1, 4]})
    assert (elastic.training.min_workers, elastic.training.num_workers) == (1, (1, 4))
    with pytest.raises(UserError, match=r"must be one number.*\(1, 4\)"):
        search(override(elastic, {"search": {"space": RATE}}), None)


def test_a_worker_has_whole_gpus_or_a_part_of_one():
    assert override(Experiment(), {"training.gpus_per_worker": 0.6}).training.gpus == 0.6
    assert override(Experiment(), {"training.gpus_per_worker": 2.0}).training.gpus == 2
    with pytest.raises(UserError, match=r"must be a whole number if it is above 1.*; got 1\.5; choose one of: 1, 2"):
        override(Experiment(), {"training.gpus_per_worker": 1.5})


def test_an_elastic_training_needs_no_more_than_its_fewest_workers(monkeypatch):
    monkeypatch.setattr("glioflow.cluster.resources", lambda: {"CPU": 2.0, "GPU": 0.0, "nodes": 1.0})
    check_resources(override(Experiment(), {"training.num_workers": [2, 8]}))
    with pytest.raises(
        UserError, match=r"3 CPUs \(3 workers of 1\); got a cluster of 2; lower training\.cpus_per_worker"
    ):
        check_resources(override(Experiment(), {"training.num_workers": [3, 8]}))


def test_a_grid_has_every_point_that_its_conditions_allow_once():
    encoder = {"kind": "choice", "values": ["resnet18", "mobilenet_v2"], "when": {"model.architecture": ["unet"]}}
    space = {"model.architecture": {"kind": "choice", "values": ["unet", "buda-unet"]}, "model.encoder": encoder}
    settings = SearchSettings.model_validate({"sampler": "grid", "space": space | EPOCHS})
    points = list(settings.grid())
    assert len(points) == settings.num_trials == 6
    assert {"model.architecture": "buda-unet", "training.epochs": 3} in points


def searched_preprocessing() -> Experiment:
    steps = {
        name: [{"step": "unit"}, {"step": "resize", "size": size}] for name, size in (("small", 16), ("large", 24))
    }
    space = {"preprocess": {"kind": "choice", "values": list(steps)}, **RATE}
    return Experiment.model_validate({"search": {"preprocess": steps, "space": space}})


def test_a_chosen_preprocessing_becomes_the_experiments_own():
    experiment = searched_preprocessing()
    point = {"preprocess": "large", "training.learning_rate": 2e-3}
    chosen = override(experiment, experiment.search.overrides(point))
    assert chosen.preprocess[-1] == ResizePlane(size=24)
    assert chosen.training.learning_rate == 2e-3


def test_searches_of_one_space_know_each_other_whatever_else_they_say():
    one = SearchSettings.model_validate({"space": RATE, "trials": 3})
    assert one.space_digest == SearchSettings.model_validate({"space": RATE, "sampler": "random"}).space_digest
    assert one.space_digest != SearchSettings.model_validate({"space": RATE | DECAY}).space_digest


def test_preprocessing_that_would_not_fit_the_disk_is_refused_before_any_is_made(lgg, home):
    from glioflow.runs.search.prepared_variants import check_variants

    experiment = override(searched_preprocessing(), {"search.disk_gb": 1e-5})
    with pytest.raises(UserError, match=r"must fit in 1e-05 GB.*got about .* small .* GB, large .* GB"):
        check_variants(experiment, open_cohort(lgg))
    assert not (home / "prepared").exists()


def test_the_estimate_of_a_prepared_cohort_is_near_what_it_takes(lgg, prepared, tiny):
    from glioflow.runs.source import try_steps

    taken = sum(sum(record.sizes.values()) for record in prepared.records)
    assert 0.5 < try_steps(open_cohort(lgg), [tiny.preprocess])[0].size / taken < 1.5

"""An experiment file: what it may say, how it is overridden, and what people read when it is wrong."""

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from glioflow.config import Experiment, load_experiment, load_recorded, override
from glioflow.config.experiment import check_search, override_texts
from glioflow.config.search import SearchSettings
from glioflow.config.search_points import check_points
from glioflow.errors import UserError
from glioflow.models import ARCHITECTURES, build_network

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments").rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_experiment_of_the_repository_builds_its_network_at_full_size(path):
    """On torch's meta device, which computes shapes alone; tests/experiments trains a small form of each."""
    import torch

    experiment = load_experiment(path, ["model.weights=null"])
    size = (32,) * ARCHITECTURES[experiment.model.architecture].dims
    with torch.device("meta"):
        network = build_network(experiment.model, in_channels=3, num_outputs=experiment.target.num_outputs)
        logits = network(torch.empty(2, 3, *size))
    assert logits.shape == (2, experiment.target.num_outputs, *size)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_experiment_of_the_repository_survives_being_written_and_read(path, tmp_path):
    from glioflow.runs.launch import to_yaml

    experiment = load_experiment(path)
    (tmp_path / "again.yaml").write_text(to_yaml(experiment))
    assert load_experiment(tmp_path / "again.yaml") == experiment


@pytest.mark.parametrize(
    ("text", "key", "choices"),
    [
        ("trainig: {epochs: 3}", "trainig", ["training", "model"]),
        ("training: {epoch: 3}", "training.epoch", ["epochs", "batch_size"]),
        ("training: {sampling: {methods: tumor}}", "training.sampling.methods", ["augmentation", "method"]),
        ("preprocess: [{step: unit}, {step: resize, sise: 3}]", "sise", ["size", "step"]),
        ("loss: {terms: [{name: dice, wieght: 2}]}", "loss.terms.0.wieght", ["name", "weight"]),
        (
            "search: {space: {training.epochs: {kind: int, low: 1, hi: 3}}}",
            "search.space.training.epochs.hi",
            ["high", "kind", "low"],
        ),
    ],
)
def test_an_unknown_key_is_named_with_those_that_exist(from_yaml, text, key, choices):
    with pytest.raises(UserError) as error:
        from_yaml(text)
    assert "unknown key" in error.value.rule
    assert key in error.value.rule
    assert set(choices) <= set(error.value.choices)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("epochs: 3", "did you mean training.epochs?"),
        ("training: {encoder: resnet34}", "did you mean model.encoder?"),
        ("model: {name: unet}", "freeze, input_scaling, options, weights"),
        ("encoder: resnet18", "did you mean model.encoder?"),
        ("training: {loss: {name: dice}}", "did you mean loss?"),
        ("search: {space: {training.loss.name: {kind: choice, values: [dice, ce]}}}", "did you mean loss.name?"),
        ("search: {space: {epochs: {kind: int, low: 1, high: 3}}}", "choose training.epochs"),
    ],
)
def test_a_key_in_the_wrong_section_is_told_the_right_one(from_yaml, text, meant):
    with pytest.raises(UserError) as error:
        from_yaml(text)
    assert str(error.value).endswith(meant)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss: {name: dise}", "unknown loss 'dise'"),
        ("training: {epochs: 0}", "training.epochs"),
        ("training: {learning_rate: fast}", "'fast'"),
        ("split: {method: file}", "split.file"),
        ("name: 'a b/c'", "name"),
        ("[1, 2]", "keys and values"),
        ("", "keys and values"),
        ("a: [1, ", "line 1"),
    ],
)
def test_a_wrong_file_says_which_file_and_what_is_wrong(from_yaml, text, expected):
    with pytest.raises(UserError, match=r"some\.yaml") as error:
        from_yaml(text)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_lists_its_neighbors(tmp_path):
    (tmp_path / "there.yaml").write_text("name: there")
    with pytest.raises(UserError, match=r"there\.yaml"):
        load_experiment(tmp_path / "ther.yaml")


def test_an_experiment_without_a_name_is_called_as_its_file(from_yaml):
    assert from_yaml("description: x").name == "some"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("training.learning_rate=1e-3", ("training", "learning_rate"), 0.001),
        ("training.learning_rate=2.0e-3", ("training", "learning_rate"), 0.002),
        ("training.epochs=7", ("training", "epochs"), 7),
        ("training.deterministic=true", ("training", "deterministic"), True),
        ("training.ema=null", ("training", "ema"), None),
        ("training.ema=", ("training", "ema"), None),
        ("split.counts=[5, 2, 1]", ("split", "counts"), (5, 2, 1)),
        ("data.source=kaggle_3m", ("data", "source"), "kaggle_3m"),
        ("data.source=a=b", ("data", "source"), "a=b"),
        ("loss.options={smooth: 1e-5}", ("loss", "options"), {"smooth": 1e-05}),
    ],
)
def test_an_override_is_read_as_yaml(from_yaml, text, key, value):
    section, name = key
    assert getattr(getattr(from_yaml("training: {ema: 0.5}", text), section), name) == value


@pytest.mark.parametrize("text", ["training.epochs", "=3", "training.epochs=[1", "name.first=x", "training.epoch=3"])
def test_an_override_that_cannot_be_is_refused(from_yaml, text):
    with pytest.raises(UserError):
        from_yaml("name: some", text)


def test_an_override_leaves_the_rest_and_the_original_as_they_were():
    before = Experiment.model_validate({"training": {"epochs": 3, "batch_size": 5}})
    after = override(before, {"training.epochs": 4})
    assert (after.training.epochs, after.training.batch_size, before.training.epochs) == (4, 5, 3)


def test_another_architecture_brings_its_own_default_encoder():
    begun = Experiment.model_validate_json(Experiment().model_dump_json())  # as a worker gets it: every key is there
    assert override(begun, {"model.architecture": "buda-unet"}).resolved.model.encoder is None
    changed = override(begun, {"model.architecture": "dpt"}).resolved.model.encoder
    assert changed == ARCHITECTURES["dpt"].encoder
    chosen = override(begun, {"model.encoder": "resnet18"})
    assert override(chosen, {"model.architecture": "fpn"}).resolved.model.encoder == "resnet18"


@pytest.mark.parametrize("key", ["name", "split.folds", "data.source", "gate.margin", "training.epoch"])
def test_what_all_trials_share_cannot_be_searched(from_yaml, key):
    with pytest.raises(UserError, match="must have keys of an experiment that can be searched"):
        from_yaml(yaml.safe_dump({"search": {"space": {key: {"kind": "choice", "values": [1]}}}}))


def test_a_condition_stands_after_what_it_depends_on(from_yaml):
    architecture = "model.architecture: {kind: choice, values: [unet, buda-unet]}"
    encoder = "model.encoder: {kind: choice, values: [resnet18], when: {model.architecture: [unet]}}"
    assert list(from_yaml(f"search: {{space: {{{architecture}, {encoder}}}}}").search.space) == [
        "model.architecture",
        "model.encoder",
    ]
    with pytest.raises(UserError, match="must come before it"):
        from_yaml(f"search: {{space: {{{encoder}, {architecture}}}}}")
    with pytest.raises(UserError, match=r"model\.architecture"):
        from_yaml(f"search: {{space: {{{encoder}}}}}")


@pytest.mark.parametrize("bounds", ["low: 2, high: 1", "low: 0, high: 1, log: true", "low: 1, high: 1"])
def test_a_range_goes_up_and_a_logarithm_is_of_something_positive(from_yaml, bounds):
    with pytest.raises(UserError, match="low must be below high"):
        from_yaml(f"search: {{space: {{training.learning_rate: {{kind: float, {bounds}}}}}}}")


def test_first_points_name_searched_keys(from_yaml):
    with pytest.raises(UserError, match=r"loss\.name"):
        from_yaml("search: {first: [{loss.name: dice}]}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {epochs: 3}\ntraining: {batch_size: 2}", "the key 'training' appears twice, in lines 1 and 2"),
        ("training:\n  epochs: 3\n  batch_size: 2\n  epochs: 4", "the key 'epochs' appears twice, in lines 2 and 4"),
        ("name: 2024-13-01", "put it in quotes"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("training: &a {epochs: *a}", "inside its own anchor"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefgh")),
            "too many values",
        ),
        ("1: 2", "unknown key '1'"),
        (
            "search: {space: {loss.name: {kind: choice, values: [dice, cross_entropy]}}}",
            "not defined for a binary task",
        ),
        ("training: {seed: -1}", "training.seed must be at least 0"),
        ("training: {seed: 18446744073709551616}", "training.seed must be at most 9223372036854775807"),
        ("split: {seed: -1}", "split.seed must be at least 0"),
        (
            f"search: {{space: {{training.epochs: {{kind: choice, values: {[*range(1, 202)]}}}}}}}",
            "values must have at most 200 values",
        ),
        (
            "search: {space: {training.epochs: {kind: int, low: 1, high: 99999999999999999999}}}",
            "high must be at most 9007199254740992",
        ),
        ("training: {<<: {epochs: 1}, <<: {epochs: 2}}", "the key '<<' appears twice"),
        ("training: {epochs: 010}", "the number 010 in line 1, which YAML reads as 8"),
        ("training: {epochs: 1:30}", "the number 1:30 in line 1, which YAML reads as 90"),
        ("name: 12:30", "which YAML reads as 750; put it in quotes"),
        ("training: {learning_rate: 1:30.5}", "which YAML reads as 90.5"),
        ("name: [1, 2", "the text must be valid YAML: expected ',' or ']', but got the end of the text (line 1, "),
        ("name: !!timestamp x", "a tag that does not suit its value"),
        ("training: {deterministic: !!bool x}", "a tag that does not suit its value"),
        ("description: |\n" + "  words\n" * 40_000, "must have at most 262144 letters"),
        ("training: {sampling: {augmentation: heavvy}}", "unknown augmentation 'heavvy'"),
    ],
)
def test_yaml_that_would_be_misread_is_refused(from_yaml, text, expected):
    with pytest.raises(UserError, match=r"some\.yaml") as error:
        from_yaml(text)
    assert expected in str(error.value)
    assert len(str(error.value)) < 400


def test_keys_of_a_merged_mapping_may_be_replaced(from_yaml):
    text = "split: &usual {folds: 4, seed: 1}\ntraining: {seed: 2}\ndata: {source: x}\n"
    assert from_yaml(text + "description: fine").split.folds == 4
    with pytest.raises(UserError, match="appears twice"):
        from_yaml("name: some", "training={epochs: 3, epochs: 4}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {epochs: true}", "training.epochs must be a number; got true"),
        ("training: {learning_rate: .inf}", "training.learning_rate must be a finite number; got inf"),
        ("training: {weight_decay: .nan}", "training.weight_decay must be a finite number; got nan"),
        ("split: {counts: [true, 2, 3]}", "split.counts must be a number; got true"),
        ("training: {num_workers: [true, 3]}", "training.num_workers must be a number; got true"),
        ("preprocess: [{step: resize, size: true}]", "preprocess.size must be a number; got true"),
        ("loss: {options: {smooth: .inf}}", "loss.options.smooth must be a finite number"),
        (
            "search: {space: {training.epochs: {kind: int, low: true, high: 3}}}",
            "search.space.training.epochs.low must be a number",
        ),
        (
            "search: {space: {training.learning_rate: {kind: float, low: 1, high: .inf}}}",
            "search.space.training.learning_rate.high must be a finite number",
        ),
    ],
)
def test_what_is_no_number_to_people_is_refused_where_a_number_belongs(from_yaml, text, expected):
    with pytest.raises(UserError) as error:
        from_yaml(text)
    assert expected in str(error.value)


def test_true_and_false_are_taken_where_they_belong(from_yaml):
    assert from_yaml("training: {deterministic: true}\npostprocess: {choose: false}").training.deterministic


@pytest.mark.parametrize(
    ("value", "shown"), [("2024-05-01", "2024-05-01"), ("1", "1"), ("1.5", "1.5"), ("yes", "True")]
)
def test_a_name_that_yaml_takes_for_something_else_is_to_be_quoted(from_yaml, value, shown):
    with pytest.raises(UserError, match=rf"name must be text; got {shown}; put it in quotes"):
        from_yaml(f"name: {value}")
    assert from_yaml(f"name: '{value}'").name == value


CHOICE = "{kind: choice, values: "
ENCODER = "model.encoder: {kind: choice, values: [resnet18], when: {model.architecture: [WHEN]}}"
ARCHITECTURE = "model.architecture: {kind: choice, values: [unet, buda-unet]}"


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("space: {loss.name: {kind: choice, values: [dice, dise]}}", "loss.name cannot be dise: .*did you mean dice"),
        ("space: {training.epochs: {kind: choice, values: [text]}}", "training.epochs cannot be text"),
        ("space: {training.epochs: {kind: choice, values: [true]}}", "training.epochs cannot be true"),
        ("space: {training.epochs: {kind: int, low: 0, high: 3}}", "training.epochs cannot be 0"),
        ("space: {training.ema: {kind: float, low: 0.5, high: 1.5}}", "training.ema cannot be 1.5"),
        (
            f"space: {{{ARCHITECTURE}, {ENCODER.replace('WHEN', 'unat')}}}",
            "model.encoder depends on model.architecture being unat, which it never is.*choose one of: unet, buda-unet",
        ),
        (
            f"space: {{{ARCHITECTURE}, {ENCODER.replace('WHEN', 'unet').replace('resnet18', 'resnet19')}}}",
            "model.encoder cannot be resnet19",
        ),
        (
            "first: [{loss.name: dise}], space: {loss.name: {kind: choice, values: [dice, dice_bce]}}",
            "search.first: point 1 has dise for loss.name, which search.space does not; did you mean dice",
        ),
        (
            "first: [{training.epochs: 3}, {training.epochs: 9}], "
            "space: {training.epochs: {kind: int, low: 1, high: 5}}",
            "search.first: point 2 has 9 for training.epochs.*choose a number from 1 to 5",
        ),
        (
            f"first: [{{model.architecture: buda-unet, model.encoder: resnet18}}], "
            f"space: {{{ARCHITECTURE}, {ENCODER.replace('WHEN', 'unet')}}}",
            "point 1 has a value for model.encoder, whose conditions do not hold",
        ),
        (
            "sampler: grid, space: {training.epochs: {kind: int, low: 1, high: 1000000}}",
            "a grid must have at most 2000 points; got 1000000",
        ),
        (
            "sampler: grid, space: {postprocess.choose: {kind: choice, values: [false]}, "
            "training.final: {kind: choice, values: [true, false]}, "
            "training.keep: {kind: choice, values: [best, last]}}",
            "the point .*of the grid cannot be trained with: training.final trains on the validation cases",
        ),
        ("space: {training.epochs: {kind: float, low: 1, high: 3}}", r"training.epochs cannot be 2\.23"),
        ("space: {loss.name: {kind: choice, values: [dice, dice]}}", "values of loss.name must differ; got dice twice"),
        (
            "space: {postprocess.choose: {kind: choice, values: [1, true]}}",
            "values of postprocess.choose must differ; got 1 and true, which are equal",
        ),
        ("space: {training.epochs: {kind: choice, values: [4, 8, 4.0]}}", "got 4 and 4.0, which are equal"),
        (
            "space: {training.learning_rate: {kind: float, low: 0.1, high: 1}, "
            "training.epochs: {kind: int, low: 1, high: 3, when: {training.learning_rate: [0.5]}}}",
            "training.epochs depends on training.learning_rate, of whose numbers none is drawn twice",
        ),
        (
            f"space: {{{ARCHITECTURE}, {ENCODER.replace('[WHEN]', '[]')}}}",
            "when.model.architecture must have at least 1 value;",
        ),
    ],
)
def test_a_search_that_no_trial_could_train_with_is_refused_when_it_is_read(from_yaml, search, expected):
    with pytest.raises(UserError, match=expected) as error:
        from_yaml(f"search: {{{search}}}")
    assert str(error.value).count("some.yaml") == 1
    with pytest.raises(UserError, match=expected):
        override_texts(Experiment(), [f"search={{{search}}}"])


def test_a_training_may_differ_from_what_the_files_search_fits(experiment_file):
    space = "model: {encoder: null}\nsearch: {space: {model.architecture: {kind: choice, values: [buda-unet, fcn32]}}}"
    changes = ["model.architecture=buda-unet", "model.options={features: [4, 8, 8]}"]
    trained = load_experiment(experiment_file(space), changes)
    assert trained.model.options == {"features": [4, 8, 8]}
    assert override_texts(load_experiment(experiment_file(space)), changes) == trained
    with pytest.raises(UserError, match=r"search\.space: model\.architecture cannot be fcn32"):
        check_search(trained)


def test_a_value_that_suits_some_of_the_others_is_taken(from_yaml):
    experiment = from_yaml(
        "postprocess: {choose: false}\nsearch: {space: {training.final: {kind: choice, values: [true, false]}, "
        "training.keep: {kind: choice, values: [best, last]}}}"
    )
    assert list(experiment.search.space) == ["training.final", "training.keep"]


def test_what_a_run_recorded_is_read_though_its_search_would_be_refused_today(experiment_file):
    text = "search: {space: {loss.name: {kind: choice, values: [dise]}}}"
    assert load_recorded(experiment_file(text)).search.space


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("name: a\nfuture: {x: 1}\n", "unknown key 'future'"),
        ("name: a\nloss: {name: of_tomorrow}\n", "unknown loss"),
    ],
)
def test_an_experiment_that_a_later_version_recorded_is_said_to_be_that_versions(experiment_file, text, rule):
    with pytest.raises(UserError, match=f"cannot read the experiment that the run recorded: .*{rule}") as caught:
        load_recorded(experiment_file(text))
    assert "use the version that recorded it" in str(caught.value)
    assert "choose one of" not in str(caught.value)


def test_a_region_is_answered_by_a_label_of_its_own(from_yaml):
    regions = "{WT: [1, 2, 3], TC: [1, 3], ET: [3]}"
    assert from_yaml(f"target: {{kind: binary, regions: {regions}}}"), "which means nothing there"
    assert from_yaml(f"target: {{kind: regions, regions: {regions}, decode: {{WT: 2, TC: 1, ET: 3}}}}")
    for target in ("{labels: [1, 4]}", f"{{regions: {regions}}}"):
        with pytest.raises(UserError, match=r"must state its kind.*set target\.kind"):
            from_yaml(f"target: {target}")
    for decode, key, choices in (("{WT: 2, TC: 1, ET: 4}", "ET", "3"), ("{WT: 1, TC: 1, ET: 3}", "WT", "2")):
        with pytest.raises(UserError, match=rf"target.decode.{key} must be a label of .*; choose {choices}"):
            from_yaml(f"target: {{kind: regions, regions: {regions}, decode: {decode}}}")


def test_a_value_of_a_search_is_refused_with_the_whole_reason():
    space = {"training.epochs": {"kind": "choice", "values": [1, 2]}}
    with pytest.raises(UserError, match="a loss: of two classes: cannot be"):
        check_points(SearchSettings(space=space), lambda point: UserError("a loss: of two classes: cannot be"))


@pytest.mark.parametrize("make", [lambda values: Experiment(**values), Experiment.model_validate])
@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"traning": {}}, "unknown key 'traning'; did you mean training? Choose one of: data,"),
        ({"training": {"epochs": "x"}}, "training.epochs must be a whole number; got 'x'"),
        ({"model": {"architecture": "unett"}}, "model: unknown architecture 'unett'; did you mean unet? Choose one of"),
        (
            {"postprocess": {"min_total_px": {"et": 5}}},
            "postprocess.min_total_px must name parts of the target",
        ),
    ],
)
def test_an_experiment_made_in_python_is_refused_in_the_words_of_one_from_a_file(make, values, line):
    with pytest.raises(UserError) as error:
        make(values)
    assert str(error.value).startswith(line)


@pytest.mark.parametrize(
    ("text", "key", "choice"),
    [
        ("preprocess: [{size: 128}]", "preprocess.0.step", "resize"),
        ("search: {preprocess: {a: [{step: unit}, {}]}}", "search.preprocess.a.1.step", "resize"),
        ("search: {space: {training.epochs: {low: 1, high: 3}}}", "search.space.training.epochs.kind", "int"),
    ],
)
def test_a_choice_that_is_not_given_lists_the_choices(from_yaml, text, key, choice):
    with pytest.raises(UserError) as error:
        from_yaml(text)
    assert error.value.rule == f"{key} must be given"
    assert choice in error.value.choices


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "search: {space: {model.architecture: {kind: choice}}}",
            "search.space.model.architecture.values must be given",
        ),
        (
            "search: {space: {training.epochs: {kind: int, low: a, high: 3}}}",
            "search.space.training.epochs.low must be a whole number; got 'a'",
        ),
        (
            "search: {space: {training.learning_rate: {kind: float, low: 2, high: 1}}}",
            "search.space.training.learning_rate.low must be below high",
        ),
        ("preprocess: [{step: unit}, {step: resize}]", "preprocess.1.size must be given"),
        ("preprocess: [{step: resize, size: 8, resize: 3}]", "unknown key 'preprocess.0.resize'"),
        ("training: {num_workers: [0, 2]}", "training.num_workers.0 must be greater than 0; got 0"),
        ("training: {num_workers: [1]}", "training.num_workers.1 must be given"),
        ("training: {num_workers: a}", "training.num_workers must be a whole number; got 'a'"),
        ("training: {num_workers: [3, 2]}", "training.num_workers must be one number, or [fewest, most] with"),
        ("training: {gpus_per_worker: 1.5}", "training.gpus_per_worker must be a whole number if it is above 1"),
        ("training: {batch_size: auto, accumulate: 2}", "training.accumulate must be 1 if batch_size is auto"),
        ("training: {batch_size: auto, num_workers: [1, 2]}", "training.num_workers must be one number if batch_size"),
        (
            "target: {labels: [1, 1], kind: multiclass}",
            "target.labels must be different numbers from 1 to 255; got [1, 1]",
        ),
        ("split: {folds: 3, fold: 5}", "split.fold must be below split.folds (3); got 5"),
        ("search: {space: {training.num_workers: {kind: int, low: 1, high: 2}}}", "search.space must not have the key"),
        (
            "search: {space: {training.epochs: {kind: int, low: 1, high: 2, when: {model.nam: [x]}}}}",
            "search.space: 'training.epochs' depends on 'model.nam', which is not in search.space",
        ),
        ("search: {objectives: [dice, size]}", "search.objectives.1 must be one of the listed values; got 'size'"),
    ],
)
def test_a_message_names_the_key_as_it_stands_in_the_file(from_yaml, text, line):
    with pytest.raises(UserError) as error:
        from_yaml(text)
    assert str(error.value.replace(file=None)).startswith(line)

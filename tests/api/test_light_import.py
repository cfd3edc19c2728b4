"""`import glioflow` is cheap, and still shows everything that it offers."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

import glioflow as gf
from glioflow.api.inputs import check_number, override_list

HEAVY = {
    "torch",
    "ray",
    "mlflow",
    "numpy",
    "pandas",
    "sklearn",
    "scipy",
    "cv2",
    "pydantic",
    "requests",
    "typer",
    "rich",
}


def test_importing_the_package_loads_nothing_but_its_own_few_modules():
    code = (
        "import sys\nbefore = set(sys.modules)\nimport glioflow\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
        "print(sorted(name for name in set(sys.modules) - before if name.startswith('glioflow')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, own = done.stdout.splitlines()
    assert heavy == "[]"
    assert own == "['glioflow', 'glioflow.errors', 'glioflow.version']"


def test_a_wrong_experiment_and_a_cohort_that_is_not_there_are_refused_before_ray_is_imported():
    code = """
import sys, glioflow as gf
for verb in (gf.train, gf.crossval, gf.search):
    for experiment, cohort in (("nowhere.yaml", None), (gf.Experiment(), "nowhere")):
        try:
            verb(experiment, cohort)
        except gf.UserError as error:
            print(error)
print(sorted({"torch", "ray", "mlflow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *errors, heavy = done.stdout.splitlines()
    assert ["nowhere does not exist" in line or "nowhere.yaml does not exist" in line for line in errors] == [True] * 6
    assert heavy == "[]"


@pytest.mark.parametrize("name", sorted(set(gf.__all__) - {"__version__"}))
def test_every_public_name_is_there_with_a_docstring(name):
    assert name in dir(gf)
    assert inspect.getdoc(getattr(gf, name))


@pytest.mark.parametrize("name", [name for name in gf.__all__ if inspect.isfunction(getattr(gf, name))])
def test_every_function_is_typed_and_says_what_each_argument_is(name):
    function = getattr(gf, name)
    signature, text = inspect.signature(function), inspect.getdoc(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert f"{parameter.name}:" in text, f"{name}({parameter.name})"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: gf.train(gf.Experiment(), 3), "data must be a path; got 3 of type int"),
        (lambda: gf.train(gf.Experiment(), "x", overrides=3), "overrides must be texts such as"),
        (lambda: gf.evaluate("starter", None), "source must be a path; got None"),
        (lambda: gf.crossval(gf.Experiment(), folds="3"), "folds must be a whole number; got '3' of type str"),
        (lambda: gf.promote("glioma", version="2"), "version must be a whole number; got '2'"),
        (lambda: gf.plan("cohort", minutes="3"), "minutes must be a number; got '3'"),
        (lambda: gf.predict_studies("starter", "study", "out"), "studies must be a list, each a path; got 'study'"),
        (lambda: gf.predict_studies("starter", [3], "out"), r"studies must be a list, each a path; got \[3\]"),
        (lambda: gf.plan("cohort", minutes=True), "minutes must be a number; got True"),
        (lambda: gf.accept_feedback(None), "entry must be a text; got None$"),
        (lambda: gf.auto("cohort", hours=1, name=Path("x")), r"name must be a text; got PosixPath\('x'\)"),
        (lambda: gf.evaluate("starter", "x", unseen="False"), "unseen must be True or False; got 'False'"),
        (lambda: gf.check("cohort", channels="flair=3"), "channels must be a list, each a text; got 'flair=3'"),
        (lambda: gf.check("cohort", channels={"flair": "3"}), "channels must be a list, each a text; got {'flair'"),
        (lambda: gf.check("cohort", channels=[None]), r"channels must be a list, each a text; got \[None\]"),
        (lambda: gf.associate("cohort", "x", features=open(__file__)), "features must be a list, each a text; got <"),
        (
            lambda: gf.associate("cohort", "x", features=pandas.DataFrame({0: [1]})),
            "features must be a list.* got 0 0 1 ",
        ),
        (lambda: gf.associate("cohort", "x", masks=3), "a run must be its id or the result that has it"),
        (lambda: gf.measure_features("x.nii", spacing=3), "spacing must be a list, each a number; got 3"),
        (lambda: gf.register("f" * 32, survival=3), "a run must be its id or the result that has it.*; got 3"),
        (lambda: gf.crossval(gf.Experiment(), "x", resume=[]), "resume must|a run must be its id"),
        (lambda: gf.train(gf.Experiment(), "x", overrides=[3]), r"overrides must be texts such as.*; got \[3\]"),
        (
            lambda: gf.train(gf.Experiment(), "x", overrides={"name": object()}),
            "name must be a value that an experiment",
        ),
        (lambda: gf.train(gf.Experiment(), "x", say=None), r"say must be a function .*; got None; `lambda \*_: None`"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named_with_what_it_must_be(call, expected):
    with pytest.raises(gf.UserError, match=expected) as refused:
        call()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must not be empty; got ''; give a value, or leave it out"),
        ("a\0b", r"must not have null or broken characters; got 'a\\x00b'"),
        ("\ud800", r"must not have null or broken characters; got '\\ud800'"),
        ("x" * 5000, "too long.*another path"),
    ],
)
@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("experiment", lambda text: gf.train(text, "cohort")),
        ("data", lambda text: gf.crossval(gf.Experiment(), text)),
        ("source", gf.check),
        ("out", lambda text: gf.describe("cohort", text)),
        ("studies", lambda text: gf.predict_studies("starter", [text], "out")),
        ("model", gf.load),
        ("clinical", lambda text: gf.fit_survival(clinical=text)),
    ],
)
def test_a_text_that_no_path_can_be_is_refused_and_not_taken_for_the_current_folder(text, expected, argument, call):
    with pytest.raises(gf.UserError, match=expected) as refused:
        call(text)
    assert "file name too long" in str(refused.value) or str(refused.value).startswith(argument)
    assert len(str(refused.value)) < 1200


def test_numbers_of_numpy_are_numbers_and_a_seed_below_0_is_refused():
    check_number("keep", np.int64(3), 1)
    with pytest.raises(gf.UserError, match="keep must be at least 4; got 3"):
        check_number("keep", np.int64(3), 4)
    with pytest.raises(gf.UserError, match="seed must be at least 0; got -1"):
        gf.synthesize("lgg", "out", seed=-1)


def test_a_word_for_no_argument_is_a_type_error_that_names_the_one_that_was_meant():
    with pytest.raises(
        TypeError, match=r"train: got an unexpected keyword argument 'overides'; did you mean overrides\?"
    ):
        gf.train("x.yaml", overides=["training.epochs=1"])


def test_lists_may_be_what_people_have_them_in(tmp_path):
    texts = iter(["training.epochs=3"])
    assert override_list(texts) == ["training.epochs=3"]
    values = {"training.epochs": np.int64(3), "inference.patch": np.array([8, 8]), "data.source": tmp_path}
    assert override_list(values) == ["training.epochs=3", "inference.patch=[8, 8]", f'data.source="{tmp_path}"']
    for names in (["nowhere=1"], ("nowhere=1",), np.array(["nowhere=1"]), pandas.Series(["nowhere=1"]), {"nowhere=1"}):
        with pytest.raises(gf.UserError, match="a channel must be given as NAME=SERIES; got nowhere=1"):
            gf.check("cohort", channels=names)


@pytest.mark.parametrize(
    ("name", "meant"), [("tarin", "train"), ("gc", "collect_garbage"), ("predict", "predict_studies")]
)
def test_an_unknown_name_is_an_attribute_error_that_names_the_one_that_was_meant(name, meant):
    with pytest.raises(AttributeError, match=rf"{name}.*did you mean gf\.{meant}\?"):
        getattr(gf, name)


def test_a_name_unlike_any_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'zzzz'$"):
        _ = gf.zzzz  # type: ignore[attr-defined]

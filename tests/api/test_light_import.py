"""`import glioflow` is cheap, and still shows everything that it offers."""

import inspect
import subprocess
import sys

import pytest

import glioflow as gf

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
    ],
)
def test_an_argument_of_a_wrong_type_is_named_with_what_it_must_be(call, expected):
    with pytest.raises(gf.UserError, match=expected):
        call()


@pytest.mark.parametrize(
    ("name", "meant"), [("tarin", "train"), ("gc", "collect_garbage"), ("predict", "predict_studies")]
)
def test_an_unknown_name_is_an_attribute_error_that_names_the_one_that_was_meant(name, meant):
    with pytest.raises(AttributeError, match=rf"{name}.*did you mean gf\.{meant}\?"):
        getattr(gf, name)


def test_a_name_unlike_any_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'zzzz'$"):
        _ = gf.zzzz  # type: ignore[attr-defined]

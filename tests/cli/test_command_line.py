"""What people and programs meet at the command line."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

import glioflow as gf
from commands import without_waits
from glioflow import progress
from glioflow.cli import app, main, output
from glioflow.cli.app import STAGES
from glioflow.cli.output import answer, one_line_errors, print_text
from glioflow.cluster import connection
from glioflow.errors import RunFailed, StoreFailed, UserError


def glioflow(*words, cwd=None, **env):
    return subprocess.run(
        [sys.executable, "-m", "glioflow", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **env},
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['glioflow', '--help']\n"
        "from glioflow.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'numpy', 'pandas', 'sklearn', 'cv2', 'fastapi', 'requests'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("verb", ["train", "crossval", "search", "data synthesize", "survival fit", "serve"])
def test_every_verb_has_help_that_costs_nothing(verb):
    done = glioflow(*verb.split(), "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


MISTAKES = {
    "a missing experiment": (["train", "nowhere.yaml"], "the experiment file nowhere.yaml does not exist"),
    "an unknown key": (
        ["train", "some.yaml", "-o", "training.epoch=3"],
        "unknown key 'training.epoch'; did you mean epochs? Choose one of: ",
    ),
    "a wrong value": (["train", "some.yaml", "-o", "training.epochs=0"], "training.epochs"),
    "a missing cohort": (["train", "some.yaml", "--data", "nowhere"], "nowhere does not exist; give --data"),
    "no cohort": (["train", "some.yaml"], "--data DIR"),
    "a missing model": (["evaluate", "glioma", "."], "no model 'glioma' is registered"),
    "a strange model": (["rollback", "a'b"], 'no model "a\'b" is registered'),
    "an unknown model": (["models", "glioma"], "no model 'glioma' is registered"),
    "an unknown run": (["register", "0" * 32], "no run has the id 0000"),
    "an unknown kind": (
        ["data", "synthesize", "lgq", "out"],
        "unknown cohort to synthesize 'lgq'; did you mean lgg? Choose one of: brats, ",
    ),
    "a missing source": (["data", "check", "nowhere"], "nowhere"),
    "bad numbers": (["features", "CASE", "--spacing", "1,2"], "z,y,x"),
    "a missing mask": (["features", "nowhere.nii"], "nowhere.nii"),
}


@pytest.fixture
def command(tmp_path, lgg, monkeypatch, capfd):
    """Return a function that runs a command in this process, and gives its exit code and what it said."""
    (tmp_path / "some.yaml").write_text("name: some\n")
    (tmp_path / "space.yaml").write_text("search: {space: {training.epochs: {kind: int, low: 1, high: 3}}}")
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 9000)
    given = {"COHORT": str(lgg), "CASE": str(next(path for path in lgg.iterdir() if path.is_dir()))}
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["glioflow", *(given.get(word, word) for word in words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        assert out == ""
        return end.value.code, without_waits(err)

    return run


@pytest.mark.parametrize(("words", "expected"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.usefixtures("tracking")
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(command, words, expected):
    code, lines = command(*words, "--json")
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith("error: ")
    assert expected in lines[0]


@pytest.mark.usefixtures("tracking")
def test_a_mistake_is_one_line_in_a_process_of_its_own_too(tmp_path):
    done = glioflow("models", "glioma", "--json", cwd=tmp_path)
    lines = without_waits(done.stderr)
    assert (done.returncode, done.stdout, len(lines)) == (2, "", 1), done.stderr
    assert lines[0].startswith("error: no model 'glioma' is registered")


EARLY = {
    "an empty argument": (["train", "some.yaml", "--data", ""], "--data must not be empty"),
    "an empty value": (["train", "some.yaml", "--data="], "--data must not be empty"),
    "a folder that is no cohort": (["train", "some.yaml", "--data", "."], "holds no files of a known cohort format"),
    "a file as cohort": (["train", "some.yaml", "--data", "some.yaml"], "some.yaml is not a folder"),
    "a search that is a path": (
        ["search", "space.yaml", "--resume", ".."],
        "--resume must name an earlier search",
    ),
    "a run to resume that is nowhere": (["train", "some.yaml", "--data", "COHORT", "--resume", "f" * 32], "f" * 32),
    "a file for a report": (["data", "describe", "COHORT", "--out", "some.yaml"], "--out must name a folder"),
    "a file above a report": (["data", "describe", "COHORT", "--out", "some.yaml/x"], "--out must name a folder"),
    "a file for a prepared cohort": (["data", "prepare", "COHORT", "some.yaml"], "OUT must name a folder"),
    "a file above a cohort": (["data", "synthesize", "lgg", "some.yaml/x"], "OUT must name a folder"),
    "a file above an export": (["export", "glioma", "some.yaml/x.zip"], "OUT must name a folder"),
    "a file for answers": (["predict", "glioma", "COHORT", "--out", "some.yaml"], "--out must name a folder"),
    "YAML that is nested deeply": (["train", "deep.yaml"], "nested too deeply"),
    "a folder as experiment": (["train", "."], ". is a folder, not an experiment file"),
}


@pytest.mark.parametrize(("words", "expected"), EARLY.values(), ids=EARLY)
@pytest.mark.usefixtures("tracking")
def test_what_can_be_checked_is_checked_before_anything_starts(command, monkeypatch, words, expected):
    monkeypatch.setattr(connection, "_start", lambda *_: pytest.fail("Ray was started"))
    code, lines = command(*words, "--json")
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith("error: ")
    assert expected in lines[0]


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


SURROUNDINGS = {
    "an object store without a server": ({"GLIOFLOW_HOME": "s3://b/home"}, "MLFLOW_TRACKING_URI must name a server"),
    "an object store with a password": (
        {"GLIOFLOW_HOME": "s3://key:hush@bucket/home"},
        "GLIOFLOW_HOME must not contain a password, since it stands in logs; got s3://bucket/home",
    ),
    "an object store with a token": (
        {"GLIOFLOW_HOME": "s3://bucket/home?token=hush"},
        "GLIOFLOW_HOME must not contain a password, since it stands in logs; got s3://bucket/home?token=;",
    ),
    "an object store without a bucket": ({"GLIOFLOW_HOME": "s3://"}, "GLIOFLOW_HOME must name a bucket"),
    "an object store with one slash": ({"GLIOFLOW_HOME": "s3:/b/home"}, "such as s3://bucket/glioflow"),
    "an object store in capitals": ({"GLIOFLOW_HOME": "S3://b/home"}, "such as s3://bucket/glioflow"),
    "an object store with a query": ({"GLIOFLOW_HOME": "s3://b/home?a=b"}, "such as s3://bucket/glioflow"),
    "a home that is a file": ({"GLIOFLOW_HOME": "some.yaml"}, "GLIOFLOW_HOME must name a folder"),
    "a home below a file": ({"GLIOFLOW_HOME": "some.yaml/x"}, "GLIOFLOW_HOME must name a folder"),
    "a home that cannot be written": ({"GLIOFLOW_HOME": "/proc/home"}, "GLIOFLOW_HOME cannot be written to"),
    "a home of a strange name": ({"GLIOFLOW_HOME": "a%20b"}, "the path of GLIOFLOW_HOME must not contain '%20'"),
    "a dead cluster": ({"RAY_ADDRESS": "127.0.0.1:PORT"}, "no Ray cluster answers at RAY_ADDRESS 127.0.0.1:"),
    "a dead cluster's client": ({"RAY_ADDRESS": "ray://localhost:PORT"}, "no Ray cluster answers at RAY_ADDRESS ray:"),
    "a dead database": (
        {"MLFLOW_TRACKING_URI": "postgresql+psycopg://me:secret@127.0.0.1:PORT/db"},
        "MLFLOW_TRACKING_URI must name a reachable store",
    ),
}


@pytest.mark.parametrize(("env", "expected"), SURROUNDINGS.values(), ids=SURROUNDINGS)
@pytest.mark.usefixtures("tracking")
def test_what_surrounds_a_command_is_checked_before_anything_starts(command, monkeypatch, env, expected, tmp_path):
    for name, value in env.items():
        monkeypatch.setenv(name, value.replace("PORT", str(closed_port())))
    for words in (["train", "some.yaml", "--data", "COHORT"], ["models"])[: 1 if "RAY_ADDRESS" in env else 2]:
        code, lines = command(*words, "--json")
        assert (code, len(lines)) == (2, 1), lines
        assert expected in lines[0]
        assert "secret" not in lines[0]
    assert not (tmp_path / "s3:").exists()


def test_a_path_of_the_wrong_kind_is_one_line_wherever_it_is_met(capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SystemExit) as end, one_line_errors():
        (tmp_path / "file" / "x").mkdir()
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {tmp_path / 'file' / 'x'}: not a directory; choose another path, or correct this one"
    ]


def parameters():
    """Give every parameter of every verb: the words of the verb, and the parameter."""

    def walk(command, words):
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from walk(inner, [*words, name])
        else:
            yield from ((" ".join(words), parameter) for parameter in command.params)

    return list(walk(typer.main.get_command(app), []))


def test_every_parameter_of_every_verb_says_what_it_is():
    found = parameters()
    assert len(found) > 115
    silent = [f"{verb} {parameter.name}" for verb, parameter in found if not (parameter.help or "").strip()]
    assert silent == []


@pytest.mark.parametrize("words", ["predict", "data prepare", "search", "associate", "survival fit", "feedback accept"])
def test_help_says_in_plain_words_what_a_parameter_takes(words):
    text = CliRunner().invoke(app, [*words.split(), "--help"]).stdout
    assert re.findall(r"[<{]\w+.*", text) == []
    if words == "predict":
        assert "MODEL STUDY..." in text
        assert "--out PATH " in text
    if words == "search":
        assert "--trials NUMBER " in text


def test_help_lists_every_verb_once_below_its_stage():
    text = glioflow("--help").stdout
    verbs = {words.split()[0] for words, _ in parameters()}
    assert len(verbs) == 26
    lines = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line.split()]
    assert {verb: lines.count(verb) for verb in verbs} == dict.fromkeys(verbs, 1)
    titles = [line.removesuffix(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Options", *STAGES]
    assert "..." not in text.replace("[ARGS]...", ""), "a sentence is cut"


def test_a_misspelled_verb_or_option_names_the_nearest_one():
    assert "Did you mean 'train'?" in glioflow("tarin").stderr
    assert "--folds" in glioflow("crossval", "some.yaml", "--fold", "3").stderr


@pytest.mark.parametrize(
    "words", [["tarin"], ["train"], ["data", "synthesize", "lgg", "out", "--patients", "0"]], ids=str
)
def test_a_mistyped_command_is_exit_code_2_without_a_traceback(words):
    done = glioflow(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_json_is_the_last_line_of_stdout_alone(tmp_path):
    done = glioflow("data", "synthesize", "lgg", str(tmp_path / "lgg"), "--patients", "1", "--json")
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout.splitlines()[-1])
    assert output["patients"] == 1
    assert output["path"] == str(tmp_path / "lgg")
    assert output["slices"] >= 20


def test_people_read_on_stderr_and_stdout_stays_empty(tmp_path):
    done = glioflow("data", "synthesize", "lgg", str(tmp_path / "lgg"), "--patients", "1")
    assert done.stdout == ""
    assert "patients" in done.stderr


def test_a_file_that_is_printed_goes_to_stdout_and_can_be_piped(capsys):
    with one_line_errors():
        print_text("name: planned\n")
    assert capsys.readouterr().out == "name: planned\n"


def test_a_cohort_with_an_error_is_reported_whole_and_exits_2(lgg, tmp_path):
    import shutil

    clean = glioflow("data", "check", str(lgg), "--json")
    assert clean.returncode == 0, clean.stdout
    assert {"format", "files", "patients", "slices", "positive_slices", "problems"} <= set(json.loads(clean.stdout))
    shutil.copytree(lgg, tmp_path / "lgg")
    broken = next((tmp_path / "lgg").glob("*/*_1.tif"))
    broken.write_bytes(b"no tiff")
    done = glioflow("data", "check", str(tmp_path / "lgg"), "--json")
    assert done.returncode == 2
    problem = next(p for p in json.loads(done.stdout)["problems"] if p["severity"] == "error")
    assert set(problem) == {"severity", "file", "rule", "value"}
    assert broken.name in problem["file"]


def test_the_features_of_one_case_folder_are_those_of_its_volume(lgg):
    case = sorted(path for path in lgg.iterdir() if path.is_dir())[0]
    done = glioflow("features", str(case), "--json")
    assert done.returncode == 0, done.stderr
    assert {"asd", "mf", "bevr"} <= set(json.loads(done.stdout)["features"]["volume"])


def ends_with(error):
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise error
    return end.value.code


def test_exit_codes_tell_a_mistake_from_a_failed_run(capsys):
    assert ends_with(UserError("a rule", "a\nvalue")) == 2
    assert ends_with(RunFailed("the run\nfailed")) == 1
    assert ends_with(StoreFailed("the store is away")) == 1
    assert ends_with(KeyboardInterrupt()) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: a rule; got a value",
        "failed: the run failed",
        "failed: the store is away; continue once it works again",
        "interrupted",
    ]


def test_a_payload_is_one_line_whatever_is_in_it(capsys):
    answer({"text": "a\nb", "numbers": [1.5, None]}, True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"text": "a\nb", "numbers": [1.5, None]}
    assert out.count("\n") == 1
    assert err == ""


@pytest.mark.parametrize("show", [None, lambda: None])
def test_without_json_nothing_is_on_stdout(capsys, show):
    answer({"text": "a", "number": 0.123456, "none": None, "list": [1]}, False, show)
    assert capsys.readouterr().out == ""


def test_the_version_is_printed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["glioflow", "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, capsys.readouterr().out) == (0, f"glioflow {gf.__version__}\n")


def test_a_verb_that_says_nothing_yet_says_that_it_loads_and_then_how_long_it_is_waited_for(capsys, monkeypatch):
    monkeypatch.setattr(output, "FIRST_S", 0.01)
    monkeypatch.setattr(progress, "WAIT_S", 0.1)
    lines = []
    with output.progress("demo") as say:
        deadline = time.monotonic() + 30
        while len(lines) < 2:
            assert time.monotonic() < deadline, "nothing was said"
            time.sleep(0.01)
            lines += capsys.readouterr().err.splitlines()
        say("search: trial 1")
    assert lines[0] == "demo: loading"
    assert lines[1].startswith("waiting for the first step of demo (")
    assert capsys.readouterr().err.splitlines()[-1] == "search: trial 1"


def test_who_waits_long_reads_fewer_lines_after_the_first_minute(monkeypatch):
    now, lines = [0.0], []
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))

    @contextmanager
    def ten_minutes(call, *, every_s):
        for _ in range(60):
            now[0] += every_s
            call()
        yield

    monkeypatch.setattr(progress, "repeating", ten_minutes)
    with progress.waiting("a worker", lambda text, part=None: lines.append(text)):
        pass
    assert lines[:3] == [f"waiting for a worker ({seconds} s so far)" for seconds in (10, 20, 30)]
    assert len(lines) == 5 + 9
    assert lines[-1] == "waiting for a worker (590 s so far)"

"""A GLIOFLOW_HOME that the first release made: its own source, taken from git, run by its own command line.

`python tests/compatibility/old_home.py FOLDER` makes one to look at; the tests take it with FIRST_RELEASE_HOME=FOLDER
instead of making their own.
"""

import importlib.metadata
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
FIRST_RELEASE = "a8639e362124208f1f47c4f359dd2a870417a2f9"
# What of it is needed: the code, the files that people copied, and what it was installed with.
PARTS = ("platform", "experiments", "deploy/serve.yaml", "requirements.lock")
# Packages whose version it notes in every registered model, and that later releases are installed without.
GIVEN_UP = ("lifelines",)
SEARCH, MODEL = "first-search", "glioma"
TRIALS = ("-o", "training.epochs=6", "-o", "training.steps_per_epoch=40")
EXPERIMENT = """
name: first
preprocess: [{step: unit}, {step: resize, size: 32}]
split: {method: counts, counts: [5, 2, 3]}
model: {architecture: buda-unet, options: {features: [8, 16, 16]}}
training:
  epochs: 3
  steps_per_epoch: 400
  batch_size: 8
  learning_rate: 4.0e-3
  ema: 0.9
  deterministic: true
  sampling: {augmentation: light}
survival: {task: death01, repeats: 2, num_bootstrap: 20, num_permutations: 0}
search:
  sampler: random
  scheduler: none
  concurrent: 1
  trials: 3
  space:
    training.learning_rate: {kind: float, low: 1.0e-3, high: 1.0e-2, log: true}
    training.optimizer: {kind: choice, values: [adamw, adam]}
gate: {min_patients: 2, max_calibration_error: null, max_latency_s: null}
"""


class MissingHistoryError(Exception):
    """The first release's source cannot be had from this clone."""


@dataclass(frozen=True)
class Release:
    """A source tree whose command line is run on a home, in a process of its own.

    Attributes:
        path: PYTHONPATH: the tree's package folder first.
        home: GLIOFLOW_HOME.
    """

    path: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        ours = ("GLIOFLOW_", "MLFLOW_", "RAY_", "PYTEST_")
        others = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        settings = {"PYTHONPATH": self.path, "GLIOFLOW_HOME": str(self.home), "MLFLOW_DISABLE_TELEMETRY": "true"}
        return {
            **others,
            **settings,
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Start Python, in a folder that holds no other package of our name; Ctrl-C reaches it as in a terminal."""
        command = [sys.executable, *map(str, arguments)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        options: dict[str, Any] = {"cwd": self.home.parent, "env": self.environment, "start_new_session": True}
        # What runs in a shell's background hears no SIGINT, and neither would its children.
        return subprocess.Popen(command, preexec_fn=hear_interrupts, **pipes, **options)

    def python(self, *arguments: str | Path) -> str:
        """Run Python to its end, which must be a good one, and return the last line of its stdout."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=900)
        assert process.returncode == 0, f"{process.returncode}: {' '.join(map(str, arguments))}\n{errors[-3000:]}"
        return output.splitlines()[-1] if output else ""

    def answer(self, *words: str | Path) -> dict[str, Any]:
        """Run a verb and return its JSON."""
        answer: dict[str, Any] = json.loads(self.python("-m", "glioflow", *words, "--json"))
        return answer


@dataclass(frozen=True)
class OldHome:
    """Where all that the first release left behind lies.

    Attributes:
        folder: Of everything below.
        facts: What its command line answered, by what was asked.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cohort(self) -> Path:
        return self.folder / "kaggle_3m"

    @property
    def experiment(self) -> Path:
        return self.folder / "first.yaml"

    @property
    def exported(self) -> Path:
        return self.folder / "exported"

    @property
    def study(self) -> Path:
        """Folder of a test patient's case."""
        return self.cohort / str(self.facts["study"])

    @property
    def slices(self) -> list[Path]:
        """The study's images, in order."""
        files = [path for path in self.study.glob("*.tif") if "_mask" not in path.name]
        return sorted(files, key=lambda path: int(path.stem.rsplit("_", 1)[1]))

    def restore(self) -> None:
        """Put the home back to what the first release left; its path stays, since MLflow knows artifacts by it."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.folder / "home-as-left", self.home, symlinks=True)

    @classmethod
    def open(cls, folder: Path) -> "OldHome":
        return cls(folder, json.loads((folder / "facts.json").read_text()))


def make(folder: Path) -> OldHome:
    """Let the first release do in `folder` what its users did.

    Raises:
        MissingHistoryError: If this clone does not hold it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = OldHome(folder, {})
    path = [str(unpack(made.source) / "platform"), *stand_ins(made)]
    old = Release(os.pathsep.join(path), made.home)
    made.experiment.write_text(EXPERIMENT)
    train = ("train", made.experiment, "--data")

    old.answer("data", "synthesize", "lgg", made.cohort, "--patients", "10", "--seed", "3", "--size", "48")
    prepared = folder / "prepared"
    old.answer("data", "prepare", made.cohort, prepared, "--experiment", made.experiment)
    finished = old.answer(*train, prepared)
    # Averaged weights begin otherwise since then (CHANGELOG.md); without them every number stays.
    exact = old.answer(*train, prepared, "-o", "training.ema=null", "-o", "training.epochs=1")
    interrupted = interrupt_training(old, (*train, made.cohort))
    kill_search(old, ("search", made.experiment, "--data", made.cohort, "-o", f"search.name={SEARCH}", *TRIALS))
    clinical = ("--clinical", made.cohort / "data.csv", "--experiment", made.experiment)
    survival = old.answer("survival", "fit", made.cohort, *clinical, "--masks", "manual")
    register = ("register", finished["run_id"], "--name", MODEL, "--survival", survival["run_id"])
    old.answer(*register)
    promoted = old.answer("promote", MODEL)
    assert promoted["decision"] == "promoted", promoted
    old.answer(*register)
    exported = old.answer("export", f"{MODEL}@champion", made.exported)
    study = split_of(finished["run_id"], made.home)["test"][0]
    clinic = old.answer("predict", exported["path"], made.cohort / study, "--out", folder / "answers")
    facts = {
        "finished": finished,
        "exact": exact,
        "interrupted": interrupted,
        "survival": survival,
        "promoted": promoted,
        "study": study,
        "answer": json.loads(Path(clinic["studies"][0]["answer"]).read_text()),
        "models": old.answer("models"),
    }
    wait_until(lambda: not processes_in(made.home), "Ray's processes did not end")
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))
    made.home.rename(folder / "home-as-left")
    opened = OldHome.open(folder)
    opened.restore()
    return opened


def unpack(folder: Path) -> Path:
    """Write the first release's source to `folder` and return it."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "cat-file", "-e", f"{FIRST_RELEASE}^{{commit}}"], capture_output=True, check=False)
    if found.returncode != 0:
        short = FIRST_RELEASE[:7]
        raise MissingHistoryError(f"the first release, {short}, is not in this clone (git fetch --unshallow)")
    folder.mkdir()
    packed = subprocess.run([*git, "archive", FIRST_RELEASE, *PARTS], capture_output=True, check=True).stdout
    subprocess.run(["tar", "x", "-C", str(folder)], input=packed, check=True)
    return folder


def stand_ins(made: OldHome) -> list[str]:
    """Return a folder that says which version of a package that is no longer installed was; it holds no code."""
    installed = {found.name.lower() for found in importlib.metadata.distributions() if found.name}
    missing = [name for name in GIVEN_UP if name not in installed]
    folder = made.folder / "stand-ins"
    for name in missing:
        locked = re.search(rf"^{name}==(\S+)", (made.source / "requirements.lock").read_text(), re.MULTILINE)
        assert locked is not None, name
        metadata = folder / f"{name}-{locked[1]}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {locked[1]}\n")
    return [str(folder)] if missing else []


def interrupt_training(old: Release, words: tuple[str | Path, ...]) -> str:
    """Press Ctrl-C once the first of three epochs has its checkpoint; return the run's id."""
    before = set(folders(old.home / "train"))
    process = old.start("-m", "glioflow", *words)

    def first_checkpoint() -> bool:
        new = [folder for folder in folders(old.home / "train") if folder not in before]
        return any("checkpoint_" in read(folder / "checkpoint_manager_snapshot.json") for folder in new)

    wait_until(first_checkpoint, "the training wrote no checkpoint", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    match = re.search(r"go on with --resume ([0-9a-f]{32})", errors)
    assert match is not None, f"the training ended before it could be interrupted\n{errors[-3000:]}"
    return match[1]


def kill_search(old: Release, words: tuple[str | Path, ...]) -> None:
    """Kill a search of three trials, one at a time, in the middle of the second."""
    process = old.start("-m", "glioflow", *words)

    def in_the_middle() -> bool:
        states = trials(old.home)
        return len(states) == 2 and states[0] == ("COMPLETE", 6) and states[1][0] == "RUNNING" and states[1][1] >= 2

    wait_until(in_the_middle, "the second trial reported nothing", process)
    process.kill()
    process.communicate(timeout=60)
    states = trials(old.home)
    assert [state for state, _ in states] == ["COMPLETE", "RUNNING"], states


def trials(home: Path) -> list[tuple[str, int]]:
    """Return state and number of reported epochs of each trial in the search's Optuna database."""
    database = home / "searches" / SEARCH / "optuna.db"
    if not database.exists():
        return []
    query = (
        "SELECT state, (SELECT COUNT(*) FROM trial_intermediate_values AS v WHERE v.trial_id = trials.trial_id) "
        "FROM trials ORDER BY number"
    )
    try:
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        try:
            return [(str(state), int(epochs)) for state, epochs in connection.execute(query)]
        finally:
            connection.close()
    except sqlite3.OperationalError:  # its tables are being made
        return []


def split_of(run_id: str, home: Path) -> dict[str, list[str]]:
    (path,) = home.glob(f"artifacts/*/{run_id}/artifacts/split.json")
    split: dict[str, list[str]] = json.loads(path.read_text())
    return split


def hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def processes_in(home: Path) -> list[int]:
    """Return the processes that were started with this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("GLIOFLOW_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], bool], failure: str, process: "subprocess.Popen[str] | None" = None) -> None:
    deadline = time.monotonic() + 900
    while not condition():
        assert process is None or process.poll() is None, f"{failure}: {(process.communicate()[1] or '')[-3000:]}"
        assert time.monotonic() < deadline, failure
        time.sleep(0.05)


if __name__ == "__main__":
    print(make(Path(sys.argv[1]).absolute()).folder)

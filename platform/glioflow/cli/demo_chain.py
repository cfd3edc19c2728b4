"""The steps of the demo: cohort, search, training, cross-validation, survival, registry, gate, endpoint, one study."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import glioflow as gf
from glioflow import cluster
from glioflow.api.client import Client
from glioflow.api.registry import RegisteredVersion
from glioflow.bundle.answer import AnswerJson
from glioflow.cluster.logins import without_password
from glioflow.cluster.storage import home, tracking_uri
from glioflow.config import Experiment
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.file_roles import is_mask_name
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.errors import RunFailed, UserError, not_found
from glioflow.json_values import JsonObject
from glioflow.progress import Say, lines_of, waiting
from glioflow.reports.numbers import short
from glioflow.runs.launch import open_setting
from glioflow.serving.ports import free_port
from glioflow.serving.server import serving
from glioflow.tracking import Tracking

PATIENTS, SIZE, SLICES = 20, 96, (14, 22)


class _Steps:
    """The steps that were done, each with its seconds."""

    def __init__(self) -> None:
        self.done: list[JsonObject] = []
        self._began = time.monotonic()

    def add(self, name: str, **results: Any) -> None:
        now = time.monotonic()
        self.done.append({"step": name, "seconds": round(now - self._began, 1), **results})
        self._began = now


def run_chain(data: Path | None, say: Say) -> tuple[list[JsonObject], AnswerJson]:
    """Run all steps.

    Args:
        data: An LGG cohort; None makes a synthetic one under the home.
        say: Called with each line of progress.

    Returns:
        Each step with its seconds, and the endpoint's answer about one held-out study.
    """
    if data is not None and not data.exists():
        raise not_found(data, hint="give the folder of an LGG cohort")
    if data is not None:
        open_cohort(data)
    say(f"GlioFlow's demo: from a cohort to a served answer, in a few minutes; everything goes to {home()}")
    say("MLflow: opening the store")
    with waiting("MLflow's store to open", say):
        Tracking()  # which refuses a store that is away, before anything is written
    steps, experiment = _Steps(), _experiment_file()
    # Not while Ray starts: it forks this process, which waits for ever if NumPy multiplies in another thread.
    source = data or _synthetic(say)
    steps.add("cohort", path=str(source))
    # Ray ends before the thread is waited for: what it does then fails at once.
    with ThreadPoolExecutor(1, "beside") as beside, cluster.ending():
        say("ray: starting on this machine")
        cluster.connect()  # for all that follows
        searched = gf.search(experiment, source, say=_below("search", say))
        steps.add("search", run_id=searched.run_id, best=searched.best["params"])
        # Side by side: either alone would leave a core idle for half of its time.
        validated = beside.submit(
            gf.crossval, searched.experiment, source, folds=3, hold_out_test=True, say=_below("crossval", lines_of(say))
        )
        trained = gf.train(searched.experiment, source, say=_below("train", say))
        dice = trained.metrics.get("test/dice_mean")
        steps.add("train", run_id=trained.run_id, test_dice=dice)
        folds = validated.result()
        steps.add("crossval", run_id=folds.run_id, dice_mean=folds.dice_mean)
        survival = _survival(searched.experiment, source, folds.run_id, say)
        steps.add("survival", run_id=survival)
        say("register: copying the bundle into MLflow's registry")
        version = gf.register(trained, survival=survival)
        _promote(version, steps, say)
        study = _source_case(source, _held_out(searched.experiment, source))
        answered = _serve_and_ask(version.name, study, say)
        steps.add("serve")
    _show(answered, dice, say)
    return steps.done, answered


def _promote(version: RegisteredVersion, steps: _Steps, say: Say) -> None:
    say(f"gate: judging version {version.version} on its test patients")
    verdict = gf.promote(version)
    for reason in verdict.reasons:
        holds = "holds" if reason.passed else "FAILS"
        say(f"gate: {reason.rule}: {short(reason.value)} (limit {short(reason.limit)}) {holds}")
    steps.add("promote", version=version.version, decision=verdict.decision)
    if verdict.decision != "promoted":
        raise RunFailed(f"the gate decided {verdict.decision}; see `glioflow models {version.name}`")


def _experiment_file() -> Path:
    path = Path(__file__).parents[3] / "experiments" / "demo.yaml"
    if not path.is_file():
        raise UserError("the demo runs only from a clone of GlioFlow's repository", hint=f"{path} does not exist")
    return path


def _synthetic(say: Say) -> Path:
    path = home() / "demo" / "kaggle_3m"
    if not path.exists():
        say(f"writing a synthetic cohort of {PATIENTS} patients to {path}")
        with waiting("the cohort to be written", say):
            synthesize_lgg(path, patients=PATIENTS, seed=0, size=SIZE, slices=SLICES)
    return path


def _below(name: str, say: Say) -> Say:
    return lambda text, part=None: say(f"{name}: {text}" if text else "", part)


def _survival(experiment: Experiment, source: Path, masks: str, say: Say) -> str | None:
    clinical = open_cohort(source).clinical
    if clinical is None:
        say("survival: no data.csv beside the cases, so no survival stage")
        return None
    say("survival: fitting on the shapes of the cross-validation's masks")
    try:
        done = gf.fit_survival(clinical=clinical, masks=masks, experiment=experiment)
    except UserError as error:
        say(f"survival: no stage: {error}")
        return None
    verdict = "beats" if done.beats_baselines else "does not beat"
    say(f"survival: {done.task} on out-of-fold masks; {verdict} its baselines")
    return done.run_id


def _held_out(experiment: Experiment, source: Path) -> str:
    return open_setting(experiment, source).split.test[0]


def _source_case(source: Path, case_id: str) -> list[Path]:
    """Return the image files of a case, without its masks."""
    case = open_cohort(source).case(case_id)
    return [path for path in case.files if not is_mask_name(path.name)]


def _serve_and_ask(name: str, study: list[Path], say: Say) -> AnswerJson:
    say("serve: starting the endpoint and measuring which engine answers fastest")
    port = free_port()
    with serving(name, host="127.0.0.1", port=port, say=_below("serve", say)) as served:
        say(f"serve: {served['name']} version {served['version']} at {served['url']}")
        return Client(str(served["url"])).predict(study, clinical={"age_years": 45}, mask="rle")


def _show(answer: AnswerJson, dice: float | None, say: Say) -> None:
    features, survival = answer["features"]["volume"], answer["survival"]
    say("")
    say(f"study {answer['study']['id']}, answered by {answer['model']['name']} version {answer['model']['version']}:")
    say(f"  tumor in {len(answer['tumor']['slices'])} of {len(answer['study']['slices'])} slices")
    for key in ("volume_px", "centroid_slice", "centroid_row_px", "centroid_column_px", "asd", "bevr"):
        say(f"  {key} {short(features.get(key))}")
    if survival is not None:
        risk, probability = short(survival["risk_score"]), short(survival["probability"])
        say(f"  {survival['task']} risk {risk}, probability {probability}")
    say(f"mean Dice on the held-out test patients: {short(dice)}")
    say("")
    say(f"MLflow:  .venv/bin/mlflow ui --backend-store-uri {without_password(tracking_uri())}")
    say("serve:   .venv/bin/glioflow serve     (then POST slices to http://127.0.0.1:8000/v1/predict)")
    say("again:   make demo DATA=path/to/kaggle_3m runs the same chain on real patients")
    say(str(answer["notice"]))

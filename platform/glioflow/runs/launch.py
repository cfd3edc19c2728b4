"""First steps of every run: find or prepare the cohort, make the split, open the MLflow run."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import yaml

from glioflow import cluster
from glioflow.cluster.remote_home import check_home
from glioflow.cluster.same_home import check_same_home
from glioflow.cluster.storage import data_folder, prepared_home
from glioflow.cluster.workers import WorkerSettings
from glioflow.config import Experiment, data_source, override
from glioflow.config.search import Choice
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.prepared.preparation import find_or_prepare
from glioflow.data.prepared.remote import keep_at_home, local_folder
from glioflow.data.preprocessing.pipeline import Step
from glioflow.data.splits import Split, make_split
from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.models import build_network
from glioflow.models.weights import digest_weights, load_whole, read_weights
from glioflow.progress import Say, lines_of, print_progress, quiet, waiting
from glioflow.quantities import count
from glioflow.runs.source import Source, check_leaks, deal_early, doubts_of, list_source, try_steps
from glioflow.tracking import Tracking
from glioflow.tracking.addresses import check_writable
from glioflow.tracking.datasets import prepared_dataset
from glioflow.tracking.run import Kind, Opening
from glioflow.tracking.trained import CASES, COHORT, SPLIT, cases_text

EXPERIMENT = "experiment.yaml"
# Tag: SHA-256 of the weights files that a run begins with, by their key in the experiment, as JSON.
WEIGHTS = "glioflow.weights"


@dataclass(frozen=True)
class Setting:
    """The input of a run."""

    experiment: Experiment
    cohort: PreparedCohort
    split: Split
    tracking: Tracking


def open_setting(
    experiment: Experiment,
    data: str | Path | None,
    *,
    folds: int = 0,
    resume: str | None = None,
    early: Callable[[Tracking, Source], object] | None = None,
    say: Say = quiet,
) -> Setting:
    """Find or prepare the cohort, make the split, refuse leaks and open MLflow; on a cluster, check its needs first.

    Checks that do not need Ray run before it starts.

    Args:
        experiment: Experiment to run.
        data: Cohort, raw or prepared; None takes the experiment's.
        folds: Number of folds for its patients.
        resume: Run to resume; it must exist.
        early: Further checks, called with MLflow and the cohort before Ray starts.
        say: Called with each line of progress.

    Raises:
        UserError: If a check fails; on several nodes also if MLflow is not a server.
    """
    check_home()
    experiment.loss.check(experiment.target.task, experiment.target.num_outputs)
    if resume is None:  # 0.1.0 allowed batches that workers could not share equally
        check_batch(experiment.training, experiment.training.batch_size)
    source = data_source(data, experiment.data.source)
    listed = list_source(experiment, source, folds=folds)
    if resume is None:  # else `early` reports changes
        for doubt in doubts_of(listed):
            say(f"warning: {doubt}")
        deal_early(experiment, listed)
    check_machine(experiment)
    tracking = Tracking()
    check_writable(tracking.uri)
    if resume is not None:
        tracking.run(resume)
    if early is not None:
        early(tracking, listed)
    channels = len(try_steps(listed, [experiment.preprocess])[0].channels)
    if resume is None:
        check_weights(experiment.resolved, channels)
    experiment = connect_for(experiment, tracking)
    if resume is None and cluster.is_elsewhere():
        check_weights(experiment.resolved, channels)
    say(f"cohort {source}")
    cohort = open_cohort_for(experiment.preprocess, listed, experiment.target, say=say)
    entries = cohort.entries()
    split = make_split(entries, experiment.split, folder=data_folder())
    check_leaks(split, entries)
    _say_prepared(cohort, split, say)
    return Setting(experiment, cohort, split, tracking)


def _say_prepared(cohort: PreparedCohort, split: Split, say: Say) -> None:
    """Say how many patients, cases and slices a cohort has, and how many patients each part of the split."""
    if cohort.shrunk_with_bias:
        say(
            f"warning: GlioFlow 0.1 prepared {cohort.path}, and shrank its masks with a bias toward background; "
            f"`glioflow data prepare {cohort.manifest.source} NEW_FOLDER --experiment FILE` makes them anew"
        )
    people = {entry.id: entry.patient for entry in cohort.entries()}
    shown = {part: len({people[each] for each in getattr(split, part)}) for part in ("train", "val", "test")}
    say(
        f"prepared {count(len(set(people.values())), 'patient')}, {count(len(people), 'case')}, "
        f"{count(cohort.num_slices, 'slice')}; "
        f"patients: train {shown['train']}, val {shown['val']}, test {shown['test']}"
    )


def connect_for(experiment: Experiment, tracking: Tracking) -> Experiment:
    """Connect to Ray for a run, and return the experiment with `auto` values resolved for the cluster.

    Raises:
        UserError: If the cluster can never hold the training, or its nodes cannot share what they need.
    """
    cluster.connect()
    if cluster.resources()["nodes"] > 1 and not tracking.uri.startswith("http"):
        rule = "on more than one node MLFLOW_TRACKING_URI must name a server (http://...)"
        raise UserError(rule, tracking.shown, hint="start `mlflow server` where every node reaches it")
    if cluster.resources()["nodes"] > 1:
        check_same_home()
    experiment = with_gpus(experiment)
    check_resources(experiment)
    return experiment


def check_weights(experiment: Experiment, channels: int) -> None:
    """Refuse a weights file that cannot be read or does not fit the network for this number of channels.

    A remote cluster may have files that are missing here, so one of its nodes checks after connecting.
    """
    if experiment.training.start is None and experiment.model.weights in (None, "imagenet"):
        return
    if not cluster.is_elsewhere():
        _load_weights((experiment, channels))
    elif cluster.is_connected():
        with waiting("a CPU of the Ray cluster", print_progress):
            for _ in cluster.map_parallel(_load_weights, [(experiment, channels)]):
                pass


def _load_weights(given: tuple[Experiment, int]) -> None:
    experiment, channels = given
    model, start = experiment.model, experiment.training.start
    if model.weights == "imagenet":  # may need a download
        model = model.model_copy(update={"weights": None})
    if start is not None:
        read_weights(start, key="training.start")
    network = build_network(model, in_channels=channels, num_outputs=experiment.target.num_outputs)
    if start is not None:
        load_whole(network, start)


def open_cohort_for(
    steps: Sequence[Step], source: str | Path | Source, target: TargetSettings, *, say: Say = quiet
) -> PreparedCohort:
    """Open a cohort preprocessed by `steps`: already prepared, at a URI, or raw and prepared now.

    Args:
        steps: The preprocessing.
        source: The cohort.
        target: The task, whose labels must be those of the cohort.
        say: Called as by `cluster.map_cases` while the cohort is prepared.

    Raises:
        UserError: If it cannot be read, a prepared one was made with other steps, or its labels are not those of
            the target.
    """
    kept_in = prepared_home()
    given = local_folder(source, kept_in) if isinstance(source, str | Path) else source
    run = partial(cluster.map_cases, say=lines_of(say))
    return keep_at_home(find_or_prepare(given, steps, home=kept_in, target=target, map_cases=run))


def check_batch(training: WorkerSettings, batch_size: float | Literal["auto"]) -> None:
    """Refuse a batch size that is not divisible by every possible number of workers.

    Raises:
        UserError: Names the nearest valid batch size.
    """
    fewest, most = training.min_workers, training.max_workers
    parts = math.lcm(*range(fewest, most + 1))
    if batch_size == "auto" or batch_size % parts == 0:
        return
    workers = f"every number of workers from {fewest} to {most}" if training.elastic else f"the {most} workers"
    rule = f"training.batch_size must be a multiple of {workers}, which share a batch equally"
    fewer = " or give a smaller range of training.num_workers" if training.elastic else ""
    raise UserError(rule, batch_size, hint=f"set it to {max(1, round(batch_size / parts)) * parts}{fewer}")


def check_searched_batches(experiment: Experiment) -> None:
    """Refuse a search over batch sizes that the workers cannot share; raises `UserError` as `check_batch`."""
    searched = experiment.search.space.get("training.batch_size")
    if searched is None:
        return
    for batch in searched.values if isinstance(searched, Choice) else (searched.low, searched.low + 1):
        check_batch(experiment.training, batch)


def with_gpus(experiment: Experiment) -> Experiment:
    """Return the experiment with `training.gpus_per_worker: auto` resolved for the connected cluster."""
    if experiment.training.gpus_per_worker != "auto":
        return experiment
    return override(experiment, {"training.gpus_per_worker": 1.0 if cluster.resources()["GPU"] else 0.0})


def check_machine(experiment: Experiment) -> None:
    """Refuse, before Ray starts, a run too large for this machine; raises as `check_resources`."""
    if not (cluster.is_connected() or cluster.joins()):
        check_resources(experiment, cluster.of_this_machine(gpus=experiment.training.gpus > 0))


def check_resources(experiment: Experiment, have: Mapping[str, float] | None = None) -> None:
    """Refuse a run that needs more than the cluster has.

    Args:
        experiment: Experiment to run.
        have: Resources of the cluster; None queries it.

    Raises:
        UserError: States the numbers.
    """
    training, have = experiment.training, cluster.resources() if have is None else have
    for name, each in (("CPU", training.cpus_per_worker), ("GPU", training.gpus)):
        need = each * training.min_workers
        if need > have[name]:
            raise UserError(
                f"training needs {need:g} {name}s ({count(training.min_workers, 'worker')} of {each:g})",
                f"a cluster of {have[name]:g}",
                hint=f"lower training.{name.lower()}s_per_worker or training.num_workers{cluster.or_list_nodes()}",
            )
    if have.get("nodes", 1) == 1:
        return
    fit = cluster.slots(cpus=training.cpus_per_worker, gpus=training.gpus)
    if fit < training.min_workers:  # a worker of four CPUs does not fit on two nodes of three
        raise UserError(
            f"{training.min_workers} workers of {training.cpus_per_worker:g} CPUs and {training.gpus:g} "
            "GPUs must fit on the cluster, each on one node",
            f"{fit} that fit on {have['nodes']:g} nodes of {have['CPU']:g} CPUs and {have['GPU']:g} GPUs in all",
            hint="lower training.cpus_per_worker, training.gpus_per_worker or training.num_workers"
            + cluster.or_list_nodes(),
        )


def opening_of(
    setting: Setting, kind: Kind, name: str, *, parent: str | None = None, tags: Mapping[str, str] | None = None
) -> Opening:
    """Return the arguments that open a run for a setting: all that `reproduce` needs.

    Args:
        setting: Input of the run.
        kind: Kind of the run.
        name: Shown in MLflow, whose table shows about a dozen letters of a child's name.
        parent: Run id of the search or cross-validation it belongs to.
        tags: Further ones.
    """
    experiment, split, cohort = setting.experiment, setting.split, setting.cohort
    digests = {"glioflow.split": split.digest, "glioflow.test": split.test_digest}
    if weights := digests_of_weights(experiment, searched=kind == "search"):
        digests[WEIGHTS] = json.dumps(weights)
    address = {"path": str(cohort.path), "fingerprint": cohort.manifest.fingerprint}
    return Opening(
        kind=kind,
        experiment=experiment.name,
        name=name,
        parent=parent,
        tags={**digests, **(tags or {})},
        params=experiment.resolved.model_dump(mode="json", exclude={"search", "gate", "description"}),
        texts={
            EXPERIMENT: to_yaml(experiment),
            SPLIT: json.dumps(split.model_dump(mode="json"), indent=1),
            CASES: cases_text(cohort.entries()),
            COHORT: json.dumps(address, indent=1),
        },
        datasets=(
            prepared_dataset(
                cohort,
                "training",
                cases=len(cohort.records),
                slices=cohort.num_slices,
                **{part: len(getattr(split, part)) for part in ("train", "val", "test")},
                split=split.digest,
                test_patients=split.test_digest,
            ),
        ),
    )


def digests_of_weights(experiment: Experiment, *, searched: bool = False) -> dict[str, str]:
    """Return the SHA-256 of the experiment's weights files by their key, of those on this machine.

    If `searched`, those of a search space are included, all of a key together: a tag is limited in length.
    """
    sources = {"model.weights": experiment.model.weights, "training.start": experiment.training.start}
    digests = {key: digest for key, source in sources.items() if (digest := digest_weights(source)) is not None}
    for key in sources if searched else ():
        files = {source: digest_weights(source) for each, source in _searched_weights(experiment) if each == key}
        if files and None not in files.values():
            digests[f"{key} in search.space"] = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return digests


def check_searched_weights(experiment: Experiment) -> None:
    """Refuse a search space with a weights file that cannot be read, unless only the nodes elsewhere may have it.

    Raises:
        UserError: As `read_weights`.
    """
    for key, source in _searched_weights(experiment) if not cluster.is_elsewhere() else ():
        try:
            read_weights(source, key=key)
        except UserError as error:
            raise error.replace(rule=f"search.space: {error.rule}") from None


def _searched_weights(experiment: Experiment) -> list[tuple[str, str]]:
    """Return each weights file in the search space with its key, also from values of the whole section `model`."""
    space = experiment.search.space.items()
    choices = {key: parameter.values for key, parameter in space if isinstance(parameter, Choice)}
    named = [(key, value) for key in ("model.weights", "training.start") for value in choices.get(key, ())]
    named += [("model.weights", value.get("weights")) for value in choices.get("model", ()) if isinstance(value, dict)]
    return [(key, value) for key, value in dict.fromkeys(named) if isinstance(value, str) and value != "imagenet"]


def to_yaml(experiment: Experiment) -> str:
    """Return the complete experiment, with defaults, as YAML that loads as the same experiment."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)

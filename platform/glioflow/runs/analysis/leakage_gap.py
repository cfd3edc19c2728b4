"""The two trainings of the leakage gap, split by patient and by slice, in parallel on Ray."""

from pathlib import Path

from glioflow import cluster
from glioflow.audit.gap import Kind, Scores, Trial, run_trial
from glioflow.progress import Say
from glioflow.quantities import count
from glioflow.runs.launch import Setting, with_gpus
from glioflow.runs.progress import PROGRESS, TRAINED, ProgressFile, shown

Gap = dict[Kind, dict[str, Scores]]


def measure_gap(setting: Setting, folder: Path, say: Say) -> Gap:
    """Train under both kinds of split and score each.

    Args:
        setting: Setting of the trainings.
        folder: Folder in which the workers write their progress.
        say: Called with each line of progress and the fraction done.
    """
    kinds: tuple[Kind, ...] = ("patient", "slice")
    experiment = with_gpus(setting.experiment)
    training = experiment.training
    files = {f"split by {kind}": folder / kind / PROGRESS for kind in kinds}
    trials = [
        (Trial(experiment, setting.cohort.path, setting.split, kind), file)
        for kind, file in zip(kinds, files.values(), strict=True)
    ]
    say(f"training twice, split by patient and split by slice: {count(training.epochs, 'epoch')} each")
    gap: Gap = {}
    results = cluster.map_parallel(_run_trial, trials, num_cpus=training.cpus_per_worker, num_gpus=training.gpus)
    with shown(files, say):
        for kind, scores in zip(kinds, results, strict=True):
            gap[kind] = scores
            say(f"split by {kind}: Dice {scores['network'].dice:.3f}")
    return gap


def _run_trial(job: tuple[Trial, Path]) -> dict[str, Scores]:
    """Train under one kind of split, and record the progress."""
    trial, file = job
    epochs, progress = trial.experiment.training.epochs, ProgressFile(file)

    def report(epoch: int, *_: object) -> None:
        progress.note(f"epoch {epoch + 1} of {epochs}", TRAINED * (epoch + 1) / epochs)

    return run_trial(trial, report)

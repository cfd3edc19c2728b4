"""Plans: an experiment file for a cohort, with the reason of every choice."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from glioflow import cluster
from glioflow.api.results import Result
from glioflow.atomic import check_folder, write_text
from glioflow.cluster.storage import data_folder
from glioflow.config import Experiment, override
from glioflow.config.search import MOST_HOURS
from glioflow.data.formats.detect import open_cohort
from glioflow.errors import UserError, option
from glioflow.json_values import JsonObject
from glioflow.planning.facts import CohortFacts, Machine
from glioflow.planning.plan import Answer, here
from glioflow.planning.plan import plan as plan_experiment
from glioflow.planning.rules import Choice
from glioflow.progress import Say, print_progress, waiting
from glioflow.reports.tables import Table

# As `experiments/` names them.
_WEIGHTS = "mobilenet_v2_imagenet.pth"


@dataclass(frozen=True)
class PlanResult(Result):
    """A planned experiment.

    Attributes:
        path: The file that was written; None if none was asked for.
        text: Its content.
        choices: `key`, `value` and `reason` of each setting.
        facts: Measured properties of the cohort.
        experiment: The experiment, for `train`, `crossval` and `search`.
    """

    path: Path | None
    text: str
    choices: list[Choice] = field(repr=False)
    facts: CohortFacts = field(repr=False)
    experiment: Experiment = field(repr=False)

    def to_json(self) -> JsonObject:
        """Return the values as `--json` prints them on the command line."""
        return {key: value for key, value in super().to_json().items() if key != "text"}

    def tables(self) -> list[Table]:
        """Return the choices with their reasons."""
        rows = [[choice.key, str(choice.value), choice.reason] for choice in self.choices]
        return [Table("", ["setting", "value", "because"], rows)]


def plan(
    cohort: str | Path,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    minutes: float = 60,
    say: Say = print_progress,
) -> PlanResult:
    """Plan an experiment for a cohort and this machine, or for the Ray cluster at RAY_ADDRESS.

    Args:
        cohort: Folder of a cohort with masks, as it was downloaded.
        out: New YAML file; None writes none.
        name: Name of the experiment; None takes that of the folder.
        minutes: How long one training may take.
        say: Called with each line of progress.

    Raises:
        UserError: If the cohort has no masks, `out` exists, or `minutes` is not a finite number above 0.
    """
    if not 0 < minutes < math.inf:
        raise UserError("the minutes of a training must be a finite number above 0", minutes)
    if minutes > 60 * MOST_HOURS:
        raise UserError(f"{option('minutes')} must be at most {60 * MOST_HOURS:.0f}", minutes)
    if name is not None:
        override(Experiment(), {"name": name})
    path = None if out is None else Path(out)
    if path is not None:
        check_folder(path.absolute().parent, option("out"))
        if path.exists():
            raise UserError(
                f"{path} exists already", str(path), hint=f"choose another name for {option('out')}, or remove the file"
            )
    data = data_folder()
    folder = Path(cohort)
    if not folder.exists() and data is not None and (data / folder).exists():
        folder = data / folder
    weights = _WEIGHTS if data is not None and (data / _WEIGHTS).is_file() else None
    made = plan_experiment(
        open_cohort(folder),
        name=name,
        source=str(cohort),
        minutes=minutes,
        there=_on_cluster if cluster.joins() else here,
        weights=weights,
        say=say,
    )
    if path is not None:
        write_text(path, made.text)
    return PlanResult(path, made.text, list(made.choices), made.facts, made.experiment)


def _on_cluster(work: Callable[[], Answer], /) -> Answer:
    """Do the work on a node of the connected cluster, one with a GPU where it has any."""
    cluster.connect()
    gpus = int(cluster.resources()["GPU"])
    with waiting(f"a {'GPU' if gpus else 'CPU'} of the Ray cluster", print_progress):
        (answer,) = cluster.map_parallel(here, [work], num_gpus=min(1, gpus))
    if isinstance(answer, Machine):  # a task sees the one GPU that it booked
        return cast(Answer, replace(answer, gpus=answer.gpus * gpus, what="a node of the Ray cluster"))
    return answer

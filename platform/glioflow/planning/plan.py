"""The plan of an experiment: its choices in order, and the resulting file."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from glioflow.config import Experiment
from glioflow.config.experiment import load_experiment
from glioflow.config.search import name_after
from glioflow.data.formats.record import Cohort
from glioflow.errors import UserError
from glioflow.planning import rules
from glioflow.planning.facts import CohortFacts, Machine, look_at_machine, measure_cohort
from glioflow.planning.rules import Choice
from glioflow.progress import Say, quiet
from glioflow.quantities import count

# Halvings of a patch from 128 voxels per side down to 32, one side at a time.
_MOST_HALVINGS = 7
Answer = TypeVar("Answer")


class There(Protocol):
    """A function that does work where the experiment will run, and returns the result."""

    def __call__(self, work: Callable[[], Answer], /) -> Answer:
        """Do the work, which can be pickled; if elsewhere, in its own process."""


def here(work: Callable[[], Answer], /) -> Answer:
    """Do the work in this process."""
    return work()


# The choices, nested by the parts of their keys.
Tree = dict[str, "Choice | Tree"]


@dataclass(frozen=True)
class Planned:
    """A plan.

    Attributes:
        experiment: The resulting experiment.
        choices: Every setting with its reason, in the order of the file.
        facts: About the cohort.
        machine: The machine that it was planned for.
        text: The experiment file.
    """

    experiment: Experiment
    choices: tuple[Choice, ...]
    facts: CohortFacts
    machine: Machine
    text: str


def plan(
    cohort: Cohort,
    *,
    name: str | None = None,
    source: str | None = None,
    minutes: float = 60,
    there: There = here,
    weights: str | None = None,
    say: Say = quiet,
) -> Planned:
    """Plan an experiment for a cohort.

    Args:
        cohort: Cohort with masks.
        name: Name of the experiment; None derives one from the cohort's folder.
        source: The file's `data.source`; None takes the cohort's folder.
        minutes: Time for one training.
        there: Does work where the experiment will run: reads that machine's facts and times steps there.
        weights: File of MobileNetV2's ImageNet weights, if available.
        say: Called with progress.

    Raises:
        UserError: If the cohort has no masks, or cannot be read, or no training step fits into memory.
    """
    facts = measure_cohort(cohort, say=say)
    facts = replace(facts, source=source or facts.source)
    machine = there(look_at_machine)
    before = [
        *rules.plan_target(facts),
        rules.plan_preprocessing(facts, machine),
        *rules.plan_split(facts),
        *rules.plan_network(facts, machine, weights=weights),
    ]
    title = name or name_after(cohort.path.resolve(), otherwise="plan")
    say("measuring a training step")
    training = list(_fitting(title, facts, machine, before, minutes, there))
    chosen = {choice.key: choice.value for choice in (*before, *training)}
    choices = _choices(
        before,
        training,
        rules.plan_inference(facts),
        rules.plan_survival(facts),
        rules.plan_search(facts, machine, chosen),
    )
    text = _write(title, facts, choices)
    return Planned(_experiment(text), choices, facts, machine, text)


def _fitting(
    title: str, facts: CohortFacts, machine: Machine, before: list[Choice], minutes: float, there: There
) -> Iterator[Choice]:
    """Choose the training, with the largest batch and patch that fit into memory, from the time of measured steps."""
    from glioflow.planning.speed import measure_step, memory_for_a_step  # brings PyTorch

    available, tried = memory_for_a_step(machine), None
    for halved in range(_MOST_HALVINGS):
        trial = _choices(
            before, rules.plan_training(facts, machine, minutes=minutes, seconds_per_step=1.0, halved=halved)
        )
        experiment = _experiment(_write(title, facts, trial))
        size = (experiment.training.batch_size, experiment.training.sampling.patch)
        if size == tried:
            break
        cost, tried = there(partial(measure_step, experiment, facts.channels, available=available)), size
        if cost.bytes <= available:
            share = f"{cost.bytes / 1e9:.2g} of the {available / 1e9:.2g} GB for it"
            probe = f"a step takes {share}, tried on {machine.what}"
            return rules.plan_training(
                facts, machine, minutes=minutes, seconds_per_step=cost.seconds, halved=halved, probe=probe
            )
    raise UserError("a training step must fit into memory", f"{available / 1e9:.2g} GB", hint="end other programs")


def _choices(*parts: Iterable[Choice]) -> tuple[Choice, ...]:
    """Return the choices of all parts, grouped by section."""
    choices = [choice for part in parts for choice in part]
    sections = list(dict.fromkeys(choice.key.split(".")[0] for choice in choices))
    return tuple(sorted(choices, key=lambda choice: sections.index(choice.key.split(".")[0])))


def _experiment(text: str) -> Experiment:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.yaml"
        path.write_text(text, encoding="utf-8")
        return load_experiment(path)


def _write(title: str, facts: CohortFacts, choices: tuple[Choice, ...]) -> str:
    """Return an experiment file with the reason of each choice above it."""
    size = f"{count(facts.patients, 'patient')} with masks, {count(facts.cases, 'case')}"
    about = f"{size} of {', '.join(facts.channels)}; planned by `glioflow plan`."
    absent = ", ".join(f"{name} in {number}" for name, number in facts.missing.items() if number)
    gaps = [_comment(f"Empty, or a copy of FLAIR, in {facts.read} cases read: {absent}.")] if absent else []
    lines = [_comment(about), *gaps, f"name: {_value(title)}", f"data: {{source: {_value(facts.source)}}}"]
    tree: Tree = {}
    for choice in choices:
        *sections, last = choice.key.split(".")
        node = tree
        for section in sections:
            inner = node.setdefault(section, {})
            assert isinstance(inner, dict)
            node = inner
        node[last] = choice
    return "\n".join([*lines, *_lines(tree, 0)]) + "\n"


def _lines(tree: Tree, depth: int) -> list[str]:
    indent, lines = "  " * depth, []
    for key, value in tree.items():
        if isinstance(value, Choice):
            lines += [
                indent + _comment(f"{value.reason[0].upper()}{value.reason[1:]}."),
                f"{indent}{key}: {_value(value.value)}",
            ]
        else:
            lines += [f"{indent}{key}:", *_lines(value, depth + 1)]
    return lines


def _comment(text: str) -> str:
    """Return a text, which may hold names from the cohort's files, as a comment of one line."""
    return "# " + " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _value(value: Any) -> str:
    """Return a value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()
    return text.removesuffix("...").strip()

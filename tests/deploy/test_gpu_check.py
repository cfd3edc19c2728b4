"""The check of machines with GPUs names commands, options and keys that exist: no machine here can run it."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from glioflow.cli.app import app
from glioflow.config import load_experiment

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "deploy" / "gpu-check.sh").read_text().replace("\\\n", " ")
# Each from the name of the program to where the shell ends or redirects it.
COMMANDS = [
    shlex.split(found)[1:]
    for line in SCRIPT.splitlines()
    if not line.lstrip().startswith("#")
    for found in re.findall(r"(?<![\w\"'/-])glioflow (?:[^;&|>\"]|\"[^\"]*\")+", line)
]


def test_every_verb_of_a_run_is_checked():
    verbs = {command[0] for command in COMMANDS}
    assert verbs == {"data", "train", "register", "promote", "predict", "serve", "search", "crossval"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_check_gives_a_command_the_options_that_it_has(command):
    group = typer.main.get_command(app)
    context = typer.Context(group)
    while hasattr(group, "commands"):
        group, command = group.commands[command[0]], command[1:]
        context = typer.Context(group, parent=context)
    # The values of shell variables are not known, so that they are not checked.
    group.make_parser(context).parse_args([each for each in command if each != "${few[@]}"])


@pytest.mark.parametrize("change", sorted(set(re.findall(r"-o (\"[^\"]+\"|[^\s)]+)", SCRIPT))))
def test_the_check_changes_keys_that_an_experiment_has(change):
    change = change.strip('"').replace("$((16 * gpus))", "32").replace("$gpus", "2")
    counts = [] if change.startswith("split.counts") else ["split.counts=[6, 3, 3]"]  # which the method alone needs
    load_experiment(ROOT / "experiments" / "demo.yaml", [*counts, change])

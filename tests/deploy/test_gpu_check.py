"""The check of machines with GPUs names commands, options and keys that exist: no machine here can run it."""

import os
import re
import shlex
import socket
import subprocess
import sys
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


def write_program(path, text):
    path.write_text(text)
    path.chmod(0o755)


def check(tmp_path, **variables):
    """Run the check with only what `tmp_path` and the system offer as programs."""
    path = f"{tmp_path}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", ROOT / "deploy" / "gpu-check.sh", tmp_path / "report.md"],
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def _nothing_is_installed(tmp_path):
    write_program(tmp_path / "make", f"#!/bin/sh\ntouch {tmp_path}/installed\n")
    yield
    assert not (tmp_path / "installed").exists()


@pytest.mark.usefixtures("_nothing_is_installed")
def test_without_a_gpu_nothing_is_installed_and_the_reason_is_given(tmp_path):
    write_program(tmp_path / "nvidia-smi", "#!/bin/sh\nexit 9\n")  # as where no driver runs
    done = check(tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("nvidia-smi shows no GPU here: install NVIDIA's driver")


@pytest.mark.usefixtures("_nothing_is_installed")
def test_a_python_without_pytorch_is_not_taken_for_a_machine_without_a_gpu(tmp_path):
    write_program(tmp_path / "nvidia-smi", "#!/bin/sh\n")
    write_program(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    done = check(tmp_path, SETUP="no")
    assert done.returncode == 1
    assert "the python on the PATH cannot import PyTorch: leave out SETUP=no" in done.stdout


ENDPOINT = """#!{python}
import http.server, signal, sys
from glioflow.cluster import interrupt_on_sigterm

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

if sys.argv[1] == "serve":
    signal.alarm(20)  # ends it where nothing else does
    interrupt_on_sigterm()
    try:
        http.server.HTTPServer(("127.0.0.1", int(sys.argv[5])), Ready).serve_forever()
    except KeyboardInterrupt:
        open("{ended}", "w").close()
"""


def test_the_endpoint_in_the_background_ends_when_its_study_is_answered(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    write_program(tmp_path / "glioflow", ENDPOINT.format(python=sys.executable, ended=tmp_path / "ended"))
    (tmp_path / "python").symlink_to(sys.executable)
    serve = re.search(r"^serve\(\) \{.*?^\}$", SCRIPT, re.MULTILINE | re.DOTALL)[0].replace("8731", str(port))
    done = subprocess.run(
        ["bash", "-c", f"{serve}\nwork={tmp_path} study=x; serve"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / "ended").exists()


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

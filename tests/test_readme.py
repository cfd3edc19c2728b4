"""What README and `docs/` tell people to type is typed here; blocks that need a server name the tests that run them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from readme import PAGES, README, ROOT, named_tests, unmarked_blocks
from servers import free_port


@pytest.fixture
def environment() -> dict[str, str]:
    """Give a person's environment: nothing of ours is set, `.venv` is active."""
    ours = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "GLIOFLOW_HOME", "GLIOFLOW_DATA", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    env = {key: value for key, value in os.environ.items() if key not in ours}
    return {**env, "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}


def test_every_block_names_a_test_that_runs_it() -> None:
    assert not unmarked_blocks()
    assert named_tests()
    for test in named_tests():
        file, _, name = test.partition("::")
        assert re.search(rf"def {name}\(", (ROOT / file).read_text()), test


def test_readme_is_short_and_says_what_this_is_not() -> None:
    assert len(README.splitlines()) <= 150
    assert "Research software, not for clinical use" in README


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_what_a_page_points_at_exists(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
        if "/generated/" not in target:  # which Sphinx checks when it builds the site
            assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:deploy|mlflow|experiments|benchmarks|platform|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists() or path.startswith("docs/_build"), path


def test_make_runs_what_readme_says(readme_block: str, environment: dict[str, str]) -> None:
    def make_output(target: str) -> str:
        asked = ["make", "--dry-run", "--always-make", *target.split()]
        return subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

    named = re.findall(r"^make (\w+)", readme_block, re.MULTILINE)
    assert named == ["setup", "demo", "serve", "page"]
    assert "--require-hashes requirements.lock" in make_output("setup")
    for verb in ("demo", "serve", "page"):
        assert make_output(verb).rstrip().endswith(f"glioflow {verb}"), "tests/runs/test_chain.py runs the demo"
    assert make_output("demo DATA=some/where").rstrip().endswith("glioflow demo --data some/where")
    tested = make_output("test")
    for tool in ("ruff check", "mypy", "lint-imports", "pytest"):  # tests/test_docs.py builds the site
        assert tool in tested


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tour_runs_line_by_line(readme_block: str, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", readme_block],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "promoted" in done.stderr
    assert list((tmp_path / "answers").glob("*/answer.json"))


@pytest.mark.slow
def test_mlflow_shows_the_homes_runs(
    readme_block: str, environment: dict[str, str], tracking: Any, home: Path, tmp_path: Path
) -> None:
    tracking.start("an experiment", "a run", tags={})
    (tmp_path / ".glioflow").symlink_to(home)
    port = free_port()
    command = ["bash", "-c", f"exec {readme_block} --port {port} --workers 1"]
    env = {**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                url = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/search?max_results=9"
                shown = requests.get(url, timeout=5).json()
                break
            except requests.RequestException:
                assert process.poll() is None, "mlflow ended"
                assert time.monotonic() < deadline, "mlflow did not come up"
                time.sleep(0.5)
        assert "an experiment" in [each["name"] for each in shown["experiments"]]
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_every_command_that_a_page_names_exists() -> None:
    named = {verb for text in PAGES.values() for verb in re.findall(r"(?:^|`)glioflow ([a-z]+)", text, re.MULTILINE)}
    helped = subprocess.run(
        [sys.executable, "-m", "glioflow", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert named <= set(re.findall(r"^(?: |│)+ ?([a-z]+)", helped, re.MULTILINE))


def test_the_traps_of_the_top_level_are_not_sprung() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    addopts = (ROOT / "pyproject.toml").read_text()
    assert "import-mode=importlib" not in addopts

"""What README tells people to type is typed here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"<!-- test(?P<mark>[ a-z]*) -->\n```bash\n(?P<script>.*?)```", re.DOTALL)


@pytest.mark.timeout(900)
def test_the_tour_runs_line_by_line(tmp_path: Path) -> None:
    scripts = [found["script"] for found in BLOCK.finditer(README)]
    assert scripts, "README marks its tour with <!-- test -->"
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    env = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "GLIOFLOW_HOME")}
    path = f"{Path(sys.executable).parent}:{env['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(scripts)],
        cwd=tmp_path,
        env={**env, "PATH": path},
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "promoted" in done.stderr
    assert list((tmp_path / "answers").glob("*/answer.json"))


def test_every_verb_that_readme_names_exists() -> None:
    named = set(re.findall(r"(?:^|`)glioflow ([a-z]+)", README, re.MULTILINE))
    helped = subprocess.run(
        [sys.executable, "-m", "glioflow", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert named <= set(re.findall(r"^  ([a-z]+)", helped, re.MULTILINE))


def test_the_traps_of_the_top_level_are_not_sprung() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    addopts = (ROOT / "pyproject.toml").read_text()
    assert "import-mode=importlib" not in addopts

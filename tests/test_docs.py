"""The site builds without a warning, stands alone, and its examples run; the files beside it are valid."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

import glioflow
from glioflow.cluster.storage import home
from glioflow.runs.search.tuner import SearchFolder
from readme import ROOT, python_examples

BIN = Path(sys.executable).parent
GUIDE = ("own-data.md", "experiments-and-search.md", "promotion.md", "serving.md")


@pytest.fixture(scope="module")
def site() -> Path:
    """Build the site as `make docs` does, which is quick after `make docs`."""
    html = ROOT / "docs" / "_build" / "html"
    built = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "-d", str(html.with_name("doctrees"))]
    done = subprocess.run([*built, str(ROOT / "docs"), str(html)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return html


class Loaded(HTMLParser):
    """The addresses that a browser loads for a page: scripts, styles, fonts, images, frames."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect."""
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses.append(values.get("src") or "")
        if tag == "link":
            self.addresses.append(values.get("href") or "")


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        outside = [found for found in Loaded(page.read_text()).addresses if re.match(r"(https?:)?//", found)]
        assert not outside, page
    for style in site.rglob("*.css"):
        text = style.read_text()
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", text), style
    assert (site / "reference" / "generated" / "python-api.html").is_file()


def test_architecture_names_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition("## Packages")[2].partition("\n\nEach package")[0]
    first_cells = "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`(\w+)`", first_cells))
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    assert named == {name.strip() for layer in layers for name in layer.split("|")}, "docs/architecture.md, Packages"


@pytest.mark.parametrize(
    ("schema", "file"),
    [("vendor.github-workflows", ".github/workflows/test.yml"), ("vendor.citation-file-format", "CITATION.cff")],
)
def test_a_file_follows_its_schema(schema: str, file: str) -> None:
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", schema, file], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_version_and_license_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == glioflow.__version__
    assert f"## [{glioflow.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert citation["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"].startswith("Apache-2.0 AND")


def test_the_workflow_has_the_whole_history_and_calls_make() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert steps[0]["with"]["fetch-depth"] == 0, "lineage tests read the history"
    assert steps[-1] == {"run": "make test"}


def test_pre_commit_runs_the_linters_of_make() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [each["repo"] for each in hooks["repos"]] == ["local"]
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    wanted = [line.strip().removesuffix(" .") for line in lint.splitlines()[1:]]
    found = [hook["entry"].replace(".venv/bin", "$(BIN)") for hook in hooks["repos"][0]["hooks"]]
    assert found == wanted


def test_a_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    """An editable installation would hide a page, style or script that the wheel lacks."""
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files", "-z", "platform"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    for file in (*files, Path("pyproject.toml"), Path("README.md"), Path("LICENSE")):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes((ROOT / file).read_bytes())
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(file.relative_to("platform")) for file in files}
    assert {"glioflow/py.typed", "glioflow/__init__.py"} <= expected
    assert {Path(name).suffix for name in expected} >= {".html", ".css", ".js"}
    assert not expected - packed
    assert any(name.endswith("licenses/LICENSE") for name in packed)


@pytest.fixture
def workplace(tmp_path: Path, lgg: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with `experiments/` and a `cohort`, as the pages have it."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "cohort").symlink_to(lgg)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_python_examples_run(workplace: Path) -> None:
    names: dict[str, Any] = {}
    for page in GUIDE:
        for code in python_examples(f"docs/{page}"):
            exec(compile(code, page, "exec"), names)
    assert names["decision"].decision in ("promoted", "rejected", "insufficient-evidence")
    assert (workplace / "mask.nii.gz").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_readmes_python_runs(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    (code,) = python_examples("README.md")
    assert len([line for line in code.splitlines() if line]) == 5
    glioflow.synthesize("lgg", "cohort")  # as the line above the code says
    exec(code, {})
    assert (tmp_path / "mask.nii.gz").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_from_a_cohort_to_a_served_answer(tmp_path: Path, home: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    env = {**os.environ, "GLIOFLOW_HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=env)
    shown = [text for cell in notebook.cells for output in cell.get("outputs", ()) for text in output.get("data", ())]
    assert "text/html" in shown, "results show themselves"


@pytest.mark.parametrize("named", [True, False], ids=["with GLIOFLOW_HOME", "without"])
def test_the_documented_address_of_the_dashboard_opens_the_study_of_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    text = (ROOT / "docs" / "experiments-and-search.md").read_text()
    (address,) = re.findall(r"`optuna-dashboard (\"sqlite:.*\")`", text)
    monkeypatch.chdir(tmp_path)
    if not named:
        monkeypatch.delenv("GLIOFLOW_HOME")
    folder = SearchFolder("NAME", home() / "searches" / "NAME")
    folder.path.mkdir(parents=True)
    optuna.create_study(study_name="s", storage=folder.storage)
    shown = subprocess.run(["bash", "-c", f"echo {address}"], capture_output=True, text=True, check=True)
    assert optuna.get_all_study_names(shown.stdout.strip()) == ["s"]

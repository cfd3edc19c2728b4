"""What a person sees of a search and a training in MLflow's own page, in a real browser."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glioflow import cluster
from glioflow.config import load_experiment
from servers import ROOT, mlflow_server
from serving.headless_chromium import CHROMIUM, Browser, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (make system-packages)"),
]
PATIENCE_S = 120
NAMES = "[...document.querySelectorAll('[col-id*=\"Run Name\"] a')].map(a => a.innerText)"
PICTURES = "[...document.querySelectorAll('img')].filter(i => !i.src.includes('svg') && i.naturalWidth > 50)"


@dataclass
class Shown:
    """MLflow's page on a store, and its runs by name."""

    page: Browser
    url: str
    runs: dict[str, Any]

    def open(self, address: str, *, until: str) -> None:
        """Open an address of the page and wait until an expression is true there."""
        self.page.open("about:blank")
        self.page.open(f"{self.url}/#/experiments/{self.runs['demo'].info.experiment_id}/{address}")
        self.page.until(until, seconds=PATIENCE_S)

    def id(self, name: str) -> str:
        return str(self.runs[name].info.run_id)


@pytest.fixture(scope="module")
def shown(lgg: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    from glioflow.runs.search.run import search
    from glioflow.runs.train.run import train

    folder = tmp_path_factory.mktemp("page")
    overrides = ["search.name=demo-search", "training.epochs=3", "training.steps_per_epoch=4", "search.scheduler=none"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("GLIOFLOW_HOME", str(folder / "home"))
        cluster.connect(num_cpus=2)
        try:
            searched = search(load_experiment(ROOT / "experiments" / "demo.yaml", overrides), lgg, trials=2)
            train(searched.experiment, lgg)
        finally:
            cluster.disconnect()
    with looking_at(folder / "home" / "mlflow.db", folder) as found:
        yield found


@contextmanager
def looking_at(database: Path, folder: Path) -> Iterator[Shown]:
    """Start the tracking server on a database, and a browser."""
    from glioflow.tracking import Tracking

    uri = f"sqlite:///{database}"
    runs = {run.info.run_name: run for run in Tracking(uri).every_run()}
    with mlflow_server(folder / "server", {"MLFLOW_BACKEND_STORE_URI": uri}) as url, browser(folder) as page:
        page.size(1400, 800)
        page.open(url)
        page.run("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        page.run("localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')")
        yield Shown(page, url, runs)


def test_a_search_is_one_row_that_opens_to_its_trials(shown: Shown) -> None:
    page = shown.page
    shown.open("runs", until=f"{NAMES}.includes('demo-search')")
    assert page.run(NAMES) == ["demo", "demo-search"], "a trial among the searches"
    page.run("[...document.querySelectorAll('[col-id*=\"Run Name\"] button')].find(b => b.offsetParent).click()")
    page.until(f"{NAMES}.length > 2", seconds=PATIENCE_S)
    assert page.run(NAMES) == ["demo", "demo-search", "trial-001 demo-search", "trial-000 demo-search"]


def test_two_trials_compare_by_their_parameters_and_their_epochs(shown: Shown) -> None:
    both = [shown.id(f"trial-00{k} demo-search") for k in (0, 1)]
    experiment = shown.runs["demo"].info.experiment_id
    shown.page.open("about:blank")
    shown.page.open(f'{shown.url}/#/compare-runs?runs={json.dumps(both)}&experiments=["{experiment}"]')
    # Of the table of metrics, which is longer, the rows that one sees without scrolling are there.
    for text in ("trial-000 demo-search", "trial-001 demo-search", "training.learning_rate", "val/dice_ci95_low"):
        shown.page.until(f"document.body.innerText.includes({json.dumps(text)})", seconds=PATIENCE_S)


def test_the_report_is_shown_and_pictures_of_validation_cases_have_a_slider_over_the_epochs(shown: Shown) -> None:
    run = shown.id("demo")
    shown.open(f"runs/{run}/artifacts/report/index.html", until="!!document.querySelector('iframe')")
    shown.open("runs?compareRunsMode=CHART", until="!!document.querySelector('[role=slider]')")
    shown.page.until(f"{PICTURES}.length > 0", seconds=PATIENCE_S)
    assert "overlays/TCGA" in shown.page.run("document.body.innerText")

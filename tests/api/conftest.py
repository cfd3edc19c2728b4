"""What the API's tests share: a bundle that was never trained, and a case of the synthetic cohort."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bundles import describe
from glioflow import bundle
from glioflow.config import Experiment
from glioflow.models import build_network


@pytest.fixture(scope="session")
def model_folder(tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bundle whose random network calls about half of a head tumor."""
    torch.manual_seed(0)
    network = build_network(tiny.model, in_channels=3, num_outputs=1)
    folder = tmp_path_factory.mktemp("bundles") / "model"
    bundle.save(folder, describe(tiny), network.state_dict())
    return folder


@pytest.fixture
def study(lgg: Path) -> Path:
    """Return the folder of the cohort's first case."""
    return sorted(path for path in lgg.iterdir() if path.is_dir())[0]


@pytest.fixture
def images(study: Path) -> list[Path]:
    """Return the slices of that case in order, without its masks."""

    def number(path: Path) -> int:
        return int(path.stem.rpartition("_")[2])

    found = [path for path in study.glob("*.tif") if not path.stem.endswith("_mask")]
    return sorted(found, key=number)


@pytest.fixture
def quiet() -> Callable[..., None]:
    return lambda text, part=None: None

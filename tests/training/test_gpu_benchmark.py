"""The GPU benchmark runs at small sizes on a CPU, so that it cannot rot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_benchmark_of_one_accelerator_prints_its_tables():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", "--small", "--only", "ResNet"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    for row in ("| bare loop", "| our step", "| GlioFlow, disk, strong", "| DataLoader", "`predict_volume`"):
        assert row in done.stdout
    loaded = "import sys; sys.argv = ['gpu.py']; sys.path.insert(0, 'benchmarks'); import gpu; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"ray", "mlflow"} & set(names.stdout.split())


@pytest.mark.slow
def test_the_benchmark_of_augmentation_prints_its_table():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "augmentation.py", "--seconds", "0"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "| 16 x 3 x 128 x 128 | " in done.stdout

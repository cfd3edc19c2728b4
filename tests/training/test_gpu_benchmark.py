"""The GPU benchmark runs at small sizes on a CPU, so that it cannot rot."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_benchmark_of_one_accelerator_compares_and_says_what_each_part_gains(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    gpu = importlib.import_module("gpu")
    tiny = gpu.Task("tiny, batch 2", "buda-unet", None, (16, 16), 2, 3, (2, 16, 16), 2)
    monkeypatch.setattr(gpu, "SMALL", (tiny,))
    monkeypatch.setattr(shutil, "which", lambda name: None)  # no compiler, whose work takes half a minute
    rows = ["DataLoader", "our step", "host, light", "disk, strong"]
    words = [
        "--small",
        "--seconds",
        "0",
        "--workers",
        "0",
        "--compile",
        "--out",
        str(tmp_path / "gpu.md"),
        "--rows",
        *rows,
    ]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    gpu.main()
    found = (tmp_path / "gpu.md").read_text()
    assert found.splitlines()[-1] in capsys.readouterr().out
    for row in ("DataLoader, 0 workers, light", "bare loop", "GlioFlow, host, light", "GlioFlow, disk, strong"):
        assert re.search(rf"^\| {row}.* \| [\d,.]+ \| \d+ %", found, re.MULTILINE), row
    for part in ("CUDA graph", "bf16", "fp16"):
        assert re.search(rf"^\| {part} \| [\d,.]+ \| [\d,.]+ \| [\d.]+ times", found, re.MULTILINE), part
    assert "\nour step, compiled failed: training.compile needs a C++ compiler" in found


@pytest.mark.slow
def test_the_benchmark_of_one_accelerator_needs_neither_ray_nor_mlflow_and_prints_its_tables():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", "--small", "--compile"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout
    for row in ("| bare loop", "| our step", "| GlioFlow, disk, strong", "| DataLoader", "| `torch.compile`"):
        assert done.stdout.count(row) >= 2, row  # for slices and for patches
    assert "`predict_volume`" in done.stdout
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

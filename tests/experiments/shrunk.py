"""The repository's experiment files, made so small that a step of each takes a moment on a tiny cohort."""

from pathlib import Path
from typing import Any

from glioflow.config import Experiment, load_experiment

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments").rglob("*.yaml"))

_NARROW = [4, 8, 8, 8, 8]
_OPTIONS: dict[str, dict[str, Any]] = {
    "buda-unet": {"features": _NARROW},
    "fcn32": {"head_channels": 8, "head_kernel": 1},
    "resunet": {"features": _NARROW[:4]},
    "unet3d": {"features": _NARROW},
}


def title(path: Path) -> str:
    return str(path.relative_to(ROOT / "experiments"))


def shrunk(path: Path, **training: Any) -> Experiment:
    """Return the experiment with small slices, patches and networks, one step, and a split of four patients."""
    whole = load_experiment(path)
    sampling = whole.training.sampling.model_dump(mode="json")
    if whole.training.sampling.patch is not None:
        sampling["patch"] = [16, 16, 16]
    steps = [step.model_dump(mode="json") for step in whole.preprocess]
    for step in steps:
        step |= {"resize": {"size": 32}, "resample": {"spacing_mm": [4, 8, 8]}}.get(step["step"], {})
    settings = whole.model_dump(mode="json")
    settings |= {
        "preprocess": steps,
        "split": {"method": "counts", "counts": [2, 1, 1]},
        "inference": {**settings["inference"], "patch": sampling["patch"]},
    }
    settings["model"] |= {"weights": None, "options": _OPTIONS.get(whole.model.architecture, {})}
    settings["training"] |= {
        **{
            "epochs": 1,
            "steps_per_epoch": 1,
            "batch_size": 2,
            "cpus_per_worker": 1,
            "num_workers": 1,
            "gpus_per_worker": 0,
        },
        **{"precision": "fp32", "warmup_steps": 0, "sampling": sampling},
        **training,
    }
    return Experiment.model_validate(settings)

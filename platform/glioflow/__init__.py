"""GlioFlow: honest brain tumor segmentation by patient, on Ray and MLflow. Research software, not for clinical use.

The Python API:

    import glioflow as gf

    run = gf.train("experiments/lgg-best.yaml", "kaggle_3m")
    version = gf.register(run)
    model = gf.load(version)
    answer = model.predict("kaggle_3m/TCGA_CS_4941_19960909")
    answer.save("mask.nii.gz")

Each function does what the command of its name does (`glioflow train ...`), takes the same options as keyword
arguments, and returns a frozen record whose fields are the command's JSON keys. A mistake raises `UserError`, a run
that fails `RunFailed`. Importing the package loads nothing heavy: a function's libraries come with its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glioflow.errors import GlioflowError, RunFailed, UserError
from glioflow.version import __version__

if TYPE_CHECKING:
    from glioflow.api.answer import Answer
    from glioflow.api.auto import auto
    from glioflow.api.cohorts import check, describe, prepare, synthesize
    from glioflow.api.evaluation import compare, evaluate
    from glioflow.api.experiments import crossval, search, train
    from glioflow.api.model import Model, load
    from glioflow.api.planning import plan
    from glioflow.api.registry import promote, register, rollback
    from glioflow.config import Experiment

__all__ = [
    "Answer",
    "Experiment",
    "GlioflowError",
    "Model",
    "RunFailed",
    "UserError",
    "__version__",
    "auto",
    "check",
    "compare",
    "crossval",
    "describe",
    "evaluate",
    "load",
    "plan",
    "prepare",
    "promote",
    "register",
    "rollback",
    "search",
    "synthesize",
    "train",
]

_MODULES = {
    "glioflow.api.answer": ("Answer",),
    "glioflow.api.auto": ("auto",),
    "glioflow.api.cohorts": ("check", "describe", "prepare", "synthesize"),
    "glioflow.api.evaluation": ("compare", "evaluate"),
    "glioflow.api.experiments": ("crossval", "search", "train"),
    "glioflow.api.model": ("Model", "load"),
    "glioflow.api.planning": ("plan",),
    "glioflow.api.registry": ("promote", "register", "rollback"),
    "glioflow.config": ("Experiment",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'glioflow' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

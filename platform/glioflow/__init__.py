"""GlioFlow: brain tumor segmentation on Ray and MLflow, scored by patient. Research software, not for clinical use.

The Python API:

    import glioflow as gf

    run = gf.train("experiments/lgg-best.yaml", "kaggle_3m")
    version = gf.register(run)
    model = gf.load(version)
    answer = model.predict("kaggle_3m/TCGA_CS_4941_19960909")
    answer.save("mask.nii.gz")

Each function does what the command of its name does (`glioflow train ...`), takes the same options as keyword
arguments, and returns a frozen record whose fields are the command's JSON keys. A few have longer names than their
commands: `audit_experiment`, `collect_garbage` (`gc`), `fit_survival`, `list_models`, `list_searches`,
`measure_features`, `predict_studies`, `serve_page`, and those of feedback. A mistake raises `UserError`, a run
that fails `RunFailed`. Importing the package loads nothing heavy: a function's libraries come with its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glioflow.errors import GlioflowError, RunFailed, UserError, nearest_choice
from glioflow.version import __version__

if TYPE_CHECKING:
    from glioflow.api.analysis import associate, fit_survival, measure_features
    from glioflow.api.answer import Answer
    from glioflow.api.answer_folder import predict_studies
    from glioflow.api.audit import audit_experiment
    from glioflow.api.auto import auto
    from glioflow.api.cohorts import check, describe, download, prepare, synthesize
    from glioflow.api.evaluation import compare, evaluate
    from glioflow.api.experiments import crossval, search, train
    from glioflow.api.feedback import accept_feedback, list_feedback, reject_feedback
    from glioflow.api.model import Model, load
    from glioflow.api.planning import plan
    from glioflow.api.registry import export, list_models, promote, register, rollback
    from glioflow.api.retraining import retrain
    from glioflow.api.runs import collect_garbage, list_searches, reproduce
    from glioflow.api.serving import serve, serve_page
    from glioflow.config import Experiment

__all__ = [
    "Answer",
    "Experiment",
    "GlioflowError",
    "Model",
    "RunFailed",
    "UserError",
    "__version__",
    "accept_feedback",
    "associate",
    "audit_experiment",
    "auto",
    "check",
    "collect_garbage",
    "compare",
    "crossval",
    "describe",
    "download",
    "evaluate",
    "export",
    "fit_survival",
    "list_feedback",
    "list_models",
    "list_searches",
    "load",
    "measure_features",
    "plan",
    "predict_studies",
    "prepare",
    "promote",
    "register",
    "reject_feedback",
    "reproduce",
    "retrain",
    "rollback",
    "search",
    "serve",
    "serve_page",
    "synthesize",
    "train",
]

_MODULES = {
    "glioflow.api.analysis": ("associate", "fit_survival", "measure_features"),
    "glioflow.api.answer": ("Answer",),
    "glioflow.api.answer_folder": ("predict_studies",),
    "glioflow.api.audit": ("audit_experiment",),
    "glioflow.api.auto": ("auto",),
    "glioflow.api.cohorts": ("check", "describe", "download", "prepare", "synthesize"),
    "glioflow.api.evaluation": ("compare", "evaluate"),
    "glioflow.api.experiments": ("crossval", "search", "train"),
    "glioflow.api.feedback": ("accept_feedback", "list_feedback", "reject_feedback"),
    "glioflow.api.model": ("Model", "load"),
    "glioflow.api.planning": ("plan",),
    "glioflow.api.registry": ("export", "list_models", "promote", "register", "rollback"),
    "glioflow.api.retraining": ("retrain",),
    "glioflow.api.runs": ("collect_garbage", "list_searches", "reproduce"),
    "glioflow.api.serving": ("serve", "serve_page"),
    "glioflow.config": ("Experiment",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


# Commands whose functions have longer names.
_FUNCTION_OF = {
    **{"audit": "audit_experiment", "features": "measure_features", "gc": "collect_garbage", "models": "list_models"},
    **{"page": "serve_page", "predict": "predict_studies", "searches": "list_searches", "survival": "fit_survival"},
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        meant = _FUNCTION_OF.get(name) or nearest_choice(name, __all__)
        question = "" if meant is None or name.startswith("_") else f"; did you mean gf.{meant}?"
        raise AttributeError(f"module 'glioflow' has no attribute {name!r}{question}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    if callable(value) and not isinstance(value, type):
        value = import_module("glioflow.api.arguments").checked(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

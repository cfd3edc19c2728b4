"""A bundle as an MLflow model, for `mlflow.pyfunc.load_model` and `mlflow models serve`, without pickles.

Importing this module imports mlflow, so import it only where needed.
"""

import importlib.metadata
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
from numpy.typing import NDArray

from glioflow import bundle
from glioflow.bundle.prediction import NOT_FOR_CLINICAL_USE, Predictor
from glioflow.data.case import Case
from glioflow.errors import UserError
from glioflow.version import __version__

# Packages needed to load and answer; the rest of the lock file is for training and serving.
_REQUIREMENTS = tuple(
    "mlflow torch segmentation-models-pytorch timm monai einops safetensors numpy scipy scikit-image "
    "opencv-python-headless pydantic scikit-learn pandas".split()
)


class Study(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers for one study at a time."""

    def load_context(self, context: Any) -> None:
        """Load the bundle and check every file against its seal."""
        self.predictor = Predictor.load(Path(context.artifacts["bundle"]))

    # MLflow supports only the bare hint; with another, or none, loading a version prints a warning.
    def predict(
        self,
        context: Any,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Answer for one study.

        Args:
            context: MLflow's.
            model_input: (S, H, W, C), channels as the model's metadata names them, slices in order.
            params: `spacing_mm`, three numbers along S, H, W, or none; `clinical`, a JSON object of clinical values.

        Returns:
            `mask` (S, H, W) uint8 labels, `tumor`, `features`, `survival` and `notice`.
        """
        given = params or {}
        spacing = [float(value) for value in given.get("spacing_mm", ())]
        if len(spacing) not in (0, 3):
            raise UserError(
                "spacing_mm must be three numbers, or empty", spacing, hint="give millimeters along S, H, W"
            )
        clinical = json.loads(given.get("clinical") or "{}")
        if not isinstance(clinical, dict):
            raise UserError("clinical must be a JSON object", given["clinical"], hint='such as {"age_years": 45}')
        numbers = tuple(range(1, len(model_input) + 1))
        channels = self.predictor.description.channels
        spacing_mm = (spacing[0], spacing[1], spacing[2]) if spacing else None
        case = Case("study", "study", np.asarray(model_input), None, channels, numbers, spacing_mm)
        prediction = self.predictor.predict(case, clinical=clinical)
        return {
            "mask": prediction.segmentation.labels,
            "tumor": prediction.tumor,
            "features": prediction.features.model_dump(mode="json"),
            "survival": None if prediction.survival is None else prediction.survival.model_dump(mode="json"),
            "warnings": list(prediction.warnings),
            "notice": NOT_FOR_CLINICAL_USE,
        }


def write_model(folder: Path, out: Path, *, example: NDArray[np.generic] | None) -> None:
    """Write the bundle in `folder` as an MLflow model to `out`, which must not exist.

    Args:
        folder: The bundle.
        out: Target folder.
        example: (S, H, W, C), a study in the model's input format.
    """
    description = bundle.read_description(folder)
    kind = stored_type(description)
    tensor = TensorSpec(kind, (-1, -1, -1, len(description.channels)), name=None)
    params = ParamSchema([ParamSpec("spacing_mm", "double", [], (-1,)), ParamSpec("clinical", "string", "{}")])
    signature = ModelSignature(inputs=Schema([tensor]), params=params)
    with tempfile.TemporaryDirectory(prefix="glioflow-") as scratch, warnings.catch_warnings():
        named = shutil.copytree(folder, Path(scratch) / "bundle")  # MLflow keeps the folder's name
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            out,
            python_model=str(Path(__file__).with_name("model_code.py")),
            artifacts={"bundle": str(named)},
            signature=signature,
            input_example=None if example is None else example.astype(kind),
            pip_requirements=_requirements(),
            metadata={"channels": list(description.channels), "notice": NOT_FOR_CLINICAL_USE},
        )


def stored_type(description: bundle.Description) -> np.dtype[Any]:
    """Return the data type of images in a model's cohort: 8 bit for slices of LGG, else float."""
    return np.dtype(np.uint8 if description.origin.cohort_format == "lgg" else np.float32)


def _requirements() -> list[str]:
    pinned = [f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS]
    return [f"glioflow=={__version__}", *pinned]

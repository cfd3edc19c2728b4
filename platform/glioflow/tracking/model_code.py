"""What MLflow runs to load a registered version: models-from-code, copied into each of them."""

import mlflow

from glioflow.tracking.pyfunc import Study

mlflow.models.set_model(Study())

"""The code that MLflow runs to load a registered version (models from code); each version has a copy."""

import mlflow

from glioflow.tracking.pyfunc import Study

mlflow.models.set_model(Study())

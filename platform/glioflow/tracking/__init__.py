"""MLflow in and out: runs, artifacts, lineage, registry reads and writes. The only room that imports mlflow."""

from glioflow.tracking.store import BUNDLE, CHAMPION, Tracking, Version, flatten
from glioflow.tracking.writer import RunWriter

__all__ = ["BUNDLE", "CHAMPION", "RunWriter", "Tracking", "Version", "flatten"]

"""MLflow in and out: runs, artifacts, lineage, registry reads and writes. The only room that imports mlflow."""

from glioflow.tracking.runs import flatten
from glioflow.tracking.store import BUNDLE, CHALLENGER, CHAMPION, Tracking, Version
from glioflow.tracking.writer import RunWriter

__all__ = ["BUNDLE", "CHALLENGER", "CHAMPION", "RunWriter", "Tracking", "Version", "flatten"]

"""MLflow in and out: runs, artifacts, lineage, registry reads and writes. The only room that imports mlflow."""

from glioflow.tracking.runs import flatten
from glioflow.tracking.store import BUNDLE, CHALLENGER, CHAMPION, Tracking, Version
from glioflow.tracking.writer import PATIENCE_S, SPOOL, RunWriter

__all__ = ["BUNDLE", "CHALLENGER", "CHAMPION", "PATIENCE_S", "SPOOL", "RunWriter", "Tracking", "Version", "flatten"]

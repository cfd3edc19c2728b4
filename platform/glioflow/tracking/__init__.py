"""MLflow runs with their lineage, artifacts, and the registry. The only package that imports mlflow."""

from glioflow.tracking.entities import flatten
from glioflow.tracking.spool import SPOOL
from glioflow.tracking.store import BUNDLE, CHALLENGER, CHAMPION, Tracking, Version
from glioflow.tracking.writer import PATIENCE_S, RunWriter

__all__ = ["BUNDLE", "CHALLENGER", "CHAMPION", "PATIENCE_S", "SPOOL", "RunWriter", "Tracking", "Version", "flatten"]

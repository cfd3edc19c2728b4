"""Where things live: GLIOFLOW_HOME for state, GLIOFLOW_DATA for cohorts that experiments name."""

import os
from pathlib import Path

from glioflow.cluster.environment import in_ray_job
from glioflow.errors import UserError


def is_uri(source: str | Path) -> bool:
    """Return whether `source` names a place that fsspec reaches, e.g. `s3://bucket/cohort`."""
    return "://" in str(source)


def home() -> Path:
    """Return the state folder, `$GLIOFLOW_HOME` or `./.glioflow`, as an absolute path.

    Raises:
        UserError: Inside a Ray job without GLIOFLOW_HOME: its working folder is thrown away.
    """
    named = os.environ.get("GLIOFLOW_HOME")
    if not named and in_ray_job():
        raise UserError("inside a Ray job GLIOFLOW_HOME must name a folder that every node reaches", "no GLIOFLOW_HOME")
    return Path(named or ".glioflow").absolute()


def prepared_home() -> Path:
    """Return the folder of prepared cohorts, one per fingerprint."""
    return home() / "prepared"


def data_folder() -> Path | None:
    """Return `$GLIOFLOW_DATA`, or None."""
    named = os.environ.get("GLIOFLOW_DATA")
    return Path(named).absolute() if named else None


def tracking_uri() -> str:
    """Return `$MLFLOW_TRACKING_URI`, or SQLite under the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def data_source(given: str | Path | None, named: str | None) -> str | Path:
    """Find a cohort.

    Args:
        given: What the command line says (`--data`), which wins.
        named: The experiment's `data.source`.

    Returns:
        Its folder; a relative `named` is looked for here and under GLIOFLOW_DATA. A URI such as `s3://bucket/cohort`
        as it is.

    Raises:
        UserError: If neither says anything, or it is not there; says where it was looked for.
    """
    wanted = named if given is None else given
    if wanted and is_uri(wanted):
        return str(wanted)
    if given is not None:
        path = Path(given).absolute()
        if not path.exists():
            raise UserError("--data must exist", path)
        return path
    if not named:
        raise UserError("give the cohort with --data DIR or in the experiment as data.source")
    folder = data_folder()
    places = [Path(named).absolute(), *([folder / named] if folder else [])]
    for path in places:
        if path.exists():
            return path
    looked = " or ".join(str(path) for path in places)
    hint = "" if folder else " (GLIOFLOW_DATA is not set)"
    raise UserError(f"data.source {named!r} must exist{hint}", f"nothing at {looked}")

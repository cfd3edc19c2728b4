"""Where state and cohorts are kept: GLIOFLOW_HOME, and GLIOFLOW_DATA for cohorts that experiments name."""

import os
import re
from pathlib import Path

from glioflow import atomic
from glioflow.cluster.environment import in_ray_job
from glioflow.errors import UserError

_UNFIT = re.compile(r"%[0-9A-Fa-f]{2}|\?")


def is_uri(source: str | Path) -> bool:
    """Return whether `source` is a URI that fsspec opens, e.g. `s3://bucket/cohort`."""
    return "://" in str(source)


def home() -> Path:
    """Return the state folder, `$GLIOFLOW_HOME` or `./.glioflow`, as an absolute path.

    Raises:
        UserError: Inside a Ray job without GLIOFLOW_HOME: its working folder is thrown away. Or if GLIOFLOW_HOME is a
            URI, or a path that SQLite's addresses cannot hold.
    """
    named = os.environ.get("GLIOFLOW_HOME")
    if not named and in_ray_job():
        rule = "inside a Ray job GLIOFLOW_HOME must name a folder that every node reaches, and it is not set"
        raise UserError(rule, hint="set it in the job's runtime environment")
    if named and is_uri(named):
        raise UserError(
            "GLIOFLOW_HOME must name a folder, not a URI", named, hint="give a path, such as /shared/glioflow"
        )
    path = Path(named or ".glioflow").absolute()
    if unfit := _UNFIT.search(str(path)):
        rule = f"GLIOFLOW_HOME must have no {unfit[0]!r} in its path, which addresses of SQLite read as something else"
        raise UserError(rule, path, hint="rename the folder")
    return path


def check_home() -> None:
    """Refuse a state folder that cannot be used; raises `UserError` as `home`, or if nothing can be written there."""
    atomic.check_folder(home(), "GLIOFLOW_HOME")


def prepared_home() -> Path:
    """Return the folder of prepared cohorts, one per fingerprint."""
    return home() / "prepared"


def recorded_cohort(path: Path) -> Path:
    """Return where a cohort lies that a run recorded at `path`: there, or in this home, where that was moved since."""
    return path if path.exists() or not (prepared_home() / path.name).is_dir() else prepared_home() / path.name


def data_folder() -> Path | None:
    """Return `$GLIOFLOW_DATA`, or None."""
    named = os.environ.get("GLIOFLOW_DATA")
    return Path(named).absolute() if named else None


def embedded_uri() -> str:
    """Return the address of the home's own MLflow store, on SQLite."""
    return f"sqlite:///{home() / 'mlflow.db'}"


def tracking_uri() -> str:
    """Return `$MLFLOW_TRACKING_URI`, or the home's own store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or embedded_uri()


def data_source(given: str | Path | None, named: str | None) -> str | Path:
    """Find a cohort.

    Args:
        given: `--data` of the command line, which wins.
        named: The experiment's `data.source`.

    Returns:
        Its folder; a relative `named` is looked for here and under GLIOFLOW_DATA. A URI such as `s3://bucket/cohort`
        as it is.

    Raises:
        UserError: If neither names a cohort, or it does not exist; names the folders that were looked at.
    """
    if given is not None and not str(given):
        raise UserError("--data must name a cohort", "", hint="give its folder, or leave --data out")
    wanted = named if given is None else given
    if wanted and is_uri(wanted):
        return str(wanted)
    if given is not None:
        path = Path(given).absolute()
        if not path.exists():
            raise UserError(f"{path} does not exist", path, hint="give --data the folder of a cohort, or a URI")
        return path
    if not named:
        raise UserError("no cohort is named", hint="give it with --data DIR, or as data.source in the experiment")
    folder = data_folder()
    candidates = [Path(named).absolute(), *([folder / named] if folder else [])]
    for path in candidates:
        if path.exists():
            return path
    looked_at = " or ".join(str(path) for path in candidates)
    hint = "give the cohort with --data" + ("" if folder else ", or set GLIOFLOW_DATA to the folder that holds it")
    raise UserError(f"data.source {named!r} does not exist: there is no {looked_at}", named, hint=hint)

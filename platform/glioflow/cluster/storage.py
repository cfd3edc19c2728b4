"""Where state and cohorts are kept: GLIOFLOW_HOME, and GLIOFLOW_DATA for cohorts that experiments name."""

import hashlib
import os
import re
from pathlib import Path

from glioflow.cluster.environment import in_ray_job
from glioflow.cluster.logins import has_password, without_password
from glioflow.errors import UserError, option

_UNFIT = re.compile(r"%[0-9A-Fa-f]{2}|\?")


def is_uri(source: str | Path) -> bool:
    """Return whether `source` is a URI that fsspec opens, e.g. `s3://bucket/cohort`."""
    return "://" in str(source)


def home_uri() -> str | None:
    """Return `$GLIOFLOW_HOME` if it is an object store; None if the home is a folder.

    Raises:
        UserError: If it is the URI of a folder, names no bucket, contains a password, or begins with a tilde.
    """
    named = os.environ.get("GLIOFLOW_HOME", "")
    if named.startswith("file:"):
        rule = "GLIOFLOW_HOME must be a path or the address of an object store, not a file: URI"
        raise UserError(rule, named, hint="give a path, such as /shared/glioflow")
    if named.startswith("~"):  # quoted, so the shell did not expand it
        rule = "GLIOFLOW_HOME must not begin with '~', which nothing expands here"
        raise UserError(rule, named, hint="give the whole path")
    if re.match("[A-Za-z0-9+]+:/", named) is None:
        return None
    if has_password(named):
        rule = "GLIOFLOW_HOME must not contain a password, since it stands in logs"
        hint = "set the store's own variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise UserError(rule, without_password(named), hint=hint)
    if re.fullmatch("[a-z][a-z0-9+]*://[^/?#]+(/[^?#]*)?", named) is None:
        rule = "GLIOFLOW_HOME must name a bucket if it is an object store"
        raise UserError(rule, named, hint="give an address such as s3://bucket/glioflow")
    return named.rstrip("/")


def home() -> Path:
    """Return the state folder, `$GLIOFLOW_HOME` or `./.glioflow`, as an absolute path.

    For a home in an object store, it is this node's own folder in `cache_folder()`: see `remote_home`.

    Raises:
        UserError: As `home_uri`; inside a Ray job without GLIOFLOW_HOME, whose working folder is deleted; or if the
            path does not fit into an SQLite address.
    """
    named = os.environ.get("GLIOFLOW_HOME")
    if not named and in_ray_job():
        rule = "inside a Ray job GLIOFLOW_HOME must name a folder that every node reaches, and it is not set"
        raise UserError(rule, hint="set it in the job's runtime environment")
    if (uri := home_uri()) is not None:
        path, name = cache_folder() / hashlib.blake2b(uri.encode(), digest_size=8).hexdigest(), "GLIOFLOW_CACHE"
    else:
        path, name = Path(named or ".glioflow").absolute(), "GLIOFLOW_HOME"
    if unfit := _UNFIT.search(str(path)):
        rule = f"the path of {name} must not contain {unfit[0]!r}, which has another meaning in SQLite addresses"
        raise UserError(rule, path, hint="rename the folder")
    return path


def cache_folder() -> Path:
    """Return `$GLIOFLOW_CACHE` or `~/.cache/glioflow`, where a node keeps copies of files in an object store."""
    named = os.environ.get("GLIOFLOW_CACHE")
    return Path(named).absolute() if named else Path.home() / ".cache" / "glioflow"


def prepared_home() -> Path:
    """Return the folder of prepared cohorts, one per fingerprint."""
    return home() / "prepared"


def data_folder() -> Path | None:
    """Return `$GLIOFLOW_DATA`, or None."""
    named = os.environ.get("GLIOFLOW_DATA")
    return Path(named).absolute() if named else None


def embedded_uri() -> str:
    """Return the address of the home's own MLflow store, on SQLite."""
    return f"sqlite:///{home() / 'mlflow.db'}"


def tracking_uri() -> str:
    """Return `$MLFLOW_TRACKING_URI`, or the home's own store.

    Raises:
        UserError: If the home is an object store, which cannot hold a database, and the variable names no server.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    if home_uri() is not None and not named.startswith(("http://", "https://")):
        rule = "MLFLOW_TRACKING_URI must name a server (http://...) where GLIOFLOW_HOME is an object store"
        raise UserError(rule, without_password(named) or "nothing", hint="start one with mlflow/start.sh")
    return named or embedded_uri()


def data_source(given: str | Path | None, named: str | None) -> str | Path:
    """Find a cohort.

    Args:
        given: `--data` of the command line, which takes precedence.
        named: The experiment's `data.source`.

    Returns:
        Its folder; a relative `named` is searched here and under GLIOFLOW_DATA. A URI such as `s3://bucket/cohort`
        is returned unchanged.

    Raises:
        UserError: If neither names a cohort, or it does not exist; lists the folders that were searched.
    """
    if given is not None and not str(given):
        raise UserError(
            f"{option('data')} must name a cohort", "", hint=f"give its folder, or leave {option('data')} out"
        )
    wanted = named if given is None else given
    if wanted and is_uri(wanted):
        return str(wanted)
    if given is not None:
        path = Path(given).absolute()
        if not path.exists():
            raise UserError(
                f"{path} does not exist", path, hint=f"give {option('data')} the folder of a cohort, or a URI"
            )
        return path
    if not named:
        raise UserError(
            "no cohort was given", hint=f"give one with {option('data', 'DIR')}, or as data.source in the experiment"
        )
    folder = data_folder()
    candidates = [Path(named).absolute(), *([folder / named] if folder else [])]
    for path in candidates:
        if path.exists():
            return path
    looked_at = " or ".join(str(path) for path in candidates)
    hint = f"give the cohort with {option('data')}" + (
        "" if folder else ", or set GLIOFLOW_DATA to the folder that holds it"
    )
    raise UserError(f"data.source {named!r} does not exist: there is no {looked_at}", named, hint=hint)

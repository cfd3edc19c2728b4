"""Addresses of tracking stores: their kinds, and whether a store answers.

MLflow's own store retries an unreachable database for two minutes, with a traceback for each attempt.
"""

import contextlib
import json
import os
import socket
import sqlite3
import ssl
import time
from pathlib import Path
from textwrap import shorten

from glioflow.atomic import check_folder
from glioflow.cluster.logins import without_password
from glioflow.errors import UserError, causes_of

_DATABASES = ("postgresql", "mysql", "mssql")
_CONNECT_S = 3.0
# What keeps a driver from waiting for minutes for one that takes the connection and says nothing.
_TIMEOUTS = {
    "psycopg": {"connect_timeout": 3},
    "psycopg2": {"connect_timeout": 3},
    "mysqldb": {"connect_timeout": 3, "read_timeout": 3},
    "pymysql": {"connect_timeout": 3, "read_timeout": 3},
    "pymssql": {"login_timeout": 3},
    "pyodbc": {"timeout": 3},
}
_ANSWER_S = 5
_LOCKED = "another process has locked it"
_SERVER_ERROR = 500
_BUSY = 429
_NO_LOGIN = (401, 403, 407)
_SEARCH = "/api/2.0/mlflow/experiments/search"
# How long to wait for a server that may be starting at the same time.
STARTING_S = 20.0


def check_address(uri: str, *, patience_s: float) -> None:
    """Refuse an address that cannot be a store's, or at which none answers.

    Args:
        uri: URI of a server or a database.
        patience_s: How long to wait; 0 asks once.

    Raises:
        UserError: Omits the password in `uri`.
    """
    kind = _kind(uri)
    if kind is None:
        raise _unusable(uri, "no MLflow server or database; folders of files and Databricks are not supported")
    trouble = _trouble(uri, patience_s=patience_s)
    if trouble is not None:
        raise _unusable(uri, trouble)


def answers(uri: str, *, patience_s: float) -> bool:
    """Return whether a store answers at `uri` within `patience_s`, if only to refuse the login."""
    try:
        return _trouble(uri, patience_s=patience_s) is None
    except UserError:
        return True


def _unusable(uri: str, trouble: str) -> UserError:
    hint = (
        "start that store, or give the address of an MLflow server (http://HOST:5000) or of a database "
        "(postgresql://..., sqlite:///FILE), or unset it to use the home's own store"
    )
    hint = "end the process that holds it, or wait for it" if trouble == _LOCKED else hint
    return UserError(
        "MLFLOW_TRACKING_URI must name a reachable store", f"{without_password(uri)!r}: {trouble}", hint=hint
    )


def _kind(uri: str) -> str | None:
    scheme = uri.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return "http"
    dialect = scheme.partition("+")[0]
    return dialect if "://" in uri and dialect in ("sqlite", *_DATABASES) else None


def _trouble(uri: str, *, patience_s: float) -> str | None:
    ask = {"http": _ask_server, "sqlite": _ask_sqlite}.get(_kind(uri) or "", _ask_database)
    deadline = time.monotonic() + patience_s
    while (trouble := ask(uri)) is not None and time.monotonic() < deadline:
        time.sleep(1)
    return trouble


def _ask_server(uri: str) -> str | None:
    """Send a server a query that needs its database, with MLflow's client, certificates and passwords.

    Returns:
        Why it is away; None if it answered.

    Raises:
        UserError: If it answered as no MLflow server does, or refuses the login.
    """
    from mlflow.exceptions import MlflowException

    from glioflow.tracking.mlflow_internals import ask_server

    try:
        status, text = ask_server(uri, _SEARCH, params={"max_results": 1}, timeout_s=_ANSWER_S)
    except (MlflowException, OSError) as error:
        if any(isinstance(each, ssl.SSLCertVerificationError) for each in causes_of(error)):
            return "its certificate is not trusted; name its authority's file in MLFLOW_TRACKING_SERVER_CERT_PATH"
        return "nobody answers there"
    if status >= _SERVER_ERROR:
        return f"it answers with {status}; its database may be away"
    if status == _BUSY:
        return f"it answers with {status}, since it gets too many requests"
    said = "a web page" if text.lstrip().startswith("<") else shorten(text, 100, placeholder=" ...") or "no text"
    shown = f"{without_password(uri)!r}, which answers with {status} and {said}"
    if status in _NO_LOGIN:
        hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        raise UserError("MLFLOW_TRACKING_URI must name a store that accepts the login", shown, hint=hint)
    if not _is_object(text):
        hint = "give the address at which the browser shows MLflow's page, such as http://HOST:5000"
        raise UserError("MLFLOW_TRACKING_URI must name an MLflow server", shown, hint=hint)
    return None


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def check_writable(uri: str) -> None:
    """Refuse an SQLite file to which nothing can be written, since a run must be recorded.

    Raises:
        UserError: That names the file.
    """
    path = Path(uri.partition(":///")[2].partition("?")[0])
    if _kind(uri) == "sqlite" and path.exists() and not os.access(path, os.W_OK):
        hint = "make it writable, or let MLFLOW_TRACKING_URI name another store"
        raise UserError("the tracking store must be writable for a new run or version", path, hint=hint)


def _ask_sqlite(uri: str) -> str | None:
    if ":memory:" in uri or "mode=memory" in uri:
        return "a database in memory is seen by no other process"
    if uri.partition(":")[0].lower() not in ("sqlite", "sqlite+pysqlite"):
        return "MLflow reaches SQLite by Python's own driver alone; leave out what is behind the '+'"
    path = Path(uri.partition(":///")[2].partition("?")[0])
    if path.parts[:1] and path.parts[0].startswith("file:"):
        return "give the path of its file, not SQLite's own URI of it"
    try:
        path.stat()
    except FileNotFoundError:  # is made, where a link leads if it is one
        check_folder(Path(os.path.realpath(path)).parent, "MLFLOW_TRACKING_URI")
        return None
    except OSError as error:
        return str(error.strerror)
    try:
        # Who only writes holds a lock for moments.
        with contextlib.closing(sqlite3.connect(path, timeout=_ANSWER_S)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        return _LOCKED if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY else str(error)
    return None


def _ask_database(uri: str) -> str | None:
    from sqlalchemy import create_engine, exc, make_url

    try:
        url = make_url(uri)
        engine = create_engine(url, connect_args=_TIMEOUTS.get(url.get_driver_name(), {}))
        if url.host:
            port = url.port or {"postgresql": 5432, "mysql": 3306, "mssql": 1433}[url.get_backend_name()]
            socket.create_connection((url.host, port), timeout=_CONNECT_S).close()
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except ImportError as error:
        return f"its driver is not installed ({error})"
    except (exc.ArgumentError, exc.NoSuchModuleError, ValueError, KeyError):
        return "it is not the address of a database"
    except OSError:
        return "nobody answers there"
    except exc.SQLAlchemyError as error:
        return without_password(" ".join(str(getattr(error, "orig", None) or error).split()))[:200]
    return None

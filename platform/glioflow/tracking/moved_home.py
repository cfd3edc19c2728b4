"""The home's own store after the home was moved, renamed, copied or remounted; MLflow stores absolute paths."""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import unquote

from glioflow.cluster.storage import home
from glioflow.progress import print_progress

# Columns with addresses of artifacts in MLflow's database, by table.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


def mend_addresses() -> None:
    """Update artifact addresses in the home's own store to the home's current path, and return the old one."""
    database = home() / "mlflow.db"
    if not database.is_file():
        return
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        try:
            experiments = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
        except sqlite3.DatabaseError:  # missing or damaged: MLflow reports which
            return
        for before in sorted(_former_homes(experiments)):
            below = "/artifacts/"
            for table, column in _ADDRESSES:
                with contextlib.suppress(sqlite3.OperationalError):  # MLflow before 3 has fewer tables
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (home().as_uri(), len(before) + 1, len(below) + len(before), f"{before}{below}"),
                    )
            print_progress(f"the home was at {_path_of(before)} and is at {home()}: its artifacts are found here now")


def _former_homes(experiments: list[tuple[str, str | None]]) -> set[str]:
    """Return the addresses of homes whose artifacts are now in this one."""
    here, moved_from = home().as_uri(), set()
    for name, location in experiments:
        below = Path("/artifacts", name).as_uri().removeprefix("file://")
        before = (location or "").removesuffix(below)
        if before in (location, here) or not before.startswith("file://"):
            continue
        if (home() / "artifacts" / name).is_dir() and not _is_here(before):
            moved_from.add(before)
    return moved_from


def _is_here(address: str) -> bool:
    """Return whether an address is another path to this home, such as a link, where its artifacts are still found."""
    try:
        return _path_of(address).samefile(home())
    except OSError:
        return False


def _path_of(address: str) -> Path:
    return Path(unquote(address.removeprefix("file://")))

"""Prepared cohorts at a URI (s3:// or another store that fsspec knows), copied to every node that uses them."""

import fcntl
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from glioflow import atomic
from glioflow.cluster.remote_home import address_of
from glioflow.cluster.storage import home, home_uri, is_uri, prepared_home
from glioflow.data.formats.record import reason
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.prepared.manifest import CaseRecord, WholeManifest, parse_manifest
from glioflow.errors import StoreFailed, UserError

_HEAD = 4096
_CHECK = "check the address, and the credentials of its store (for S3, AWS_ACCESS_KEY_ID and so on)"


def local_folder(source: str | Path, cache: Path) -> Path:
    """Return a cohort's folder on this node: for a URI, its copy in `cache`, made on first use, else `source`.

    Raises:
        UserError: As `fetch`.
    """
    return fetch(str(source), cache).path if is_uri(source) else Path(source)


def keep_at_home(cohort: PreparedCohort) -> PreparedCohort:
    """Open a prepared cohort that every node can access; if the home is an object store, use this node's copy."""
    if home_uri() is None:
        return cohort
    address = address_of(prepared_home() / cohort.manifest.fingerprint)
    push(cohort, address)
    return fetch(address, prepared_home())


def open_here(path: Path) -> PreparedCohort:
    """Open a prepared cohort in the home that another node has checked; from an object store, this node's copy.

    Raises:
        UserError: As `fetch`, if it is missing or incomplete.
        StoreFailed: If this node does not see the folder, or the store is unreachable, which is not an error of the job
            that needs the cohort.
    """
    _bring(path)
    if home_uri() is None and not (path / "manifest.json").exists():
        raise StoreFailed(
            f"node {socket.gethostname()} does not see the prepared cohort {path}, which the driver has opened; "
            f"mount one folder as GLIOFLOW_HOME (here {home()}) at the same path on every node, also on nodes that an "
            "autoscaler adds, or give an object store such as s3://bucket/glioflow"
        )
    return PreparedCohort(path, verify=False)


def recorded_cohort(path: Path) -> Path:
    """Return the location of a cohort that a run recorded at `path`: there, or in this home if it was moved."""
    here = prepared_home() / path.name
    if not path.exists():
        with suppress(UserError, OSError):  # the caller reports that it is missing
            _bring(here)
    return here if here.is_dir() and not path.exists() else path


def _bring(path: Path) -> None:
    """Copy a prepared cohort from a home in an object store to this node, once for all its processes."""
    if home_uri() is None or (path / "manifest.json").is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the trials of a node start together
        try:
            fetch(address_of(prepared_home() / path.name), path.parent)
        except UserError as error:
            if error.__cause__ is None:  # it is missing or invalid
                raise
            raise StoreFailed(str(error)) from error


def check_store(uri: str) -> None:
    """Refuse a URI whose store fsspec does not support; raises `UserError`."""
    _open(uri)


def push(cohort: PreparedCohort, uri: str) -> None:
    """Copy a prepared cohort to a URI, the manifest last, so that a cohort with a manifest is complete.

    Args:
        cohort: Cohort on this machine.
        uri: Folder to write; an existing cohort with the same fingerprint is kept.

    Raises:
        UserError: If the URI cannot be written, or holds another prepared cohort.
    """
    files, root = _open(uri)
    try:
        if files.exists(f"{root}/manifest.json"):
            if _read_manifest(uri).fingerprint != cohort.manifest.fingerprint:
                rule = f"{uri} holds a prepared cohort of other sources or settings"
                raise UserError(rule, uri, hint="choose another URI")
            return
        names = [*_names(cohort.records), *(["clinical.csv"] if cohort.clinical else []), "manifest.json"]
        for folder in sorted({record.folder for record in cohort.records}):
            files.makedirs(f"{root}/{folder}", exist_ok=True)
        for batch in (names[:-1], names[-1:]):
            files.put([str(cohort.path / name) for name in batch], [f"{root}/{name}" for name in batch])
    except UserError:
        raise
    except Exception as error:  # each store fails in its own way
        raise UserError(f"{uri} could not be written", reason(error)) from error


def fetch(uri: str, cache: Path) -> PreparedCohort:
    """Open a prepared cohort at a URI through a verified copy in `cache`, made once on each node.

    Args:
        uri: Location written by `push`.
        cache: Folder on this node; the copy is named by the fingerprint, so that `find_or_prepare` finds it too.

    Raises:
        UserError: If there is none, or it cannot be read completely.
    """
    known = _fingerprint(uri)
    if known is not None and (cache / known / "manifest.json").is_file():
        return PreparedCohort(cache / known)
    manifest = _read_manifest(uri)
    local = cache / manifest.fingerprint
    if not (local / "manifest.json").is_file():
        files, root = _open(uri)
        names = [*_names(manifest.cases), "manifest.json"]
        try:
            if files.exists(f"{root}/clinical.csv"):
                names.append("clinical.csv")
            with atomic.new_folder(local) as working:
                for folder in {(working / name).parent for name in names}:
                    folder.mkdir(parents=True, exist_ok=True)
                files.get([f"{root}/{name}" for name in names], [str(working / name) for name in names])
                for prints in working.glob("cases/*/prints.npz"):
                    prints.touch()  # valid as long as it is not older than the image
                PreparedCohort(working)
        except UserError as error:
            name = error.value if error.file is None else error.file.name  # the local copy is deleted
            raise error.replace(rule=f"{uri}: {error.rule}", value=name, file=None) from None
        except Exception as error:
            raise UserError(f"{uri} could not be read as a prepared cohort", reason(error), hint=_CHECK) from error
        return PreparedCohort(local, verify=False)  # as it was verified before it got this name
    return PreparedCohort(local)


def _names(records: Iterable[CaseRecord]) -> list[str]:
    return [f"{record.folder}/{name}" for record in records for name in record.sizes]


def _open(uri: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, root = fsspec.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        hint = "give a path, or an address such as s3://bucket/folder"
        raise UserError(f"the store of {uri} cannot be opened: {reason(error)}", hint=hint) from None
    files.invalidate_cache()
    return files, str(root).rstrip("/")


def _fingerprint(uri: str) -> str | None:
    """Read the fingerprint at the head of a manifest, which may be very large; None if it is not there."""
    files, root = _open(uri)
    try:
        head = files.cat_file(f"{root}/manifest.json", start=0, end=_HEAD)
    except Exception:  # reading the whole manifest reports the error
        return None
    match = re.search(rb'"fingerprint":\s*"([0-9a-f]{32})"', head)
    return None if match is None else match[1].decode()


def _read_manifest(uri: str) -> WholeManifest:
    files, root = _open(uri)
    try:
        return parse_manifest(files.cat_file(f"{root}/manifest.json"), uri)
    except UserError:
        raise
    except FileNotFoundError:
        hint = "write one with `glioflow data prepare SOURCE URI`"
        raise UserError(f"no prepared cohort at {uri}", uri, hint=hint) from None
    except Exception as error:
        raise UserError(f"{uri} could not be read as a prepared cohort", reason(error), hint=_CHECK) from error

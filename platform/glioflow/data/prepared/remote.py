"""Prepared cohorts at a URI (s3:// or another store that fsspec knows), copied to every node that uses them."""

import fcntl
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from glioflow import atomic
from glioflow.cluster.remote_home import address_of
from glioflow.cluster.storage import home_uri, is_uri, prepared_home
from glioflow.data.formats.record import reason
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.prepared.manifest import CaseRecord, WholeManifest, parse_manifest
from glioflow.errors import StoreFailed, UserError

_HEAD = 4096
_CHECK = "check the address, and the credentials of its store (for S3, AWS_ACCESS_KEY_ID and so on)"


def local_folder(source: str | Path, cache: Path) -> Path:
    """Return a cohort's folder on this node: of a URI its copy in `cache`, made on first use, else `source` itself.

    Raises:
        UserError: As `fetch`.
    """
    return fetch(str(source), cache).path if is_uri(source) else Path(source)


def keep_at_home(cohort: PreparedCohort) -> PreparedCohort:
    """Return a prepared cohort from where every node has it: this one's copy, where the home is an object store."""
    if home_uri() is None:
        return cohort
    address = address_of(prepared_home() / cohort.manifest.fingerprint)
    push(cohort, address)
    return fetch(address, prepared_home())


def open_here(path: Path) -> PreparedCohort:
    """Open a prepared cohort of the home that another node has checked; of an object store, this node's copy.

    Raises:
        UserError: As `fetch`, if it is not there or not whole.
        StoreFailed: If the store is away: no fault of the work that needs the cohort.
    """
    _bring(path)
    return PreparedCohort(path, verify=False)


def recorded_cohort(path: Path) -> Path:
    """Return where a cohort lies that a run recorded at `path`: there, or in this home, where that was moved since."""
    here = prepared_home() / path.name
    if not path.exists():
        with suppress(UserError, OSError):  # whoever wants it says that it is gone
            _bring(here)
    return here if here.is_dir() and not path.exists() else path


def _bring(path: Path) -> None:
    """Copy a prepared cohort of a home at an object store to this node, once for all its processes."""
    if home_uri() is None or (path / "manifest.json").is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the trials of a node begin together
        try:
            fetch(address_of(prepared_home() / path.name), path.parent)
        except UserError as error:
            if error.__cause__ is None:  # it is not there, or not as it should be
                raise
            raise StoreFailed(str(error)) from error


def check_store(uri: str) -> None:
    """Refuse a URI of no store that fsspec knows; raises `UserError`."""
    _open(uri)


def push(cohort: PreparedCohort, uri: str) -> None:
    """Copy a prepared cohort to a URI, the manifest last, so that a cohort with a manifest is complete.

    Args:
        cohort: On this machine.
        uri: Folder to write; a cohort with the same fingerprint stays as it is.

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
        uri: Where `push` has put it.
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
                    prints.touch()  # in force as long as it is no older than the image
                PreparedCohort(working)
        except UserError as error:
            name = error.value if error.file is None else error.file.name  # the local copy is gone
            raise error.replace(rule=f"{uri}: {error.rule}", value=name, file=None) from None
        except Exception as error:
            raise UserError(f"{uri} could not be read", reason(error), hint=_CHECK) from error
    return PreparedCohort(local)


def _names(records: Iterable[CaseRecord]) -> list[str]:
    return [f"{record.folder}/{name}" for record in records for name in record.sizes]


def _open(uri: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, root = fsspec.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UserError(f"fsspec does not know the store of {uri}", reason(error)) from None
    files.invalidate_cache()
    return files, str(root).rstrip("/")


def _fingerprint(uri: str) -> str | None:
    """Read the fingerprint at the head of a manifest, which may be of very many cases; None where it is not there."""
    files, root = _open(uri)
    try:
        head = files.cat_file(f"{root}/manifest.json", start=0, end=_HEAD)
    except Exception:  # whoever reads the whole says what is wrong
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
        raise UserError(f"{uri} could not be read", reason(error), hint=_CHECK) from error

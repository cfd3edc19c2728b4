"""Prepared cohorts behind a URI (s3:// and whatever else fsspec knows), with a copy on each node that uses them."""

from pathlib import Path
from typing import Any

from glioflow import atomic
from glioflow.cluster.storage import is_uri
from glioflow.data.formats.record import reason
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.prepared.manifest import Manifest, parse_manifest
from glioflow.errors import UserError


def local_folder(source: str | Path, cache: Path) -> Path:
    """Return where a cohort lies on this node: a URI's copy under `cache`, made on first use, any other as it is.

    Raises:
        UserError: As `fetch`.
    """
    return fetch(str(source), cache).path if is_uri(source) else Path(source)


def push(cohort: PreparedCohort, uri: str) -> None:
    """Copy a prepared cohort to a URI; its manifest goes last, so that what counts as prepared is complete.

    Args:
        cohort: On this machine.
        uri: Folder to write; what lies there under the same fingerprint is left as it is.

    Raises:
        UserError: If the place cannot be written, or holds another prepared cohort.
    """
    files, root = _open(uri)
    try:
        if files.exists(f"{root}/manifest.json"):
            if _read_manifest(uri).fingerprint != cohort.manifest.fingerprint:
                raise UserError("this place holds a prepared cohort of other sources or settings; choose another", uri)
            return
        names = [*_names(cohort.manifest), *(["clinical.csv"] if cohort.clinical else []), "manifest.json"]
        for folder in sorted({record.folder for record in cohort.manifest.cases}):
            files.makedirs(f"{root}/{folder}", exist_ok=True)
        for batch in (names[:-1], names[-1:]):
            files.put([str(cohort.path / name) for name in batch], [f"{root}/{name}" for name in batch])
    except UserError:
        raise
    except Exception as error:  # each store fails in its own way
        raise UserError("a prepared cohort's place can be written", f"{uri} ({reason(error)})") from error


def fetch(uri: str, cache: Path) -> PreparedCohort:
    """Open a prepared cohort at a URI through a copy under `cache`, made once per node and verified.

    Args:
        uri: Where `push` put it.
        cache: Folder on this node; the copy lies in it under its fingerprint, where `find_or_prepare` looks too.

    Raises:
        UserError: If there is none, or it cannot be read whole.
    """
    manifest = _read_manifest(uri)
    local = cache / manifest.fingerprint
    if not (local / "manifest.json").is_file():
        files, root = _open(uri)
        names = [*_names(manifest), "manifest.json"]
        try:
            if files.exists(f"{root}/clinical.csv"):
                names.append("clinical.csv")
            with atomic.new_folder(local) as working:
                for folder in {(working / name).parent for name in names}:
                    folder.mkdir(parents=True, exist_ok=True)
                files.get([f"{root}/{name}" for name in names], [str(working / name) for name in names])
                PreparedCohort(working)
        except UserError as error:
            raise error.replace(value=f"{uri}: {error.value}") from None
        except Exception as error:
            raise UserError("a prepared cohort at a URI can be read whole", f"{uri} ({reason(error)})") from error
    return PreparedCohort(local)


def _names(manifest: Manifest) -> list[str]:
    return [f"{record.folder}/{name}" for record in manifest.cases for name in record.sizes]


def _open(uri: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, root = fsspec.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UserError("a URI names a store that fsspec knows", f"{uri} ({reason(error)})") from None
    files.invalidate_cache()
    return files, str(root).rstrip("/")


def _read_manifest(uri: str) -> Manifest:
    files, root = _open(uri)
    try:
        return parse_manifest(files.cat_file(f"{root}/manifest.json"), uri)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError("a URI names a prepared cohort (`data prepare SOURCE URI` writes one)", uri) from None
    except Exception as error:
        raise UserError("a prepared cohort at a URI can be read", f"{uri} ({reason(error)})") from error

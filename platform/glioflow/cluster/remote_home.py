"""A home in an object store: each node works in its own folder, and shared files are copied to the store.

Every function takes paths in `home()`. If the home is a folder that all nodes reach, nothing is copied.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from glioflow import atomic
from glioflow.cluster.environment import silence
from glioflow.cluster.storage import home, home_uri, tracking_uri
from glioflow.errors import GlioflowError, StoreFailed, UserError, first_line

# Names of the home's folders; every command that starts a run writes to those of runs.
_FOLDERS = ("prepared", "artifacts", "runs", "train", "searches", "stores", "secrets", "making", "starts", "auto")
_OF_RUNS = ("runs", "train")
# A folder with one of these files is complete: they are copied last.
_LAST = ("manifest.json", "model.json")
_TEMPORARY = "."


def check_home(*, for_runs: bool = True) -> None:
    """Refuse a home that cannot be used.

    Args:
        for_runs: Whether a run starts, which writes to the folders of runs. Other commands only read them.

    Raises:
        UserError: As `home`; if it is not writable, one of its folders is not a folder, or fsspec cannot
            open it; or if the home is an object store and MLflow no server.
    """
    uri = home_uri()
    name = "GLIOFLOW_HOME" if uri is None else "GLIOFLOW_CACHE"
    atomic.check_folder(home(), name)
    for each in _FOLDERS:
        folder = home() / each
        if os.path.lexists(folder) and ((for_runs and each in _OF_RUNS) or not folder.is_dir()):
            atomic.check_folder(folder, f"{each!r} in {name}")
    if uri is None:
        return
    tracking_uri()
    probe = home() / f".probe-{uuid.uuid4().hex}"
    try:
        write_shared(probe, b"")
        withdraw(probe)
    except OSError as error:
        hint = "check the address, and the credentials of its store (for S3, AWS_ACCESS_KEY_ID and so on)"
        raise UserError(f"GLIOFLOW_HOME cannot be written to ({error})", uri, hint=hint) from None


def node_name() -> str:
    """Return a name of this node that is unique among those using the home in an object store."""
    note = home() / ".node"
    if not note.is_file():
        atomic.write_text(note, uuid.uuid4().hex[:12])
    return note.read_text()


def share(path: Path) -> None:
    """Copy a file or folder of the home to its object store, overwriting; files that mark completeness go last."""
    if home_uri() is None:
        return
    below = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    whole = [each for each in below if not each.name.startswith(_TEMPORARY)]
    with _asking() as (files, _):
        for some in (
            [each for each in whole if not _is_last(each)],
            [each for each in whole if _is_last(each)],
        ):
            if some:
                files.put([str(each) for each in some], [_key(each) for each in some])


def fetch(path: Path) -> None:
    """Copy a file or folder of the home from its object store to this node, overwriting each file atomically."""
    if home_uri() is None:
        return
    with _asking() as (files, _):
        root = _key(path)
        keys = sorted(files.find(root), key=_is_last)
        if not keys:
            return
        here = [path / key[len(root) :].lstrip("/") if key != root else path for key in keys]
        for target in here:
            target.parent.mkdir(parents=True, exist_ok=True)
        working = [target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}") for target in here]
        try:
            with atomic.writing_into(path.parent):
                files.get(keys, [str(each) for each in working])
                for each, target in zip(working, here, strict=True):
                    each.replace(target)
        finally:
            for each in working:
                each.unlink(missing_ok=True)


def withdraw(path: Path) -> None:
    """Remove a file or folder of the home from its object store, but not from this node."""
    if home_uri() is None:
        return
    with _asking() as (files, _):
        keys = files.find(_key(path))
        # Remove the completeness marks first, so that half a folder never counts as complete.
        for some in ([key for key in keys if _is_last(key)], [key for key in keys if not _is_last(key)]):
            if some:
                files.rm(some)


def list_shared(folder: Path) -> list[str]:
    """Return the sorted names of a home folder's direct entries, in its object store or on disk."""
    if home_uri() is None:
        return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    with _asking() as (files, _):
        try:
            return sorted(Path(key).name for key in files.ls(_key(folder), detail=False))
        except FileNotFoundError:
            return []


def list_folders(parent: Path) -> list[Path]:
    """Return the sorted direct subfolders of a home folder, on this node and in its object store."""
    here = {path for path in parent.iterdir() if path.is_dir()} if parent.is_dir() else set()
    if home_uri() is None:
        return sorted(here)
    with _asking() as (files, _), suppress(FileNotFoundError):
        listed = files.ls(_key(parent), detail=True)
        here |= {parent / Path(each["name"]).name for each in listed if each["type"] == "directory"}
    return sorted(here)


def size_of(folder: Path) -> int:
    """Return the total bytes of a home folder's files, in its object store or only on this node."""
    if home_uri() is not None:
        with _asking() as (files, _):
            if sizes := [int(each["size"]) for each in files.find(_key(folder), detail=True).values()]:
                return sum(sizes)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def remove(folder: Path) -> None:
    """Remove a folder of the home, from its object store and from this node."""
    withdraw(folder)
    if home_uri() is None or folder.is_dir():
        for name in _LAST:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder)


def changed_at(path: Path) -> float:
    """Return when a file of the home last changed, in seconds since 1970, by the clock of its store or disk.

    Raises:
        FileNotFoundError: If it is neither in the object store nor on this node.
    """
    if home_uri() is not None:
        with suppress(FileNotFoundError):
            return shared_since(path).timestamp()
    return path.stat().st_mtime


def address_of(path: Path) -> str:
    """Return the location of a file or folder of the home: its URI in the object store, or its path."""
    uri = home_uri()
    return str(path) if uri is None else "/".join((uri, *path.relative_to(home()).parts))


def write_shared(path: Path, content: bytes, *, new: bool = False) -> None:
    """Write an object for a file of the home, without writing to this disk.

    Args:
        path: The file.
        content: Whole content.
        new: Whether it must not exist; of several concurrent writers, only one succeeds.

    Raises:
        FileExistsError: If `new` and it exists.
    """
    with _asking() as (files, _):
        files.pipe_file(_key(path), content, mode="create" if new else "overwrite")


def read_shared(path: Path) -> bytes:
    """Return the object of a file of the home; raises `FileNotFoundError`."""
    with _asking() as (files, _):
        return bytes(files.cat_file(_key(path)))


def shared_since(path: Path) -> datetime:
    """Return when the object of a file was last written, by the store's clock; raises `FileNotFoundError`."""
    with _asking() as (files, _):
        when: datetime = files.modified(_key(path))
        return when


def ray_storage(folder: Path) -> dict[str, Any]:
    """Return Ray's storage location for a folder of the home, as arguments of its `RunConfig`."""
    if home_uri() is None:
        return {"storage_path": str(folder)}
    from pyarrow.fs import PyFileSystem

    return {"storage_path": _key(folder), "storage_filesystem": PyFileSystem(open_for_ray())}


def open_for_ray() -> Any:
    """Open the store for Ray; its processes open it again, so that no secrets are sent."""
    from pyarrow.fs import FSSpecHandler

    class Handler(FSSpecHandler):  # type: ignore[misc]
        def __reduce__(self) -> tuple[Any, tuple[()]]:
            return open_for_ray, ()

    silence()
    return Handler(_open()[0])


def _is_last(path: str | Path) -> bool:
    return Path(path).name in _LAST


def _key(path: Path) -> str:
    """Return the object's key for a path of the home, as the store's clients use it."""
    below = path.relative_to(home()).as_posix()
    root = _open()[1]
    return root if below == "." else f"{root}/{below}"


def _open() -> tuple[Any, str]:
    import fsspec

    uri = home_uri()
    assert uri is not None
    try:
        files, root = fsspec.url_to_fs(uri, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        hint = "give an address such as s3://bucket/glioflow"
        raise UserError(f"fsspec cannot open the store of GLIOFLOW_HOME here ({error})", uri, hint=hint) from None
    return files, str(root).rstrip("/")


@contextmanager
def _asking() -> Iterator[tuple[Any, str]]:
    """Yield the store's client and the home's root in it; convert every store's errors to `OSError`."""
    files, root = _open()
    try:
        yield files, root
    except (FileNotFoundError, FileExistsError, GlioflowError):
        raise
    except Exception as error:
        raise StoreFailed(f"the object store of GLIOFLOW_HOME: {first_line(error)}") from error

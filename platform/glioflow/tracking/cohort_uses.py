"""Stores with runs on this home's prepared cohorts: an empty file for each, `stores/STORE/FINGERPRINT`.

Users of several stores may share a home, and a store knows only its own runs.
"""

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

from glioflow.cluster.logins import without_password
from glioflow.cluster.remote_home import changed_at, list_folders, list_shared, withdraw, write_shared
from glioflow.cluster.storage import embedded_uri, home, home_uri


def note_use(uri: str, fingerprint: str) -> None:
    """Record that the store at `uri` now uses a prepared cohort of this home."""
    note = _folder(uri) / fingerprint
    if home_uri() is not None:
        write_shared(note, b"")
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()


def used_elsewhere(uri: str) -> set[str]:
    """Return the fingerprints recorded by stores other than the one at `uri`."""
    own = _folder(uri)
    return {name for folder in list_folders(own.parent) if folder != own for name in list_shared(folder)}


def used_since(uri: str, age_s: float) -> set[str]:
    """Return the fingerprints that the store at `uri` recorded less than `age_s` seconds ago."""
    since = time.time() - age_s
    return {name for name in noted(uri) if changed_at(_folder(uri) / name) > since}


def forget_uses(uri: str, fingerprints: Iterable[str]) -> None:
    """Remove the records of the store at `uri` for these fingerprints."""
    for fingerprint in fingerprints:
        note = _folder(uri) / fingerprint
        withdraw(note)
        note.unlink(missing_ok=True)


def noted(uri: str) -> set[str]:
    """Return the fingerprints that the store at `uri` recorded."""
    return set(list_shared(_folder(uri)))


def _folder(uri: str) -> Path:
    """Return the folder of a store's records, named by a digest because an address may contain a password."""
    if uri == embedded_uri():  # it moves with the home
        return home() / "stores" / "embedded"
    address = without_password(uri).rstrip("/")
    return home() / "stores" / hashlib.blake2b(address.encode(), digest_size=8).hexdigest()

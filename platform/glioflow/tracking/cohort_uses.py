"""Which stores record runs on the prepared cohorts of this home: an empty file for each, `stores/STORE/FINGERPRINT`.

A home may be shared by users of several stores, and a store knows only its own runs.
"""

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

from glioflow.cluster.logins import without_password
from glioflow.cluster.remote_home import changed_at, list_folders, list_shared, withdraw, write_shared
from glioflow.cluster.storage import embedded_uri, home, home_uri


def note_use(uri: str, fingerprint: str) -> None:
    """Note that the store at `uri` uses a prepared cohort of this home, as of now."""
    note = _folder(uri) / fingerprint
    if home_uri() is not None:
        write_shared(note, b"")
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()


def used_elsewhere(uri: str) -> set[str]:
    """Return the fingerprints that other stores than the one at `uri` noted."""
    own = _folder(uri)
    return {name for folder in list_folders(own.parent) if folder != own for name in list_shared(folder)}


def used_since(uri: str, age_s: float) -> set[str]:
    """Return the fingerprints that the store at `uri` noted less than `age_s` seconds ago."""
    since = time.time() - age_s
    return {name for name in noted(uri) if changed_at(_folder(uri) / name) > since}


def forget_uses(uri: str, fingerprints: Iterable[str]) -> None:
    """Remove the notes of the store at `uri` about these fingerprints."""
    for fingerprint in fingerprints:
        note = _folder(uri) / fingerprint
        withdraw(note)
        note.unlink(missing_ok=True)


def noted(uri: str) -> set[str]:
    """Return the fingerprints that the store at `uri` noted."""
    return set(list_shared(_folder(uri)))


def _folder(uri: str) -> Path:
    """Return the folder of a store's notes: named by a digest, since an address may hold a password."""
    if uri == embedded_uri():  # which moves with the home
        return home() / "stores" / "embedded"
    address = without_password(uri).rstrip("/")
    return home() / "stores" / hashlib.blake2b(address.encode(), digest_size=8).hexdigest()

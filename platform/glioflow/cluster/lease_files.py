"""The numbered files of a lease: in a folder on disk, or in the object store of the folder's home."""

import os
import re
import tempfile
import time
import uuid
from pathlib import Path
from typing import Protocol

from glioflow.cluster.remote_home import list_shared, read_shared, shared_since, withdraw, write_shared
from glioflow.cluster.storage import home_uri

_NAME = re.compile(r"lease-\d+\.json")


class LeaseFiles(Protocol):
    """The files of one lease, by name."""

    def names(self) -> list[str]:
        """Return all names."""

    def claim(self, name: str, text: str) -> None:
        """Create a new file atomically; raises `FileExistsError` if it exists."""

    def read(self, name: str) -> str:
        """Return the content of a file; raises `FileNotFoundError`."""

    def renew(self, name: str) -> None:
        """Renew the time of this process's file; raises `FileNotFoundError` if another process replaced it."""

    def age_s(self, name: str) -> float:
        """Return the seconds since a file was created or renewed; raises `FileNotFoundError`."""

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""


def lease_files(folder: Path) -> LeaseFiles:
    """Return the lease files of a folder, in the home or elsewhere."""
    return FilesOnDisk(folder) if home_uri() is None else FilesAtStore(folder)


class FilesOnDisk:
    """Files in a folder; the file system lets only one process create each, and sets its time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Return all names."""
        return [path.name for path in self.folder.glob("lease-*.json")]

    def claim(self, name: str, text: str) -> None:
        """Make a file."""
        descriptor, working = tempfile.mkstemp(dir=self.folder, prefix=".lease-")
        try:
            with os.fdopen(descriptor, "w") as file:
                os.fchmod(descriptor, 0o644)  # readable for other users of the home
                file.write(text)
            try:
                os.link(working, self.folder / name)
            except FileExistsError:
                raise
            except OSError:  # no hard links, such as on a Windows share
                with (self.folder / name).open("x") as file:
                    file.write(text)
        finally:
            os.unlink(working)

    def read(self, name: str) -> str:
        """Return the content of a file."""
        return (self.folder / name).read_text()

    def renew(self, name: str) -> None:
        """Set its time."""
        os.utime(self.folder / name)

    def age_s(self, name: str) -> float:
        """Return its age by the clock of the disk: the clocks of two machines differ."""
        renewed = (self.folder / name).stat().st_mtime
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".lease-") as file:
                return os.fstat(file.fileno()).st_mtime - renewed
        except OSError:  # read-only
            return time.time() - renewed

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink(missing_ok=True)


class FilesAtStore:
    """Objects that only one process can create (`If-None-Match: *` of S3), with the store's times."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, bytes] = {}

    def names(self) -> list[str]:
        """Return all names."""
        return [name for name in list_shared(self.folder) if _NAME.fullmatch(name)]

    def claim(self, name: str, text: str) -> None:
        """Make an object."""
        write_shared(self.folder / name, text.encode(), new=True)
        self._made[name] = text.encode()

    def read(self, name: str) -> str:
        """Return the content of an object."""
        return read_shared(self.folder / name).decode()

    def renew(self, name: str) -> None:
        """Write it again, unless it belongs to another process or a later one exists."""
        if max(self.names(), default=None) != name or read_shared(self.folder / name) != self._made[name]:
            raise FileNotFoundError(name)
        write_shared(self.folder / name, self._made[name])

    def age_s(self, name: str) -> float:
        """Return its age by the store's clock."""
        renewed, probe = shared_since(self.folder / name), self.folder / f".lease-{uuid.uuid4().hex}"
        write_shared(probe, b"")
        try:
            return (shared_since(probe) - renewed).total_seconds()
        finally:
            withdraw(probe)

    def remove(self, name: str) -> None:
        """Remove an object."""
        withdraw(self.folder / name)

"""The numbered files of a lease: in a folder on disk, or at the object store of the home that the folder belongs to."""

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
        """Return the names of all."""

    def claim(self, name: str, text: str) -> None:
        """Make a file that is not there, whole; raises `FileExistsError` where another process was faster."""

    def read(self, name: str) -> str:
        """Return what a file says; raises `FileNotFoundError`."""

    def renew(self, name: str) -> None:
        """Let a file that this process made be as of now; raises `FileNotFoundError` where another one replaced it."""

    def age_s(self, name: str) -> float:
        """Return the seconds since a file was made or renewed; raises `FileNotFoundError`."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


def lease_files(folder: Path) -> LeaseFiles:
    """Return the files of the lease of a folder of the home, or of any other folder."""
    return FilesOnDisk(folder) if home_uri() is None else FilesAtStore(folder)


class FilesOnDisk:
    """Files in a folder, which the file system makes for one process only; their times are its."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Return the names of all."""
        return [path.name for path in self.folder.glob("lease-*.json")]

    def claim(self, name: str, text: str) -> None:
        """Make a file."""
        descriptor, working = tempfile.mkstemp(dir=self.folder, prefix=".lease-")
        try:
            with os.fdopen(descriptor, "w") as file:
                os.fchmod(descriptor, 0o644)  # other users of a home read it, too
                file.write(text)
            try:
                os.link(working, self.folder / name)
            except FileExistsError:
                raise
            except OSError:  # no hard links there, such as on a Windows share
                with (self.folder / name).open("x") as file:
                    file.write(text)
        finally:
            os.unlink(working)

    def read(self, name: str) -> str:
        """Return what a file says."""
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
        except OSError:  # it may only be read
            return time.time() - renewed

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink(missing_ok=True)


class FilesAtStore:
    """Objects that the store makes for one process only (`If-None-Match: *` of S3); their times are the store's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, bytes] = {}

    def names(self) -> list[str]:
        """Return the names of all."""
        return [name for name in list_shared(self.folder) if _NAME.fullmatch(name)]

    def claim(self, name: str, text: str) -> None:
        """Make an object."""
        write_shared(self.folder / name, text.encode(), new=True)
        self._made[name] = text.encode()

    def read(self, name: str) -> str:
        """Return what an object says."""
        return read_shared(self.folder / name).decode()

    def renew(self, name: str) -> None:
        """Write it again, unless it is another process's, or a later one is there."""
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

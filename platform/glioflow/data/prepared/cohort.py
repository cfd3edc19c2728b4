"""Prepared cohorts: every case preprocessed once and stored as memory-mapped arrays, under a fingerprint.

Layout: `manifest.json`, `clinical.csv` (a copy, if the source has one) and, for each case, `cases/<id>-<digest>/` with
`image.npy` (S, h, w, C) float16, `mask.npy` (S, h, w) uint8, `reference.npz` (the mask in the original geometry, its
label values changed by the steps), `brain.npz` (the brain, in the original geometry), `prints.npz` (signatures of
the slices that are not blank) and `case.json`.
"""

import os
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import unknown_case
from glioflow.data.prepared.arrays import map_array
from glioflow.data.prepared.digests import digest_stored
from glioflow.data.prepared.index import Entry, Index
from glioflow.data.prepared.manifest import CaseRecord
from glioflow.data.prepared.prints import Signatures, hash_slices, sign
from glioflow.data.preprocessing.geometry import restore
from glioflow.errors import UserError

_AGAIN = "make the cohort again with `glioflow data prepare`"
# Number of arrays that a cohort keeps mapped; usual limits allow 65,530 mappings per process.
_MAPPED = 8192


class PreparedCase:
    """One case of a prepared cohort; its arrays are mapped on use, so that processes share their memory."""

    def __init__(self, record: CaseRecord, folder: Path, mapped: Callable[[Path], NDArray[Any]] | None = None) -> None:
        """Create a case.

        Args:
            record: Its record in the manifest.
            folder: Folder of its files.
            mapped: Returns the mapped array of a file; the cases of one cohort share this function and its cache.
        """
        self.record = record
        self.folder = folder
        self._mapped = mapped or lru_cache(maxsize=2)(_mapped)
        self._image_file, self._mask_file = folder / "image.npy", folder / "mask.npy"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_mapped": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _mapped=lru_cache(maxsize=2)(_mapped))

    @property
    def image(self) -> NDArray[np.float16]:
        """(S, h, w, C), mapped."""
        return self._mapped(self._image_file)

    @property
    def mask(self) -> NDArray[np.uint8] | None:
        """(S, h, w) labels in the network's geometry, mapped; None without a mask."""
        return None if self.record.areas_px is None else self._mapped(self._mask_file)

    def reference(self) -> NDArray[np.uint8]:
        """Read the mask in the original geometry, (S, H, W): the reference of all metrics."""
        path = self.folder / "reference.npz"
        if not path.exists():
            raise UserError(f"case {self.record.id} has no mask to measure against", hint="give labeled cases")
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive["mask"], dtype=np.uint8)

    def brain(self) -> NDArray[np.bool_] | None:
        """Read the brain mask, (S, H, W) in the original geometry; None if preparation found no brain."""
        path = self.folder / "brain.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive["brain"], dtype=bool)

    def signatures(self) -> Signatures:
        """Return the signatures of the slices that are not blank, (N, BITS / 8), as stored or computed if missing."""
        path, image = self.folder / "prints.npz", self.folder / "image.npy"
        # Earlier versions stored none, and those of a changed image are out of date.
        if not path.exists() or path.stat().st_mtime_ns < image.stat().st_mtime_ns:
            return sign(hash_slices(self.image)[0])
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive["signatures"], dtype=np.uint8)

    def restore(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return a volume (S, h, w[, K]) of the network's geometry in the original geometry."""
        return restore(volume, self.record.moves)


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return map_array(path)
    except (OSError, ValueError) as error:
        raise UserError("a file of a prepared cohort could not be read", str(error), file=path, hint=_AGAIN) from None


class PreparedCohort:
    """A prepared cohort on disk; its cases are read on demand."""

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        """Open a cohort.

        Args:
            path: Its folder.
            verify: Whether to check the size of every file, and the content of files newer than the manifest, against
                the records; workers leave that to the command that started them. The home remembers what was read.

        Raises:
            UserError: If there is no valid manifest, or a file is missing, incomplete or changed.
        """
        self.path = path
        self.records = Index(path)
        self.manifest = self.records.manifest
        self._cases: dict[str, PreparedCase] = {}
        self._mapped = lru_cache(maxsize=_MAPPED)(_mapped)
        if verify:
            made_ns = (path / "manifest.json").stat().st_mtime_ns
            newer: dict[Path, str] = {}
            for record in self.records:
                newer |= check_files(record, path / record.folder, made_ns)
            _check_contents(newer)

    def __reduce__(self) -> tuple[Callable[[Path], "PreparedCohort"], tuple[Path]]:
        return _open_unverified, (self.path,)

    def entries(self) -> list[Entry]:
        """Return the data that a split needs about all cases, sorted by id."""
        return self.records.entries()

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, the same in every case."""
        return self.records[0].channels

    @property
    def source_channels(self) -> tuple[str, ...]:
        """Names of the channels before preprocessing, the same in every case."""
        return self.records[0].source_channels

    @property
    def clinical(self) -> Path | None:
        """The clinical table of the source; None if there was none."""
        path = self.path / "clinical.csv"
        return path if path.exists() else None

    @property
    def shrunk_with_bias(self) -> bool:
        """Whether GlioFlow 0.1 resized the masks, with its bias toward background."""
        shrunk = (
            move.kind == "resize" and any(now < was for was, now in zip(move.before, move.after, strict=True))
            for move in self.records[0].moves
        )
        return self.records[0].digest is None and any(shrunk)

    @property
    def num_slices(self) -> int:
        """Number of slices of all cases in the original geometry."""
        return self.records.num_slices

    def case(self, case_id: str) -> PreparedCase:
        """Return one case; raises `UserError` for an unknown id."""
        if case_id not in self._cases:
            if (record := self.records.find(case_id)) is None:
                raise unknown_case(case_id, self.path, self.records.ids())
            self._cases[case_id] = PreparedCase(record, self.path / record.folder, self._mapped)
        return self._cases[case_id]

    def cases(self, ids: Iterable[str]) -> list[PreparedCase]:
        """Return the cases of `ids`, in that order."""
        return [self.case(case_id) for case_id in ids]


def _open_unverified(path: Path) -> PreparedCohort:
    return PreparedCohort(path, verify=False)


def check_files(record: CaseRecord, folder: Path, made_ns: int = sys.maxsize) -> dict[Path, str]:
    """Return the recorded digests of a case's files that are newer than `made_ns`, when the manifest was written.

    These were copied or changed; the change time of a file's inode shows it even if its modification time was kept.

    Raises:
        UserError: If a file is missing, or of another size.
    """
    newer = {}
    for name, size in record.sizes.items():
        path = folder / name
        try:
            status = os.stat(path)
        except OSError:
            status = None
        if status is None or status.st_size != size:
            raise UserError("a file of a prepared cohort is missing or incomplete", file=path, hint=_AGAIN)
        if max(status.st_mtime_ns, status.st_ctime_ns) > made_ns and name in record.contents:
            newer[path] = record.contents[name]
    return newer


def _check_contents(recorded: dict[Path, str]) -> None:
    """Refuse files whose content is not the recorded one."""
    digests = digest_stored(recorded) if recorded else {}
    changed = next((path for path, digest in digests.items() if digest != recorded[path]), None)
    if changed is not None:
        raise UserError("a file of a prepared cohort was changed since it was made", file=changed, hint=_AGAIN)


def is_prepared(path: Path) -> bool:
    """Return whether `path` is a prepared cohort."""
    return (path / "manifest.json").is_file()

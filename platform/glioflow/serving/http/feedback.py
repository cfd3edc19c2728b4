"""Corrected masks from callers: quarantined under a pseudonym, and labeled cases for the next training once accepted.

A patient's key is an HMAC with a secret of this home: the same person gets the same key, so that no split can have the
person on both sides, and nobody can tell who it is. Headers and names of the files that came are not kept.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from glioflow import atomic
from glioflow.cluster.storage import home
from glioflow.data.case import Case
from glioflow.data.formats.writing import encode_nifti, encode_tiff
from glioflow.errors import TooLarge, UserError

_DAY_S = 24 * 3600
_ENTRY = re.compile(r"^[0-9a-f]{12}$")


class Feedback:
    """Quarantine and accepted cases below one folder."""

    def __init__(self, folder: Path | None = None, *, per_day: int = 100) -> None:
        """Keep everything in `folder`, by default `feedback/` under the home."""
        self.folder, self.per_day = folder or home() / "feedback", per_day
        self.quarantine, self.accepted = self.folder / "quarantine", self.folder / "accepted"

    def take(self, case: Case, patient: str) -> str:
        """Put a labeled study into quarantine and return its number.

        Raises:
            UserError: If it has no mask.
            TooLarge: If today's quota is used up.
        """
        if case.mask is None:
            raise UserError(
                "feedback holds a mask beside every image", "no mask", ["<name>_mask.tif", "<name>_mask.nii.gz"]
            )
        if len([entry for entry in self.entries() if entry["received"] > time.time() - _DAY_S]) >= self.per_day:
            raise TooLarge(f"feedback has at most {self.per_day} studies a day", "one more")
        entry = secrets.token_hex(6)
        key = self._key_of(patient)
        with atomic.new_folder(self.quarantine / entry) as working:
            kind = _write_case(case, key, working / "case")
            said = {"id": entry, "patient": key, "kind": kind, "received": time.time(), "slices": case.shape[0]}
            atomic.write_json(working / "entry.json", {**said, "labeled_px": int(np.count_nonzero(case.mask))})
        return entry

    def entries(self) -> list[dict[str, Any]]:
        """Return what waits in quarantine, oldest first."""
        files = self.quarantine.glob("[0-9a-f]*/entry.json")
        return sorted((json.loads(path.read_text()) for path in files), key=lambda entry: entry["received"])

    def accept(self, entry: str) -> Path:
        """Make an entry a labeled case of the cohort `accepted/KIND` and return the case's folder.

        Raises:
            UserError: If there is no such entry.
        """
        place = self._find(entry)
        said = json.loads((place / "entry.json").read_text())
        cohort = self.accepted / said["kind"]
        cohort.mkdir(parents=True, exist_ok=True)
        number = 1 + sum(1 for path in cohort.iterdir() if path.name.startswith(said["patient"]))
        # The date's place in an LGG case's name, so that all cases of a person share the patient.
        target: Path = cohort / f"{said['patient']}_{number:08d}"
        for path in sorted((place / "case").iterdir()):
            path.rename(path.with_name(path.name.replace(said["patient"], target.name, 1)))
        (place / "case").rename(target)
        shutil.rmtree(place)
        return target

    def reject(self, entry: str) -> None:
        """Delete an entry; raises `UserError` where there is none."""
        shutil.rmtree(self._find(entry))

    def _find(self, entry: str) -> Path:
        place = self.quarantine / entry
        if not _ENTRY.match(entry) or not (place / "entry.json").is_file():
            raise UserError("no such feedback in quarantine", entry, [said["id"] for said in self.entries()][:20])
        return place

    def _key_of(self, patient: str) -> str:
        path = self.folder / "patient.key"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secrets.token_bytes(32))
            except FileExistsError:  # another replica was faster
                pass
        secret = path.read_bytes()
        if len(secret) != 32:
            raise UserError("the key of patients is 32 bytes", path.name)
        return "P" + hmac.new(secret, patient.strip().encode(), hashlib.sha256).hexdigest()[:16]


def _write_case(case: Case, key: str, folder: Path) -> str:
    """Write images and mask under the key: TIFF slices as in LGG, else NIfTI; return which cohort it joins."""
    import tifffile

    assert case.mask is not None
    folder.mkdir(parents=True)
    if case.grid.affine is None and case.image.dtype == np.uint8 and case.image.shape[3] == 3:
        for number, plane, mask in zip(case.slice_numbers, case.image, case.mask, strict=True):
            tifffile.imwrite(folder / f"{key}_{number}.tif", plane, photometric="rgb", metadata=None, software="")
            (folder / f"{key}_{number}_mask.tif").write_bytes(encode_tiff(mask))
        return "lgg"
    for k, channel in enumerate(case.channels):
        (folder / f"{key}_{_word(channel)}.nii.gz").write_bytes(_nifti(case, case.image[..., k]))
    (folder / f"{key}_mask.nii.gz").write_bytes(encode_nifti(case.mask, case))
    return "nifti"


def _nifti(case: Case, volume: Any) -> bytes:
    import gzip

    import nibabel

    if case.grid.affine is not None:
        data, affine = case.grid.to_file(volume), case.grid.affine
    else:
        s, h, w = case.spacing_mm or (1.0, 1.0, 1.0)
        data, affine = np.transpose(volume, (2, 1, 0)), np.diag([-w, -h, s, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(data, np.float32), affine)
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def _word(channel: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", channel.lower()) or "image"

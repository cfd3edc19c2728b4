"""The manifest of a prepared cohort on disk, and the fingerprint that identifies it. Reads no array."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from glioflow.data.preprocessing.geometry import Move, Shape
from glioflow.data.preprocessing.pipeline import Step
from glioflow.errors import UserError, first_line

VERSION = 2


class CaseRecord(BaseModel):
    """The record of one prepared case, without its arrays.

    Attributes:
        id: Name of the case.
        patient: The person.
        institution: Where the case came from, or None.
        folder: Its folder in the prepared cohort.
        shape: (S, H, W) of the original.
        spacing_mm: Spacing of the original, or None.
        source_channels: Names of the channels before preprocessing.
        channels: Names of the prepared channels.
        slice_numbers: Numbers of the original slices.
        moves: Geometry changes from the original to the prepared arrays.
        areas_px: Labeled pixels of each *prepared* slice; None without a mask.
        volume_px: Labeled voxels in the original geometry; None without a mask.
        sizes: Size of each file of the case in bytes, checked whenever the cohort is opened.
        contents: Digest of each file, checked if it is newer than the manifest; empty in earlier versions.
        digest: Digest of the original voxels, independent of names and mask; None in cohorts prepared before 0.2.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    patient: str
    institution: str | None
    folder: Annotated[str, Field(pattern=r"^cases/[^./\\][^/\\]*$")]
    shape: Shape
    spacing_mm: tuple[float, float, float] | None
    source_channels: tuple[str, ...]
    channels: tuple[str, ...]
    slice_numbers: tuple[int, ...]
    moves: tuple[Move, ...]
    areas_px: tuple[int, ...] | None
    volume_px: int | None
    sizes: dict[Annotated[str, Field(pattern=r"^[a-z]+\.[a-z]+$")], int]
    digest: str | None = None
    contents: dict[str, str] = Field(default_factory=dict)

    @property
    def prepared_shape(self) -> Shape:
        """(S, h, w) of the prepared arrays."""
        return self.moves[-1].after if self.moves else self.shape


class Manifest(BaseModel):
    """Source and settings of a prepared cohort.

    Attributes:
        version: Version of the layout.
        fingerprint: Fingerprint of the cases' files and the steps.
        source_fingerprint: Fingerprint of the cases' files alone.
        format: Format of the source.
        source: Name of the source's folder.
        labels: Labels of its masks.
        steps: Steps of its preprocessing.
        corrects: `source_fingerprint` of the cohort before corrections, which has the same test patients.
        doubts: Cases of the source that may be of one person, a sentence each; empty in earlier versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: int
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    source_fingerprint: str
    format: str
    source: str
    labels: dict[int, str]
    steps: tuple[Step, ...]
    corrects: str | None = None
    doubts: tuple[str, ...] = ()

    @property
    def judged_by(self) -> str:
        """Fingerprint of the files with the test patients, independent of additions for training."""
        return self.corrects or self.source_fingerprint


class WholeManifest(Manifest):
    """The contents of `manifest.json`: everything about a prepared cohort except its arrays."""

    cases: Annotated[tuple[CaseRecord, ...], Field(min_length=1)]


def read_whole(path: Path) -> WholeManifest:
    """Read the manifest in a folder; raises `UserError` if there is none, or it has another version."""
    try:
        text = (path / "manifest.json").read_bytes()
    except OSError as error:
        raise UserError("a prepared cohort must have a valid manifest.json", error.strerror, file=path) from None
    return parse_manifest(text, path)


def parse_manifest(text: bytes, origin: str | Path) -> WholeManifest:
    """Parse the manifest in `text`, which was read from `origin`.

    Raises:
        UserError: If it is not a manifest, or was written by another version of GlioFlow.
    """
    try:
        content = json.loads(text)
        version = content.get("version") if isinstance(content, dict) else None
        # Checked first: other versions have other fields, and errors about those would be misleading.
        if isinstance(version, int) and version != VERSION:
            age = "an older" if version < VERSION else "a newer"
            raise UserError(
                f"{origin}: this version of GlioFlow reads prepared cohorts of version {VERSION}",
                f"version {version}, written by {age} GlioFlow",
                hint="make it again from its source with `glioflow data prepare`, in another folder",
            )
        return WholeManifest.model_validate(content)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin}: a prepared cohort must have a valid manifest.json", first_line(error)) from None


def digest_file(path: Path) -> str:
    """Return a digest of a file's content; raises `OSError` if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_image(image: NDArray[np.generic]) -> str:
    """Return a digest of an image's voxels, independent of file names."""
    header = f"{image.shape} {image.dtype.str}".encode()
    return hashlib.blake2b(header + np.ascontiguousarray(image).tobytes(), digest_size=16).hexdigest()


def fingerprint_of(digests: dict[str, str], steps: Sequence[Step], reading: str = "") -> str:
    """Return the name of a prepared cohort: a hash of the digests of its cases, by id, and of its steps.

    `reading` is the digest of what else determines how the cases are read; empty if nothing does.
    """
    content = {
        "version": VERSION,
        "cases": sorted(digests.items()),
        "steps": [step.model_dump(mode="json") for step in steps],
        **({"reading": reading} if reading else {}),
    }
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()

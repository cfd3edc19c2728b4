"""What a prepared cohort says of itself on disk, and how it is told from others. Touches no array."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from glioflow.data.formats.record import Cohort
from glioflow.data.preprocessing.brain_mask import BrainMask
from glioflow.data.preprocessing.geometry import Move, Shape
from glioflow.data.preprocessing.pipeline import Step
from glioflow.errors import UserError

VERSION = 2


class CaseRecord(BaseModel):
    """What is known of one prepared case without touching its arrays.

    Attributes:
        id: Name of the case.
        patient: The person.
        institution: Where the case came from, or None.
        folder: Its folder below the prepared cohort.
        shape: (S, H, W) of the original.
        spacing_mm: Of the original, or None.
        source_channels: Names of the channels as read.
        channels: Names of the prepared channels.
        slice_numbers: Of the original slices.
        moves: The way from the original to the prepared geometry.
        areas_px: Labeled pixels of each *prepared* slice; None without a mask.
        volume_px: Labeled voxels in the original geometry; None without a mask.
        sizes: Bytes of each file of the case, by which an opened cohort is verified.
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


class Manifest(BaseModel):
    """What a prepared cohort says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: int
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    source_fingerprint: str
    format: str
    source: str
    labels: dict[int, str]
    steps: tuple[Step, ...]
    cases: Annotated[tuple[CaseRecord, ...], Field(min_length=1)]


def read_manifest(path: Path) -> Manifest:
    """Read the manifest in a folder; raises `UserError` where it is none, or of another version."""
    try:
        text = (path / "manifest.json").read_bytes()
    except OSError as error:
        raise UserError("a prepared cohort has a valid manifest.json", f"{path} ({error.strerror})") from None
    return parse_manifest(text, path)


def parse_manifest(text: bytes, place: str | Path) -> Manifest:
    """Return the manifest that `text` is; `place` is where it lay.

    Raises:
        UserError: If it is none, or one that another version of GlioFlow wrote.
    """
    try:
        said = json.loads(text)
        version = said.get("version") if isinstance(said, dict) else None
        # Looked at first: other versions have other fields, and a list of those would help nobody.
        if isinstance(version, int) and version != VERSION:
            age = "an older" if version < VERSION else "a newer"
            raise UserError(
                f"a prepared cohort is of version {VERSION}; make it again from its source with "
                "`glioflow data prepare`, in another folder",
                f"version {version}, written by {age} GlioFlow, in {place}",
            )
        return Manifest.model_validate(said)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError("a prepared cohort has a valid manifest.json", f"{place} ({first})") from None


def digest_cases(cohort: Cohort, steps: Sequence[Step]) -> dict[str, str]:
    """Digest each case's files and the brain masks that the steps read."""
    brains = [step for step in steps if isinstance(step, BrainMask)]
    files = {
        case.id: (*case.files, *(path for step in brains if (path := step.path(case.files, case.id)) is not None))
        for case in cohort.cases
    }
    with ThreadPoolExecutor(4) as threads:  # hashing releases the interpreter
        return dict(zip(files, threads.map(_digest_files, files.values()), strict=True))


def _digest_files(files: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        digest.update(path.name.encode())
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise UserError("every file of a cohort can be read", f"{path}: {error.strerror}") from None
    return digest.hexdigest()


def fingerprint_of(digests: dict[str, str], steps: Sequence[Step]) -> str:
    """Return what names a prepared cohort: a hash of its cases' digests by id and of the steps."""
    said = {
        "version": VERSION,
        "cases": sorted(digests.items()),
        "steps": [step.model_dump(mode="json") for step in steps],
    }
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()

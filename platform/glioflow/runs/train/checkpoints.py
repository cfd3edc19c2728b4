"""Checkpoints that Ray Train stores: a marker of our own says which of them are whole."""

import json
import shutil
import zipfile
from pathlib import Path

from glioflow import atomic

# Names and sizes of the other files of a checkpoint, written after them.
DONE = "done.json"


def mark_done(folder: Path) -> None:
    """Write the marker of a finished checkpoint, before Ray Train copies the folder to its storage."""
    atomic.write_json(folder / DONE, {file.name: file.stat().st_size for file in sorted(folder.iterdir())})


def is_whole(folder: Path) -> bool:
    """Return whether every file that the marker lists is there in full.

    Older versions wrote no marker. Their checkpoints are whole where PyTorch's files are: each is a zip archive, whose
    table of contents comes last.
    """
    marker = folder / DONE
    if not marker.exists():
        files = list(folder.glob("*.pt"))
        return bool(files) and all(zipfile.is_zipfile(file) for file in files)
    try:
        sizes: dict[str, int] = json.loads(marker.read_bytes())
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def drop_torn(folder: Path) -> None:
    """Remove the checkpoints of one training that are not whole: a full disk leaves the last one half-written."""
    for checkpoint in folder.glob("checkpoint_*/"):
        if not is_whole(checkpoint):
            shutil.rmtree(checkpoint, ignore_errors=True)

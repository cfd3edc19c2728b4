"""Side-by-side folders of images and masks, such as `images` and `masks`, recognized by names alone.

Public code has `imagesTr` and `labelsTr` (nnU-Net, the Decathlon), `images` and `masks` or `labels`, also in
`train` and `val`, or in the folder of each case.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

IMAGES_FOLDER = re.compile(r"(?:images?|imgs?|scans?|volumes?)(?:tr|ts)?", re.IGNORECASE)
MASKS_FOLDER = re.compile(
    r"(?:masks?|labels?|segs?|segmentations?|annotations?|gts?|ground[_ -]?truths?)(?:tr|ts)?", re.IGNORECASE
)
# Parts of a cohort, which are not cases.
_PARTS = re.compile(r"train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?", re.IGNORECASE)
# Levels above a file in which to look for the folder of masks: `masks/p1.nii`, `masks/p1/a.nii`.
_ABOVE = 2


@dataclass(frozen=True)
class PairFolders:
    """The location of a file in a pair: the folders above the pair and below it; parts such as `train` are above it."""

    above: tuple[str, ...]
    below: tuple[str, ...]


def is_part(folder: str) -> bool:
    """Return whether a folder is a part of a cohort, not a person, by its name: `train`, `val`, `test`."""
    return bool(_PARTS.fullmatch(folder))


def locate_pairs(files: Iterable[Path], root: Path) -> Mapping[Path, PairFolders]:
    """Return the location of each file in side-by-side folders of images and masks below `root`."""
    folders = {file: file.parent.relative_to(root).parts for file in files}
    inside: dict[tuple[str, ...], list[bool]] = {}
    for parts in set(folders.values()):
        for k, part in enumerate(parts):
            kinds = inside.setdefault(parts[:k], [False, False])
            kinds[0] |= bool(IMAGES_FOLDER.fullmatch(part))
            kinds[1] |= bool(MASKS_FOLDER.fullmatch(part))
    located = {}
    for file, parts in folders.items():
        for k in reversed(range(len(parts))):
            if all(inside[parts[:k]]) and (IMAGES_FOLDER.fullmatch(parts[k]) or MASKS_FOLDER.fullmatch(parts[k])):
                below = parts[k + 1 :]
                whole = len(below) if all(map(is_part, below)) else 0
                located[file] = PairFolders((*parts[:k], *below[:whole]), below[whole:])
                break
    return located


def is_in_masks(file: Path, root: Path | None = None) -> bool:
    """Return whether a file is in a folder of masks beside a folder of images, or in `labelsTr`.

    Ignores `root`, the cohort's folder, and the folders above it; without `root`, all folders count.
    """
    for folder in file.parents[:_ABOVE]:
        if folder.name == "labelsTr":
            return True
        if folder == root:
            return False
        if MASKS_FOLDER.fullmatch(folder.name) and folder.is_dir():
            return any(IMAGES_FOLDER.fullmatch(other.name) and other.is_dir() for other in folder.parent.iterdir())
    return False

"""Folders of images and of masks that lie side by side, such as `images` and `masks`: what is in which, by names alone.

Seen in public code as `imagesTr` and `labelsTr` (nnU-Net, the Decathlon), `images` and `masks` or `labels`, also in
`train` and `val`, or in the folder of each case.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_IMAGES = re.compile(r"(?:images?|imgs?|scans?|volumes?)(?:tr|ts)?", re.IGNORECASE)
_MASKS = re.compile(
    r"(?:masks?|labels?|segs?|segmentations?|annotations?|gts?|ground[_ -]?truths?)(?:tr|ts)?", re.IGNORECASE
)
# Parts of a cohort, which are not cases.
_PARTS = re.compile(r"train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?", re.IGNORECASE)
# How far above a file the folder of masks is looked for: `masks/p1.nii`, `masks/p1/a.nii`.
_ABOVE = 2


@dataclass(frozen=True)
class PairFolders:
    """Where a file of a pair lies: the folders above the pair and below it; parts such as `train` are all above."""

    above: tuple[str, ...]
    below: tuple[str, ...]


def is_part(folder: str) -> bool:
    """Return whether a folder is a part of a cohort and no person, by its name: `train`, `val`, `test`."""
    return bool(_PARTS.fullmatch(folder))


def locate_pairs(files: Iterable[Path], root: Path) -> Mapping[Path, PairFolders]:
    """Return where each file lies that is in one of two folders, of images and of masks, side by side below `root`."""
    folders = {file: file.parent.relative_to(root).parts for file in files}
    inside: dict[tuple[str, ...], list[bool]] = {}
    for parts in set(folders.values()):
        for k, part in enumerate(parts):
            kinds = inside.setdefault(parts[:k], [False, False])
            kinds[0] |= bool(_IMAGES.fullmatch(part))
            kinds[1] |= bool(_MASKS.fullmatch(part))
    located = {}
    for file, parts in folders.items():
        for k in reversed(range(len(parts))):
            if all(inside[parts[:k]]) and (_IMAGES.fullmatch(parts[k]) or _MASKS.fullmatch(parts[k])):
                below = parts[k + 1 :]
                whole = len(below) if all(map(is_part, below)) else 0
                located[file] = PairFolders((*parts[:k], *below[:whole]), below[whole:])
                break
    return located


def is_in_masks(file: Path, root: Path | None = None) -> bool:
    """Return whether a file lies in a folder of masks that has one of images beside it, or in `labelsTr`.

    `root`, the cohort's folder, and those above it are none; without it, all may be.
    """
    for folder in file.parents[:_ABOVE]:
        if folder.name == "labelsTr":
            return True
        if folder == root:
            return False
        if _MASKS.fullmatch(folder.name) and folder.is_dir():
            return any(_IMAGES.fullmatch(other.name) and other.is_dir() for other in folder.parent.iterdir())
    return False

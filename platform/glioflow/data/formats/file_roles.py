"""Which file of a cohort is what: image, mask of the tumor, or mask of the brain. The one place that decides by names.

A cohort may say it in `cohort.yaml`, a file beside its cases:

    images: ["*_flair.nii.gz", "*_t1.nii.gz"]    # patterns of names, or of paths in the cohort
    masks: ["*_tumor.nii.gz"]
    brain_masks: ["*_brain.nii.gz"]
    labels: {1: core, 2: edema}                  # what the masks hold besides 0
    scheme: brats-2024-ped                       # or the name of a public data set's labels (see `label_schemes`)
    outlines: [GTV]                              # which outlines of radiotherapy (RTSTRUCT) are the mask
    skip_incomplete: true                        # leave out cases that lack a sequence
    resample_to: flair                           # channel onto whose grid the other images of a case are resampled
    each_case_is_a_person: true                  # names that differ in a day or visit alone are of several persons
    mask_source: automated                       # where a data set has several kinds of masks (see `layouts`)

Files that no pattern fits are guessed by their names where `cohort.yaml` has none of that kind, and left out where it
has.
"""

import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from glioflow.data.formats.paired_folders import is_in_masks
from glioflow.data.sequences import is_channel_name
from glioflow.errors import UserError, one_line
from glioflow.label_schemes import scheme_named
from glioflow.strict_yaml import parse_yaml

Role = Literal["image", "mask", "brain_mask"]

DECLARED = "cohort.yaml"
_ENDING = r"\.(?:tiff?|png|nii|nii\.gz|mha|nrrd)$"
_MARK = r"(?:masks?|(?:d|prob)?segs?|segm|segmentations?|labels?|labelmaps?)"
# Words that alone mean a mask of the tumor: as an image it would tell the network the answer.
_TUMOR = rf"(?:tumou?rs?[_ -]?{_MARK}|lesions?|tumou?rs?|gtv|gt|ground[_-]?truth|truth|roi|annotations?)"
# Whose masks are not of a tumor: the brain and its parts, the head, and where an image is valid.
_BRAIN = (
    r"(?:brain|nobrain|(?:hd[_-]?)?bet|synthstrip|skull|skull[_-]?strip(?:ped)?|icv|tiv|intracranial|cavity|eyes?"
    r"|vessels?|head|scalp|face|foreground|background|valid|parenchyma|tissues?|wm|gm|csf|(?:white|gr[ae]y)[_-]?matter|ventricles?|hippocamp(?:us|i)|cerebell(?:um|ar)|thalam(?:us|i)|brain[_-]?stem)"
)
_ATLAS = r"(?:aseg|aparc(?:[._+-]?[a-z0-9]+)*|wmparc|ribbon)"
MASK_NAME = re.compile(rf"(?:^|[_. -])(?:{_MARK}|{_TUMOR}){_ENDING}|\.seg\.nrrd$", re.IGNORECASE)
# What follows the mark says whose mask it is, as in `p1_seg_manual`; images are named by their sequence or number.
_MARKED = re.compile(rf"(?:^|[_. -]){_MARK}[_. -](?P<after>.*){_ENDING}", re.IGNORECASE)
BRAIN_NAME = re.compile(
    rf"(?:^|[_-])(?:{_BRAIN}[_-]?{_MARK}|{_MARK}[_-]{_BRAIN}|{_ATLAS}){_ENDING}",
    re.IGNORECASE,
)


class FileRoles(BaseModel):
    """What a cohort says about its files; the defaults say nothing.

    Attributes:
        images: Patterns of image files.
        masks: Patterns of tumor masks.
        brain_masks: Patterns of brain masks.
        labels: Name of each label value.
        scheme: Name of a label scheme, in place of `labels`.
        outlines: Names of the outlines in DICOM's RTSTRUCT files that are the mask, as labels 1, 2 and so on.
        skip_incomplete: Whether cases of NIfTI files that lack a sequence are left out.
        resample_to: Channel onto whose grid the others are resampled; in NIfTI and DICOM.
        mask_threshold: Above which a value of a mask is tumor, where masks were blurred; only in copies of the LGG set.
        each_case_is_a_person: Whether no two cases are of one person, whatever visits their names seem to state.
        mask_source: Which masks are taken where a data set has several kinds; `any` takes the first that a case has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    images: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    brain_masks: tuple[str, ...] = ()
    labels: dict[int, str] = Field(default_factory=dict)
    scheme: str | None = None
    mask_source: str | None = None
    outlines: tuple[str, ...] = ()
    skip_incomplete: bool = False
    each_case_is_a_person: bool = False
    resample_to: str | None = None
    mask_threshold: int | None = Field(default=None, ge=0)
    _root: Path | None = PrivateAttr(default=None)

    def below(self, root: Path) -> "FileRoles":
        """Return the same for the files below `root`: the names of folders above it say nothing about them."""
        same = self.model_copy()
        same._root = root
        return same

    @property
    def has_patterns(self) -> bool:
        """Whether it says which files are what."""
        return bool(self.images or self.masks or self.brain_masks)

    def declares(self, file: Path) -> bool:
        """Return whether it says what a file is, which is guessed else."""
        return self._declared(file) is not None

    def of(self, file: Path) -> Role | None:
        """Return what a file is; None for one that is left out."""
        if (declared := self._declared(file)) is not None:
            return declared[0]
        guessed = guess_role(file, self._root)
        return None if self._patterns[guessed] else guessed

    def case_of(self, file: Path) -> str | None:
        """Return what the star of a declared `*<ending>` stands for in a file's name; None where no such one fits."""
        _, pattern = self._declared(file) or (None, "")
        ending = pattern.removeprefix("*")
        whole = pattern.startswith("*") and ending and not set(ending) & set("*?[/")
        return file.name.removesuffix(ending).rstrip("_-") or None if whole else None

    @property
    def _patterns(self) -> dict[Role, tuple[str, ...]]:
        return {"brain_mask": self.brain_masks, "mask": self.masks, "image": self.images}

    def _declared(self, file: Path) -> tuple[Role, str] | None:
        for role, patterns in self._patterns.items():
            for pattern in patterns:
                if fnmatch(file.name, pattern) or fnmatch(file.as_posix(), f"*/{pattern}"):
                    return role, pattern
        return None

    def only(self, role: Role, files: Iterable[Path]) -> list[Path]:
        """Return the files of one role."""
        return [file for file in files if self.of(file) == role]


NO_ROLES = FileRoles()
INCOMPLETE = f"complete it, or leave such cases out with `skip_incomplete: true` in a file {DECLARED} beside the cases"


def note_left_out(left_out: Sequence[str]) -> tuple[str, ...]:
    """Return the sentence that names the cases that were left out; none where there are none."""
    return (f"cases left out, since they lack a sequence: {'; '.join(left_out)}",) if left_out else ()


def guess_role(file: Path, root: Path | None = None) -> Role:
    """Return what a file is by its name: `x_brain_mask` is not of a tumor, `x_mask` and `x-seg` are; others are images.

    In a folder below `root` such as `masks`, with `images` beside it, all are masks.
    """
    if BRAIN_NAME.search(file.name):
        return "brain_mask"
    return "mask" if MASK_NAME.search(file.name) or _is_marked(file.name) or is_in_masks(file, root) else "image"


def _is_marked(name: str) -> bool:
    """Return whether a name has the mark of a mask before its end, and no sequence or number of a channel."""
    marked = _MARKED.search(name)
    pieces = re.split(r"[_. -]", name[: name.lower().rfind(".nii")] if ".nii" in name.lower() else Path(name).stem)
    return marked is not None and not re.search(r"\d{4,}$", marked["after"]) and not any(map(is_channel_name, pieces))


def is_mask_name(name: str) -> bool:
    """Return whether a file is a mask, of tumor or brain, by its name, such as `x_mask.tif` or `x-seg.nii.gz`."""
    return guess_role(Path(name)) != "image"


def case_name(name: str) -> str:
    """Return a mask's name without what marks it as one, e.g. `a` of `a_mask.nii.gz` and of `a_brain_mask.nii.gz`."""
    bare = MASK_NAME.sub("", BRAIN_NAME.sub("", name))
    return (_MARKED.sub("", bare) if _is_marked(bare) else bare).strip("_. -")


def declared_in(path: Path) -> list[Path]:
    """Return the `cohort.yaml` that holds for a folder: its own, or that of the one above; none or one.

    Raises:
        UserError: If it is no file, but a folder or a link to nowhere.
    """
    there = [file for folder in (path, path.parent) if os.path.lexists(file := folder / DECLARED)][:1]
    if there and not there[0].is_file():
        raise UserError(f"{DECLARED} must be a file that can be read", there[0], hint="mend or remove it")
    return there


def roles_for(format: str, path: Path, *uses: str) -> FileRoles:
    """Read `cohort.yaml` for a format that uses these keys of it; see `read_roles`.

    Raises:
        UserError: As `read_roles`, or if the folder's own file has a key that the format does not use.
    """
    roles = read_roles(path)
    unused = [key for key in roles.model_fields_set if key not in uses and getattr(roles, key)]
    if unused and (path / DECLARED).is_file():
        rule = f"{sorted(unused)[0]} has no effect on cohorts of the format {format}"
        also = f"; it takes {', '.join(uses)}" if uses else ""
        raise UserError(rule, hint=f"remove it{also}", file=path / DECLARED)
    return roles


def read_roles(path: Path) -> FileRoles:
    """Read `cohort.yaml` in a cohort's folder, or in the one above for a single case; without one, names decide.

    Raises:
        UserError: If it cannot be read, or holds another key or value.
    """
    file = next(iter(declared_in(path)), None)
    if file is None:
        return NO_ROLES
    rule = f"{DECLARED} must hold patterns under images, masks and brain_masks, and names under labels"
    try:
        roles = FileRoles.model_validate(parse_yaml(file.read_text(encoding="utf-8")) or {})
    except UserError as error:
        raise error.replace(file=file) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(rule, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", file=file) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(rule, one_line(error, most=120), file=file) from None
    if roles.scheme is not None:
        try:
            scheme_named(roles.scheme)
        except UserError as error:
            raise error.replace(file=file) from None
        if roles.labels:
            raise UserError("labels and scheme must not both be given", f"{len(roles.labels)} labels", file=file)
    if wrong := [label for label in roles.labels if not 0 < label < 256]:
        raise UserError("labels must be numbers from 1 to 255", wrong, file=file)
    return roles

"""The role of each file of a cohort by its name: image, tumor mask or brain mask. No other module decides by names.

A cohort may declare the roles in `cohort.yaml`, a file beside its cases:

    images: ["*_flair.nii.gz", "*_t1.nii.gz"]    # patterns of names, or of paths in the cohort
    masks: ["*_tumor.nii.gz"]
    brain_masks: ["*_brain.nii.gz"]
    labels: {1: core, 2: edema}                  # what the masks hold besides 0
    scheme: brats-2024-ped                       # or the name of a public data set's labels (see `label_schemes`)
    outlines: [GTV]                              # which outlines of radiotherapy (RTSTRUCT) are the mask
    skip_incomplete: true                        # leave out cases that lack a sequence
    fill_missing: true                           # or read a sequence that a case lacks as 0
    resample_to: flair                           # channel onto whose grid the other images of a case are resampled
    each_case_is_a_person: true                  # names that differ only in a day or visit are different persons
    visits: ["_1", "_2"]                         # ends of cases' names, or patterns of them, that are not the patient
    mask_source: automated                       # kind of masks, if a data set has several (see `layouts`)

If `cohort.yaml` has no patterns for a role, it is guessed from the names of files; if it has, other files are
skipped.
"""

import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from glioflow.data.formats.paired_folders import is_in_masks
from glioflow.data.sequences import is_channel_name
from glioflow.errors import UserError, one_line
from glioflow.label_schemes import scheme_named
from glioflow.strict_yaml import parse_yaml
from glioflow.text_files import read_text
from glioflow.validation import path_of, rule_of

Role = Literal["image", "mask", "brain_mask"]

DECLARED = "cohort.yaml"
_ENDING = r"\.(?:tiff?|png|nii|nii\.gz|mha|nrrd)$"
_MARK = r"(?:masks?|(?:d|prob)?segs?|segm|segmentations?|labels?|labelmaps?)"
# Words that by themselves mean a tumor mask, which must never be used as an image.
_TUMOR = rf"(?:tumou?rs?[_ -]?{_MARK}|lesions?|tumou?rs?|gtv|gt|ground[_-]?truth|truth|roi|annotations?)"
# Words for masks of something other than tumor: the brain and its parts, the head, the valid part of an image.
_BRAIN = (
    r"(?:brain|nobrain|(?:hd[_-]?)?bet|synthstrip|skull|skull[_-]?strip(?:ped)?|icv|tiv|intracranial|cavity|eyes?"
    r"|vessels?|head|scalp|face|foreground|background|valid|parenchyma|tissues?|wm|gm|csf|(?:white|gr[ae]y)[_-]?matter|ventricles?|hippocamp(?:us|i)|cerebell(?:um|ar)|thalam(?:us|i)|brain[_-]?stem)"
)
_ATLAS = r"(?:aseg|aparc(?:[._+-]?[a-z0-9]+)*|wmparc|ribbon)"
MASK_NAME = re.compile(rf"(?:^|[_. -])(?:{_MARK}|{_TUMOR}){_ENDING}|\.seg\.nrrd$", re.IGNORECASE)
# Words after `seg` or `mask` describe the mask, as in `p1_seg_manual`; images are named by sequence or number.
MARKED_NAME = re.compile(rf"(?:^|[_. -]){_MARK}[_. -](.*){_ENDING}", re.IGNORECASE)
BRAIN_NAME = re.compile(
    rf"(?:^|[_-])(?:{_BRAIN}[_-]?{_MARK}|{_MARK}[_-]{_BRAIN}|{_ATLAS}){_ENDING}",
    re.IGNORECASE,
)


class FileRoles(BaseModel):
    """The declarations of a cohort about its files; by default there are none.

    Attributes:
        images: Patterns of image files.
        masks: Patterns of tumor masks.
        brain_masks: Patterns of brain masks.
        labels: Name of each label value.
        scheme: Name of a label scheme, in place of `labels`.
        outlines: Names of the outlines in DICOM's RTSTRUCT files that form the mask, as labels 1, 2 and so on.
        skip_incomplete: Whether to skip cases that lack a sequence.
        fill_missing: Whether a sequence that a case lacks is read as 0.
        resample_to: Channel onto whose grid the others are resampled; in volumes, DICOM and lists.
        mask_threshold: Value of a blurred mask above which a pixel is tumor; only in copies of the LGG set.
        each_case_is_a_person: Whether every case is a different person, even if names seem to state visits.
        visits: Patterns of the ends of cases' names that are not part of the person's name, such as `_scan*`.
        mask_source: Kind of masks to use if a data set has several; `any` uses the first that a case has.
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
    fill_missing: bool = False
    each_case_is_a_person: bool = False
    visits: tuple[str, ...] = ()
    resample_to: str | None = None
    mask_threshold: int | None = Field(default=None, ge=0)
    _root: Path | None = PrivateAttr(default=None)

    def below(self, root: Path) -> "FileRoles":
        """Return the same roles for the files below `root`, ignoring the names of folders above it."""
        same = self.model_copy()
        same._root = root
        return same

    @property
    def has_patterns(self) -> bool:
        """Whether any role is declared."""
        return bool(self.images or self.masks or self.brain_masks)

    @property
    def declares_persons(self) -> bool:
        """Whether names alone do not decide which cases are of one person."""
        return bool(self.each_case_is_a_person or self.visits)

    @property
    def of_persons(self) -> "FileRoles":
        """The declarations about persons alone, for formats in which names do not decide the role of a file."""
        return FileRoles(each_case_is_a_person=self.each_case_is_a_person, visits=self.visits)

    def declares(self, file: Path) -> bool:
        """Return whether the role of a file is declared rather than guessed."""
        return self._declared(file) is not None

    def of(self, file: Path) -> Role | None:
        """Return the role of a file; None if it is skipped."""
        if (declared := self._declared(file)) is not None:
            return declared[0]
        guessed = guess_role(file, self._root)
        return None if self._patterns[guessed] else guessed

    def case_of(self, file: Path) -> str | None:
        """Return the part of a file's name that the star of a declared `*<ending>` matches; None if none matches."""
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
INCOMPLETE = (
    "complete it, or leave such cases out with `skip_incomplete: true`, or read what is missing as 0 with "
    f"`fill_missing: true`, in a file {DECLARED} beside the cases"
)


def note_left_out(left_out: Sequence[str]) -> tuple[str, ...]:
    """Return the sentence that names the skipped cases, if there are any."""
    return (f"cases left out, since they lack a sequence: {'; '.join(left_out)}",) if left_out else ()


def note_unread_masks(unread: Iterable[Path]) -> tuple[str, ...]:
    """Return a sentence for a cohort without masks that names files which may be some, if there are any."""
    names = sorted(file.name for file in unread if guess_role(file) == "mask")
    how = f"name them with `masks: [NAME]` in a file {DECLARED} beside the cases"
    shown = f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
    return (f"no case has a mask, and files that may be masks are not read: {shown}; {how}",) if names else ()


def guess_role(file: Path, root: Path | None = None) -> Role:
    """Return the role of a file by its name: brain mask (`x_brain_mask`), tumor mask (`x_mask`, `x-seg`) or image.

    In a folder such as `masks` below `root`, with `images` beside it, all files are masks.
    """
    if BRAIN_NAME.search(file.name):
        return "brain_mask"
    return "mask" if MASK_NAME.search(file.name) or _is_marked(file.name) or is_in_masks(file, root) else "image"


def _is_marked(name: str) -> bool:
    """Return whether a name contains a mask word before its end, and no sequence or channel number."""
    marked = MARKED_NAME.search(name)
    pieces = re.split(r"[_. -]", name[: name.lower().rfind(".nii")] if ".nii" in name.lower() else Path(name).stem)
    return marked is not None and not re.search(r"\d{4,}$", marked[1]) and not any(map(is_channel_name, pieces))


@lru_cache(maxsize=4096)  # each file of an upload is asked about several times
def is_mask_name(name: str) -> bool:
    """Return whether a file is a mask, of tumor or brain, by its name, such as `x_mask.tif` or `x-seg.nii.gz`."""
    return guess_role(Path(name)) != "image"


def case_name(name: str) -> str:
    """Return a mask's name without its mask words, e.g. `a` for `a_mask.nii.gz` and `a_brain_mask.nii.gz`."""
    bare = MASK_NAME.sub("", BRAIN_NAME.sub("", name))
    return (MARKED_NAME.sub("", bare) if _is_marked(bare) else bare).strip("_. -")


def declared_in(path: Path) -> list[Path]:
    """Return the `cohort.yaml` that applies to a folder, in it or in the one above, if any.

    Raises:
        UserError: If it is not a file, but a folder or a broken link.
    """
    there = [file for folder in (path, path.parent) if os.path.lexists(file := folder / DECLARED)][:1]
    if there and not there[0].is_file():
        raise UserError(f"{DECLARED} must be a file that can be read", there[0], hint="mend or remove it")
    return there


def roles_for(format: str, path: Path, *uses: str) -> FileRoles:
    """Read `cohort.yaml` for a format that uses only these keys; see `read_roles`.

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
    try:
        values = parse_yaml(read_text(file)) or {}
        roles = FileRoles.model_validate(values)
    except UserError as error:
        raise error.replace(file=file) from None
    except ValidationError as error:
        raise _explained(error, values).replace(file=file) from None
    except OSError as error:
        raise UserError(f"{DECLARED} must be a file that can be read", one_line(error, most=120), file=file) from None
    if roles.scheme is not None:
        try:
            scheme_named(roles.scheme)
        except UserError as error:
            raise error.replace(file=file) from None
        if roles.labels:
            raise UserError("labels and scheme must not both be given", f"{len(roles.labels)} labels", file=file)
    if roles.skip_incomplete and roles.fill_missing:
        raise UserError("skip_incomplete and fill_missing must not both be true", file=file, hint="remove one of them")
    if roles.each_case_is_a_person and roles.visits:
        rule = "each_case_is_a_person and visits must not both be given"
        raise UserError(rule, file=file, hint="remove one of them")
    if wrong := [label for label in roles.labels if not 0 < label < 256]:
        raise UserError("labels must be numbers from 1 to 255", wrong, file=file)
    return roles


def _explained(error: ValidationError, values: object) -> UserError:
    """Return the first error about the `values` in a `cohort.yaml`, with the key and its valid values."""
    first = error.errors()[0]
    key = ".".join(map(str, path_of(first, values)))
    if not key:
        return UserError(f"{DECLARED} must have keys, such as images and masks", repr(values)[:120])
    if first["type"] == "extra_forbidden":
        return UserError(f"unknown key {key!r}", key, sorted(FileRoles.model_fields))
    return UserError(f"{key} {rule_of(first) or first['msg']}", repr(first["input"])[:120])

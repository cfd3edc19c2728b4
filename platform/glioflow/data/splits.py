"""Splits of a cohort into training, validation and test patients, never by slice."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glioflow.data.case import unknown_case
from glioflow.data.formats.listed import folds_in
from glioflow.errors import UserError
from glioflow.quantities import count
from glioflow.text_files import read_text


class Splittable(Protocol):
    """Data about a case for a split."""

    @property
    def id(self) -> str:
        """Name of the case."""

    @property
    def patient(self) -> str:
        """The person."""

    @property
    def institution(self) -> str | None:
        """Where it came from."""

    @property
    def volume_px(self) -> int | None:
        """Tumor volume, for the strata; None for a case without a mask, which is left out of the split."""


Count = Annotated[int, Field(ge=0)]


class SplitSettings(BaseModel):
    """How an experiment splits its patients.

    Attributes:
        method: `kfold`: `folds` parts, part `fold` for testing, the next one for validation, the rest for training.
            `counts`: `counts` patients for train, val and test. `file`: the lists in `file`.
        folds: Number of parts.
        fold: The part that is used for testing.
        counts: Number of patients in train, val and test for the method `counts`.
        file: JSON with `train`, `val`, `test` (cases or patients); or nnU-Net's `splits_final.json` or a datalist of
            MONAI with folds, of which `fold` is the one that validates. A relative one is also searched under
            GLIOFLOW_DATA.
        seed: Seed of the random order of patients.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    method: Literal["kfold", "counts", "file"] = "kfold"
    folds: int = Field(default=5, ge=2)
    fold: int = Field(default=0, ge=0)
    counts: tuple[Count, Count, Count] | None = None
    file: str | None = None
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> "SplitSettings":
        if self.method == "file" and not self.file:
            raise ValueError("split.method 'file' needs split.file")
        if self.method == "counts" and not self.counts:
            raise ValueError("split.method 'counts' needs split.counts, e.g. [250, 74, 45]")
        if self.method == "kfold" and self.fold >= self.folds:
            raise UserError(f"split.fold must be below split.folds ({self.folds})", self.fold)
        return self


class Split(BaseModel):
    """Case ids by part, as every run records them. No patient is in two parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Short hash of the three lists; the order within a list does not matter."""
        parts = {part: sorted(getattr(self, part)) for part in ("train", "val", "test")}
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def test_digest(self) -> str:
        """Short hash of the test list alone; two models are compared on it only if they share it."""
        return hashlib.blake2b(json.dumps(sorted(self.test)).encode(), digest_size=8).hexdigest()


def make_split(cases: Sequence[Splittable], settings: SplitSettings, *, folder: Path | None = None) -> Split:
    """Split the labeled cases of a cohort.

    Args:
        cases: All cases of the cohort.
        settings: Method, sizes and seed.
        folder: Folder in which a relative `settings.file` is searched besides the current folder.

    Returns:
        The split; equal cases and settings give equal splits.

    Raises:
        UserError: If there are too few patients, a listed case does not exist, or a patient would be in two parts.
    """
    if settings.method == "file":
        split = by_case(read_split(settings, folder), cases)
        check_split(split, cases)
        return split
    if settings.method == "counts":
        assert settings.counts is not None
        return _by_counts(cases, settings.counts, settings.seed)
    parts = deal(cases, settings.folds, seed=settings.seed)
    test = settings.fold
    if settings.folds == 2:
        raise UserError("split.folds must be at least 3: train, val and test need one each", settings.folds)
    val = (test + 1) % settings.folds
    train = [case for k, part in enumerate(parts) if k not in (test, val) for case in part]
    split = Split(train=tuple(sorted(train)), val=tuple(sorted(parts[val])), test=tuple(sorted(parts[test])))
    check_split(split, cases)
    return split


def by_case(split: Split, cases: Sequence[Splittable]) -> Split:
    """Return a split with each patient in its lists replaced by the patient's labeled cases."""
    ids, patients = {case.id for case in cases}, _by_patient(cases)

    def expanded(names: tuple[str, ...]) -> tuple[str, ...]:
        people = {name for name in names if name not in ids and name in patients}
        return tuple(
            case_id for name in names for case_id in ([c.id for c in patients[name]] if name in people else [name])
        )

    return Split(train=expanded(split.train), val=expanded(split.val), test=expanded(split.test))


def _folds_of_datalist(path: Path) -> list[dict[str, list[str]]]:
    """Return the folds of MONAI's datalist, each with its training and validation cases."""
    fold_of = folds_in(path)
    return [
        {"train": [case for case in fold_of if fold_of[case] != k], "val": [c for c in fold_of if fold_of[c] == k]}
        for k in range(max(fold_of.values(), default=-1) + 1)
    ]


def _chosen(folds: list[dict[str, list[str]]], fold: int | None, path: Path) -> dict[str, list[str]]:
    if not folds:
        raise UserError("a split file must list cases or folds", "none", file=path)
    if fold is None or fold >= len(folds):
        rule = f"the file lists {count(len(folds), 'fold')}, and one of them must be chosen"
        hint = f"give split.fold, 0 to {len(folds) - 1}" if len(folds) > 1 else "give split.fold=0"
        raise UserError(rule, fold, hint=hint, file=path)
    return folds[fold]


def check_patients(number: int, folds: int) -> None:
    """Refuse more folds than patients; raises `UserError` with both numbers."""
    if number < folds:
        rule = f"{folds} folds need at least {folds} labeled patients"
        raise UserError(rule, count(number, "patient"), hint="use fewer folds")


def deal(cases: Sequence[Splittable], folds: int, *, seed: int) -> list[list[str]]:
    """Distribute patients over `folds` parts, stratified by institution and tercile of tumor volume.

    Returns:
        Case ids of each part; parts differ by at most one patient.

    Raises:
        UserError: If there are fewer patients than folds.
    """
    patients = _by_patient(cases)
    check_patients(len(patients), folds)
    order = _stratified_order(patients, seed)
    parts: list[list[str]] = [[] for _ in range(folds)]
    for index, patient in enumerate(order):
        parts[index % folds].extend(case.id for case in patients[patient])
    return [sorted(part) for part in parts]


def check_split(split: Split, cases: Iterable[Splittable]) -> None:
    """Refuse a split that names unknown or unlabeled cases, leaves train or val empty, or divides a patient."""
    known = {case.id: case for case in cases}
    patient = {case_id: case.patient for case_id, case in known.items()}
    seen: dict[str, str] = {}
    for part in ("train", "val", "test"):
        ids = getattr(split, part)
        if not ids and part != "test":
            raise UserError(f"the split must have at least one case in {part!r}")
        times = Counter(ids)
        for case_id in ids:
            if case_id not in patient:
                error = unknown_case(case_id, "the cohort", patient)
                raise error.replace(rule=f"{error.rule}, but the split lists it in {part!r}")
            if known[case_id].volume_px is None:
                raise UserError("the split must list cases that have a mask", f"{case_id} in {part!r}")
            if times[case_id] > 1:
                raise UserError("the split must list a case once", f"{case_id} {times[case_id]} times in {part!r}")
            if seen.setdefault(patient[case_id], part) != part:
                where = f"{patient[case_id]} in {seen[patient[case_id]]!r} and {part!r}"
                raise UserError("all cases of a patient must be in one part of the split", where)


def _by_patient(cases: Sequence[Splittable]) -> dict[str, list[Splittable]]:
    """Group the labeled cases by patient, in a fixed order."""
    patients: dict[str, list[Splittable]] = {}
    for case in sorted((case for case in cases if case.volume_px is not None), key=lambda case: case.id):
        patients.setdefault(case.patient, []).append(case)
    return patients


def _stratified_order(patients: dict[str, list[Splittable]], seed: int) -> list[str]:
    """Order patients so that assigning them to the parts in turn spreads every stratum over all parts."""
    volumes = {name: sum(case.volume_px or 0 for case in cases) for name, cases in patients.items()}
    low, high = np.quantile(list(volumes.values()), [1 / 3, 2 / 3])
    shuffled = list(patients)
    np.random.default_rng(seed).shuffle(shuffled)

    def stratum(name: str) -> tuple[str, int]:
        return patients[name][0].institution or "", int(volumes[name] > low) + int(volumes[name] > high)

    return sorted(shuffled, key=stratum)


def _by_counts(cases: Sequence[Splittable], counts: tuple[int, int, int], seed: int) -> Split:
    patients = _by_patient(cases)
    if sum(counts) > len(patients):
        rule = f"split.counts {list(counts)} need {sum(counts)} labeled patients"
        raise UserError(rule, count(len(patients), "patient"), hint="give smaller ones with -o split.counts=...")
    order = _stratified_order(patients, seed)
    # Every part, and the rest, gets evenly spaced patients of the stratified order, so that each holds every stratum.
    sizes = [*counts, len(order) - sum(counts)]
    parts: list[list[str]] = [[] for _ in sizes]
    for done, patient in enumerate(order, start=1):
        late = [
            size * done / len(order) - len(part) if len(part) < size else -np.inf
            for part, size in zip(parts, sizes, strict=True)
        ]
        parts[int(np.argmax(late))].append(patient)
    train, val, test = (tuple(sorted(case.id for name in part for case in patients[name])) for part in parts[:3])
    split = Split(train=train, val=val, test=test)
    check_split(split, cases)
    return split


def read_split(settings: SplitSettings, folder: Path | None) -> Split:
    """Read a split file from the current folder or `folder`, without checking that it splits by patient.

    Raises:
        UserError: If the file does not exist or is not a split, or it lists folds and no setting chooses one.
    """
    name, fold = str(settings.file), settings.fold if "fold" in settings.model_fields_set else None
    paths = [Path(name)] + ([folder / name] if folder is not None and not Path(name).is_absolute() else [])
    for path in paths:
        if path.is_file():
            try:
                value = json.loads(read_text(path, wide=True), object_pairs_hook=_without_doubles)
                folds = value if isinstance(value, list) else None
                if isinstance(value, dict) and "training" in value:
                    folds = _folds_of_datalist(path)
                return Split.model_validate(value if folds is None else _chosen(folds, fold, path))
            except UserError as error:
                raise error.replace(file=path) from None
            except (ValidationError, ValueError, RecursionError):
                raise UserError("a split file must be JSON with the lists train, val and test", file=path) from None
    looked = " or ".join(str(path) for path in paths)
    hint = "give the path of a split file, or let GlioFlow split with -o split.method=kfold"
    raise UserError("split.file does not exist", looked, hint=hint)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a JSON text; raises `UserError` for a repeated key, of which JSON would keep the last."""
    counts = Counter(key for key, _ in pairs)
    if twice := [key for key, times in counts.items() if times > 1]:
        raise UserError(f"the key {twice[0]!r} stands twice", hint="remove one")
    return dict(pairs)

"""Who trains, who chooses, who judges: splits by patient, never by slice."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glioflow.errors import UserError


class Splittable(Protocol):
    """What a split needs to know of a case."""

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
        """Tumor volume, for the strata; None of a case without a mask, which is not dealt."""


Count = Annotated[int, Field(ge=0)]


class SplitSettings(BaseModel):
    """How an experiment deals its patients.

    Attributes:
        method: `kfold`: `folds` parts, part `fold` tests, the next one validates, the rest trains. `counts`: `counts`
            patients to train, val, test. `file`: the lists in `file`.
        folds: Number of parts.
        fold: Which part tests.
        counts: Patients to train, val and test for `counts`.
        file: JSON with `train`, `val`, `test` (case ids); a relative name is also looked for under GLIOFLOW_DATA.
        seed: Of the dealing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    method: Literal["kfold", "counts", "file"] = "kfold"
    folds: int = Field(default=5, ge=2)
    fold: int = Field(default=0, ge=0)
    counts: tuple[Count, Count, Count] | None = None
    file: str | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _complete(self) -> "SplitSettings":
        if self.method == "file" and not self.file:
            raise ValueError("split.method 'file' needs split.file")
        if self.method == "counts" and not self.counts:
            raise ValueError("split.method 'counts' needs split.counts, e.g. [250, 74, 45]")
        if self.method == "kfold" and self.fold >= self.folds:
            raise ValueError(f"split.fold must be below split.folds ({self.folds}), got {self.fold}")
        return self


class Split(BaseModel):
    """Case ids by part; part of every run's record. No patient is in two parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Short hash of the three lists, the same for the same split in any order."""
        said = {part: sorted(getattr(self, part)) for part in ("train", "val", "test")}
        return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def test_digest(self) -> str:
        """Short hash of the test list alone: what two models must share to be compared on it."""
        return hashlib.blake2b(json.dumps(sorted(self.test)).encode(), digest_size=8).hexdigest()


def make_split(cases: Sequence[Splittable], settings: SplitSettings, *, folder: Path | None = None) -> Split:
    """Deal the labeled cases of a cohort.

    Args:
        cases: All of them.
        settings: How.
        folder: Where a relative `settings.file` is looked for besides the current folder.

    Returns:
        The split; the same cases and settings give the same split.

    Raises:
        UserError: If there are too few patients, a listed case does not exist, or a patient would be in two parts.
    """
    if settings.method == "file":
        split = read_split(str(settings.file), folder)
        check_split(split, cases)
        return split
    if settings.method == "counts":
        assert settings.counts is not None
        return _by_counts(cases, settings.counts, settings.seed)
    parts = deal(cases, settings.folds, seed=settings.seed)
    test = settings.fold
    if settings.folds == 2:
        raise UserError("a kfold split needs 3 folds for train, val and test", settings.folds)
    val = (test + 1) % settings.folds
    train = [case for k, part in enumerate(parts) if k not in (test, val) for case in part]
    split = Split(train=tuple(sorted(train)), val=tuple(sorted(parts[val])), test=tuple(sorted(parts[test])))
    check_split(split, cases)
    return split


def deal(cases: Sequence[Splittable], folds: int, *, seed: int) -> list[list[str]]:
    """Deal patients to `folds` parts, stratified by institution and tercile of tumor volume.

    Returns:
        Case ids of each part; parts differ by at most one patient.

    Raises:
        UserError: If there are fewer patients than folds.
    """
    patients = _by_patient(cases)
    if len(patients) < folds:
        raise UserError(f"{folds} folds need at least as many labeled patients", f"{len(patients)} patients")
    order = _stratified_order(patients, seed)
    parts: list[list[str]] = [[] for _ in range(folds)]
    for index, patient in enumerate(order):
        parts[index % folds].extend(case.id for case in patients[patient])
    return [sorted(part) for part in parts]


def check_split(split: Split, cases: Iterable[Splittable]) -> None:
    """Refuse a split that names unknown cases, leaves train or val empty, or puts one patient into two parts."""
    patient = {case.id: case.patient for case in cases}
    seen: dict[str, str] = {}
    for part in ("train", "val", "test"):
        ids = getattr(split, part)
        if not ids and part != "test":
            raise UserError(f"a split has at least one case in {part!r}", "none")
        for case_id in ids:
            if case_id not in patient:
                raise UserError(f"the split's {part} lists a case that the cohort does not have", case_id)
            if (listed := getattr(split, part).count(case_id)) > 1:
                raise UserError("a split lists a case once", f"{case_id}, {listed} times in {part}")
            if seen.setdefault(patient[case_id], part) != part:
                raise UserError(
                    "a patient belongs to one part of a split",
                    f"{patient[case_id]} in {seen[patient[case_id]]} and {part}",
                )


def _by_patient(cases: Sequence[Splittable]) -> dict[str, list[Splittable]]:
    """Group the labeled cases by patient, in a fixed order."""
    patients: dict[str, list[Splittable]] = {}
    for case in sorted((case for case in cases if case.volume_px is not None), key=lambda case: case.id):
        patients.setdefault(case.patient, []).append(case)
    return patients


def _stratified_order(patients: dict[str, list[Splittable]], seed: int) -> list[str]:
    """Order patients so that dealing them out in turn spreads every stratum over all parts."""
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
        raise UserError(
            f"split.counts {list(counts)} need {sum(counts)} labeled patients; give others with -o split.counts=...",
            f"{len(patients)} patients",
        )
    order = _stratified_order(patients, seed)
    # Every part, those left over too, takes evenly spaced places of the stratified order: each stratum is in each.
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


def read_split(name: str, folder: Path | None) -> Split:
    """Read a split file as it is, looked for here and in `folder`; whether it splits by patient is not asked.

    Raises:
        UserError: If it is not there or no split.
    """
    places = [Path(name)] + ([folder / name] if folder is not None and not Path(name).is_absolute() else [])
    for path in places:
        if path.is_file():
            try:
                return Split.model_validate_json(path.read_bytes())
            except (ValidationError, ValueError):
                raise UserError("a split file is JSON with the lists train, val and test", path) from None
    raise UserError("split.file must exist", " or ".join(str(path) for path in places))

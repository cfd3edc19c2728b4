"""The leakage audit: what would make a score better than it is, found in data and splits."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from glioflow.data.splits import Split, Splittable

_PARTS = ("train", "val", "test")


class Leak(BaseModel):
    """One leak: the rule that is broken, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rule: str
    value: str


def find_split_leaks(split: Split, cases: Iterable[Splittable]) -> list[Leak]:
    """Return every patient who is in more than one part of the split, also under different case names.

    Args:
        split: As used.
        cases: All cases of the cohort.
    """
    patients = {case.id: case.patient for case in cases}
    parts: dict[str, set[str]] = {}
    for part in _PARTS:
        for case_id in getattr(split, part):
            parts.setdefault(patients.get(case_id, case_id), set()).add(part)
    return [
        Leak(rule="one patient in two parts of the split", value=f"{patient}: {', '.join(sorted(found))}")
        for patient, found in sorted(parts.items())
        if len(found) > 1
    ]


def find_image_leaks(split: Split, digests: Sequence[tuple[str, str]]) -> list[Leak]:
    """Return every image that appears in two parts of the split.

    Args:
        split: As used.
        digests: (case id, digest of one slice's prepared pixels) for all slices that show anything.
    """
    part_of = {case_id: part for part in _PARTS for case_id in getattr(split, part)}
    seen: dict[str, tuple[str, str]] = {}
    leaks: dict[tuple[str, str], Leak] = {}
    for case_id, digest in digests:
        part = part_of.get(case_id)
        if part is None:
            continue
        other_part, other_id = seen.setdefault(digest, (part, case_id))
        if other_part != part:
            leaks[(other_id, case_id)] = Leak(
                rule="the same image in two parts of the split", value=f"{other_id} ({other_part}), {case_id} ({part})"
            )
    return list(leaks.values())

"""Placement of each corrected study: its patient, whether that patient trains, and the last mask."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from glioflow.audit.leaks import PARTS, person_of
from glioflow.data.splits import Split, Splittable

# Returns the key that replaces a person's name in corrections.
KeyOf = Callable[[str], str]


@dataclass(frozen=True)
class Correction:
    """An accepted correction.

    Attributes:
        id: Id of the accepted case.
        key: Key of its person.
        digest: Digest of its files.
        study: The case that has its images: one of the cohort, or the first of the corrections of this study.
        images: Digest of its images.
        known: Whether the cohort has this very mask.
    """

    id: str
    key: str
    digest: str
    study: str
    images: str | None = None
    known: bool = False


@dataclass(frozen=True)
class UsedCorrection:
    """A correction used for training: its id, the case with its mask, that case's part of the split, and digests."""

    id: str
    case: str
    patient: str
    part: str
    replaces_mask: bool
    images: str | None
    digest: str


@dataclass(frozen=True)
class UnusedCorrection:
    """A correction not used for training, with the reason."""

    id: str
    why: str


@dataclass(frozen=True)
class Placement:
    """The decision about each correction, and the cohort's split with those that are used."""

    used: list[UsedCorrection]
    unused: list[UnusedCorrection]
    split: Split


def place_corrections(
    corrections: Sequence[Correction],
    entries: Sequence[Splittable],
    split: Split,
    *,
    learned: Collection[str],
    key_of: KeyOf,
) -> Placement:
    """Decide about every correction.

    A person of the cohort stays in their part of the split. Corrections of persons outside `learned` are left out:
    a mask that was drawn over a model's answer would favor models.

    Args:
        corrections: Corrections of one study in the order of their acceptance; the last one counts.
        entries: The cases of the cohort.
        split: The cohort's split.
        learned: Parts of the split used to fit weights.
        key_of: Returns the key of a person by a name.
    """
    part_of = {case_id: part for part in PARTS for case_id in getattr(split, part)}
    patients = {person_of(entry.patient): entry.patient for entry in reversed(entries)}
    parts = {person_of(entry.patient): part_of[entry.id] for entry in entries if entry.id in part_of}
    ids, people = {entry.id for entry in entries}, _people(corrections, entries, key_of)
    newest = {correction.study: correction.id for correction in corrections}
    used: list[UsedCorrection] = []
    unused: list[UnusedCorrection] = []
    for each in corrections:
        group = people[each.key]
        persons, keys = sorted(group & patients.keys()), sorted(group - patients.keys())
        part = parts.get(persons[0], "train") if persons else "train"
        if len(persons) > 1:
            names = ", ".join(patients[person] for person in persons)
            why = f"its patient matches several patients of the cohort: {names}"
        elif part not in learned:
            why = f"its patient is in {part!r}, and validation and test patients never train"
        elif newest[each.study] != each.id:
            why = f"{newest[each.study]} is a later correction of the same study"
        elif each.known:
            why = "the cohort has this mask already"
        else:
            patient, replaces = patients[persons[0]] if persons else keys[0], each.study in ids
            case = each.study if replaces else each.id
            used.append(UsedCorrection(each.id, case, patient, part, replaces, each.images, each.digest))
            continue
        unused.append(UnusedCorrection(each.id, why))
    added = {part: {each.case for each in used if each.part == part} for part in PARTS}
    lists = {part: tuple(sorted({*getattr(split, part), *added[part]})) for part in PARTS}
    return Placement(used, unused, Split(**lists))


def _people(
    corrections: Iterable[Correction], entries: Iterable[Splittable], key_of: KeyOf
) -> dict[str, frozenset[str]]:
    """Return, for each key and person, all keys and persons that are the same person.

    A key belongs to a person if it is the key of their name, or if a correction with it has that person's images; two
    keys belong to one person if two corrections have the same images.
    """
    groups: dict[str, set[str]] = {}

    def unite(one: str, other: str) -> None:
        both = groups.get(one, {one}) | groups.get(other, {other})
        groups.update(dict.fromkeys(both, both))

    person_with = {entry.id: person_of(entry.patient) for entry in entries}
    for entry in entries:
        names = {entry.patient, entry.id, person_of(entry.patient)}
        for name in names | {name.replace("_", "-") for name in names}:  # both spellings of TCGA ids at TCIA
            unite(person_with[entry.id], key_of(name))
    first_key: dict[str, str] = {}
    for correction in corrections:
        first = person_with.get(correction.study) or first_key.setdefault(correction.study, correction.key)
        unite(first, correction.key)
    return {name: frozenset(group) for name, group in groups.items()}

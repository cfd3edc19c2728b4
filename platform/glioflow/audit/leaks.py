"""Patients in two parts of a split, and settings chosen on test patients. Knows ids and settings, no image."""

import re
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from glioflow.data.splits import Split, Splittable

PARTS = ("train", "val", "test")
# The same person is `TCGA_CS_4941_19960909` on LGG and `TCGA-CS-4941` in the tables beside BraTS.
_TCGA = re.compile(r"TCGA[-_](\w{2})[-_](\w{4})(?![^\W_])", re.IGNORECASE)
# Persons of other public sets, whose names stand in those tables, too.
_OTHERS = re.compile(r"(?:UPENN-GBM-\d{5}|UCSF-PDGM-\d+|C3[LN]-\d{5})(?!\d)", re.IGNORECASE)


class Leak(BaseModel):
    """One leak: what is wrong, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rule: str
    value: str


def person_of(name: str) -> str:
    """Return the person behind a name of a case or patient: the id of a public set in it, or else the name."""
    if match := _TCGA.search(name):
        return f"TCGA_{match[1]}_{match[2]}".upper()
    return match[0].upper() if (match := _OTHERS.search(name)) else name


def is_person(name: str) -> bool:
    """Return whether a name has the id of a person of a public set."""
    return bool(_TCGA.search(name) or _OTHERS.search(name))


def find_split_leaks(
    split: Split, cases: Iterable[Splittable], *, aliases: Mapping[str, str] | None = None
) -> list[Leak]:
    """Return every person in more than one part of the split, under different case names too.

    Args:
        split: The split to check.
        cases: All cases of the cohort.
        aliases: Other names of patients, e.g. TCGA ids by BraTS ids.
    """
    people = {case.id: _person(case.patient, aliases) for case in cases}
    first: dict[str, str] = {}
    shared: dict[str, set[str]] = {}
    for part in PARTS:
        for case_id in getattr(split, part):
            person = people[case_id] if case_id in people else person_of(case_id)
            if (earlier := first.setdefault(person, part)) != part:
                shared.setdefault(person, {earlier}).add(part)
    return [
        Leak(rule="one patient in two parts of the split", value=f"{person}: {', '.join(sorted(names))}")
        for person, names in sorted(shared.items())
    ]


def find_shared_patients(
    split: Split,
    cases: Iterable[Splittable],
    others: Iterable[Splittable],
    *,
    name: str,
    aliases: Mapping[str, str] | None = None,
) -> list[Leak]:
    """Return every test patient who is also in another cohort that was used for training.

    Args:
        split: The split to check.
        cases: All cases of the split's cohort.
        others: All cases of the other cohort.
        name: Name of the other cohort.
        aliases: Other names of patients of both.
    """
    people = {case.id: _person(case.patient, aliases) for case in cases}
    known = {_person(case.patient, aliases): case.id for case in others}
    tested = sorted({people[case_id] if case_id in people else person_of(case_id) for case_id in split.test})
    rule = "a test patient is in another cohort that was used for training"
    return [Leak(rule=rule, value=f"{person}: {known[person]} of {name}") for person in tested if person in known]


def find_selection_leaks(
    split: Split, search: Mapping[str, object], searched: Mapping[str, Split] | None = None
) -> list[Leak]:
    """Return where settings are chosen on test patients.

    Args:
        split: The split to check.
        search: The experiment's search settings, which must not name a metric of the test patients.
        searched: The split of each earlier search of this experiment, by the search's name.
    """
    leaks = [
        Leak(rule="a search chooses on test patients", value=f"search.{key}: {value}")
        for key, value in _texts(search)
        if value.startswith("test/")
    ]
    for name, earlier in sorted((searched or {}).items()):
        both = sorted(set(split.test) & {*earlier.train, *earlier.val})
        if both:
            rule = "an earlier search chose settings on patients who are test patients now"
            leaks.append(Leak(rule=rule, value=f"{name}: {', '.join(both[:5])}{' ...' if len(both) > 5 else ''}"))
    return leaks


def _person(patient: str, aliases: Mapping[str, str] | None) -> str:
    return person_of((aliases or {}).get(patient, patient))


def _texts(value: object, path: str = "") -> Iterable[tuple[str, str]]:
    """Yield every text in nested settings with its dotted key."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key, path)
            yield from _texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, path)

"""People on both sides of a split, and choices made on those who judge. Knows ids and settings, no image."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from glioflow.data.splits import Split, Splittable

PARTS = ("train", "val", "test")
# The same person is `TCGA_CS_4941_19960909` on LGG and `TCGA-CS-4941` in the tables beside BraTS.
_TCGA = re.compile(r"TCGA[-_](\w{2})[-_](\w{4})(?![^\W_])", re.IGNORECASE)


class Leak(BaseModel):
    """One leak: the rule that is broken, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rule: str
    value: str


def person_of(name: str) -> str:
    """Return who a case or patient is: the TCGA id inside the name, where there is one, else the name."""
    found = _TCGA.search(name)
    return f"TCGA_{found[1]}_{found[2]}".upper() if found else name


def find_split_leaks(
    split: Split, cases: Iterable[Splittable], *, aliases: Mapping[str, str] | None = None
) -> list[Leak]:
    """Return every person who is in more than one part of the split, also under different case names.

    Args:
        split: As used.
        cases: All cases of the cohort.
        aliases: Further names of patients, e.g. TCGA ids by BraTS's.
    """
    people = {case.id: _person(case.patient, aliases) for case in cases}
    parts: dict[str, set[str]] = {}
    for part in PARTS:
        for case_id in getattr(split, part):
            parts.setdefault(people.get(case_id, person_of(case_id)), set()).add(part)
    return [
        Leak(rule="one patient in two parts of the split", value=f"{person}: {', '.join(sorted(found))}")
        for person, found in sorted(parts.items())
        if len(found) > 1
    ]


def find_shared_patients(
    split: Split,
    cases: Iterable[Splittable],
    others: Iterable[Splittable],
    *,
    name: str,
    aliases: Mapping[str, str] | None = None,
) -> list[Leak]:
    """Return every test person who is also in another cohort that something was learned from.

    Args:
        split: As used.
        cases: All cases of the split's cohort.
        others: All cases of the other cohort.
        name: Of the other cohort.
        aliases: Further names of patients of both.
    """
    people = {case.id: _person(case.patient, aliases) for case in cases}
    known = {_person(case.patient, aliases): case.id for case in others}
    judged = sorted({people.get(case_id, person_of(case_id)) for case_id in split.test})
    rule = "a test patient is in another cohort that was learned from"
    return [Leak(rule=rule, value=f"{person}: {known[person]} of {name}") for person in judged if person in known]


def find_selection_leaks(
    split: Split, search: Mapping[str, Any], searched: Mapping[str, Split] | None = None
) -> list[Leak]:
    """Return where something is chosen on the patients who judge.

    Args:
        split: As used.
        search: The experiment's search settings; a metric of the test patients must not be among them.
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
            rule = "an earlier search chose the settings on patients who now test"
            leaks.append(Leak(rule=rule, value=f"{name}: {', '.join(both[:5])}{' ...' if len(both) > 5 else ''}"))
    return leaks


def _person(patient: str, aliases: Mapping[str, str] | None) -> str:
    return person_of((aliases or {}).get(patient, patient))


def _texts(value: Any, path: str = "") -> Iterable[tuple[str, str]]:
    """Give every text in nested settings with its dotted key."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key, path)
            yield from _texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, path)

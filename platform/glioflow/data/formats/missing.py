"""Cases that lack a sequence: left out, or read with 0 in its place, where `cohort.yaml` says so."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from glioflow.data.case import Case
from glioflow.data.formats.file_roles import FileRoles, note_left_out
from glioflow.data.formats.record import CaseFiles
from glioflow.errors import UserError


def filled(reader: Callable[..., Case], channels: Sequence[str]) -> Callable[..., Case]:
    """Return a reader of cases that have all of these channels, in this order: those that a case lacks hold 0."""
    return partial(_read, reader=reader, channels=tuple(channels))


def _read(case: CaseFiles, *, reader: Callable[..., Case], channels: tuple[str, ...], **options: Any) -> Case:
    read = reader(case, **options)
    lacking = [name for name in channels if name not in read.channels]
    if not lacking:
        return read
    names = (*channels, *(name for name in read.channels if name not in channels))
    image = np.zeros((*read.shape, len(names)), read.image.dtype)
    for k, name in enumerate(read.channels):
        image[..., names.index(name)] = read.image[..., k]
    warnings = (*read.warnings, f"{' and '.join(lacking)} missing: read as 0")
    return replace(read, image=image, channels=names, missing=tuple(lacking), warnings=warnings)


def note_filled(lacking: Sequence[str]) -> tuple[str, ...]:
    """Return the sentence that names the cases with filled channels, if there are any."""
    return (f"sequences that are missing hold 0: {'; '.join(lacking)}",) if lacking else ()


def settle_incomplete(
    cases: Sequence[CaseFiles],
    reader: Callable[..., Case],
    channels_of: Callable[[CaseFiles], Sequence[str] | None],
    *,
    roles: FileRoles,
    skip_incomplete: bool,
    wanted: Sequence[str] = (),
) -> tuple[tuple[CaseFiles, ...], Callable[..., Case], tuple[str, ...]]:
    """Leave out the cases that lack a sequence, or fill it, if `roles` or `skip_incomplete` ask for it.

    Args:
        cases: All cases.
        reader: Function that reads one of them.
        channels_of: The channels of a case before it is read; None if only reading can tell, and refuses the case.
        roles: Declarations of the cohort.
        skip_incomplete: Whether to leave cases out even if the cohort does not declare it.
        wanted: The channels of a complete case; empty takes those that most cases have.

    Returns:
        The cases, their reader, and the sentence that names the cases that lack a sequence.

    Raises:
        UserError: If every case would be left out.
    """
    skips = skip_incomplete or roles.skip_incomplete
    if not (skips or roles.fill_missing):
        return tuple(cases), reader, ()
    named = {case.id: channels for case in cases if (channels := channels_of(case)) is not None}
    complete = wanted or _usual(named.values())
    lacking = {
        case: gone for case, names in named.items() if (gone := [each for each in complete if each not in names])
    }
    shown = [f"{case} (no {', '.join(gone)})" for case, gone in lacking.items()]
    if not skips:
        return tuple(cases), filled(reader, complete), note_filled(shown)
    if len(lacking) == len(cases):
        rule, hint = "a case must have every sequence", "read what is missing as 0 with `fill_missing: true`"
        raise UserError(rule, f"none of {len(cases)} that has {', '.join(complete)}", hint=hint)
    return tuple(case for case in cases if case.id not in lacking), reader, note_left_out(shown)


def _usual(named: Iterable[Sequence[str]]) -> Sequence[str]:
    """Return the channels that most cases have, in the order of the first such case."""
    every: Collection[Sequence[str]] = list(named)
    most = Counter(map(frozenset, every)).most_common(1)
    return next((names for names in every if frozenset(names) == most[0][0]), ())

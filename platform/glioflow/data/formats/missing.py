"""Sequences that a case lacks, read as 0 where `cohort.yaml` has `fill_missing: true`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from glioflow.data.case import Case
from glioflow.data.formats.record import CaseFiles


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

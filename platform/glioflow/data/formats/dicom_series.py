"""The series of a DICOM study by their headers: descriptions, copied files, several acquisitions in one series."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from glioflow.data.sequences import Series
from glioflow.errors import UserError

Member = tuple[Path, Any]
# Tags that distinguish acquisitions of one series, in this order: echoes, repetitions, contrast phases.
_DIFFER = (
    *("EchoTime", "EchoNumbers", "AcquisitionNumber", "TemporalPositionIdentifier"),
    *("AcquisitionTime", "TriggerTime", "ContentTime", "ImageType"),
)
_NEAR_MM = 0.01
_NUMBER = re.compile(r" #\d+$")


def series_of(header: Any) -> Series:
    """Return the description of a series from the header of its first file."""

    def number(name: str) -> float | None:
        try:
            return float(header.get(name))
        except (TypeError, ValueError):
            return None

    def words(name: str) -> tuple[str, ...]:
        value = header.get(name) or ()
        return tuple(map(str, (value,) if isinstance(value, str) else value))

    return Series(
        description=str(header.get("SeriesDescription", "")),
        number=str(header.get("SeriesNumber") or ""),
        uid=str(header.get("SeriesInstanceUID", "")),
        inversion_ms=number("InversionTime"),
        echo_ms=number("EchoTime"),
        repetition_ms=number("RepetitionTime"),
        technique=words("ScanningSequence"),
        image_type=words("ImageType"),
        agent=str(header.get("ContrastBolusAgent") or ""),
    )


def drop_copies(members: Iterable[Member]) -> list[Member]:
    """Return the files of a series without copies of earlier ones, by SOPInstanceUID."""
    kept: dict[str, Member] = {}
    for file, header in members:
        kept.setdefault(str(header.get("SOPInstanceUID") or file), (file, header))
    return list(kept.values())


def split_acquisitions(members: Sequence[Member]) -> list[list[Member]]:
    """Return a series as its acquisitions, each with every position once; undivided if no header tag separates them.

    Several acquisitions are named by the description and #1, #2 and so on, so that the user can choose one.
    """
    if _most_at_one_position(members) < 2:
        return [list(members)]
    positions = sorted({str(_position(header)) for _, header in members})
    for keyword in _DIFFER:
        parts: dict[str, list[Member]] = {}
        for member in members:
            parts.setdefault(str(member[1].get(keyword, "")), []).append(member)
        if all(sorted(str(_position(header)) for _, header in part) == positions for part in parts.values()):
            return [_named(part, number) for number, (_, part) in enumerate(sorted(parts.items(), key=_order), start=1)]
    return [list(members)]


def check_positions(channels: Iterable[Sequence[Member]]) -> None:
    """Refuse a series with several slices at one position that no header tag distinguishes; raises `UserError`."""
    for members in channels:
        most = _most_at_one_position(members)
        if most > 1:
            name = str(members[0][1].get("SeriesDescription", "")) or members[0][0].parent.name
            raise UserError(
                f"the series {name!r} must have one slice at each position",
                f"{most} at one, which no header tells apart",
                file=members[0][0].parent,
                hint="keep the slices of one acquisition",
            )


def whole_series(descriptions: Iterable[str]) -> list[str]:
    """Return the unique descriptions of series, without the numbers that `split_acquisitions` added."""
    return list(dict.fromkeys(_NUMBER.sub("", each) for each in descriptions))


def _most_at_one_position(members: Sequence[Member]) -> int:
    positions = (_position(header) for _, header in members)
    return max(Counter(position for position in positions if position is not None).values(), default=1)


def _position(header: Any) -> tuple[int, ...] | None:
    """Return the position of a slice in hundredths of a millimeter; None if it is not stated."""
    try:
        return tuple(round(float(each) / _NEAR_MM) for each in header.ImagePositionPatient)
    except (AttributeError, TypeError, ValueError):
        return None


def _order(named: tuple[str, list[Member]]) -> tuple[float, str]:
    value, _ = named
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def _named(part: list[Member], number: int) -> list[Member]:
    for _, header in part:
        header.SeriesDescription = f"{header.get('SeriesDescription', '')} #{number}".strip()
    return part

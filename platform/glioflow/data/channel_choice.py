"""The channels of a study: which series or file is which, by its description or by the user's choice."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from glioflow.data.sequences import OTHER, SEQUENCE_BY_NAME, SEQUENCES, UNKNOWN, Series, name_series, sequence_of
from glioflow.errors import UserError, option

NONE_CHOSEN: Mapping[str, str] = MappingProxyType({})


def parse_choices(texts: Iterable[str]) -> dict[str, str]:
    """Return the series by channel in texts such as `flair=AX T2 FLAIR`; raises `UserError` for any other text."""
    chosen: dict[str, str] = {}
    for text in texts:
        channel, equals, name = text.partition("=")
        sequence = SEQUENCE_BY_NAME.get(channel.strip().lower())
        if not equals or not name.strip() or sequence is None:
            raise UserError("a channel must be given as NAME=SERIES", text, [sequence.name for sequence in SEQUENCES])
        if sequence in chosen:
            raise UserError("a channel must be given once", text)
        chosen[sequence] = name.strip()
    return chosen


def choose_channels(
    all_series: Sequence[Series], chosen: Mapping[str, str] = NONE_CHOSEN
) -> tuple[list[str | None], list[tuple[str, str | None]]]:
    """Return the channel of each series of an examination, and the description of each skipped series.

    With it is the sequence for which another series was chosen; None if it is no sequence that is read.

    Args:
        all_series: Series in the order of their numbers.
        chosen: Series by channel, from `parse_choices`; other series of that sequence are skipped.

    Raises:
        UserError: If a chosen series is missing, one may be two sequences, or two are one sequence.
    """
    names: dict[int, str | None] = {**_picked(all_series, chosen)}
    rest = [index for index in range(len(all_series)) if index not in names]
    names_by_index = dict(zip(rest, name_series([all_series[index] for index in rest], known=chosen), strict=True))
    real = bool(names) or any(name not in (OTHER, UNKNOWN) for name in names_by_index.values())
    for index, name in names_by_index.items():
        plain = UNKNOWN if name == OTHER and not real else name
        names[index] = None if plain == OTHER or plain in chosen else plain
    _check_single(all_series, names)
    unknown = [index for index in sorted(names) if names[index] == UNKNOWN]
    for count, index in enumerate(unknown[1:], start=2):
        names[index] = f"{UNKNOWN}{count}"
    left = [
        (all_series[index].description, name if (name := names_by_index[index]) in chosen else None)
        for index in sorted(names)
        if names[index] is None
    ]
    return [names[index] for index in range(len(all_series))], left


def rename_chosen(named: Sequence[Series], chosen: Mapping[str, str]) -> list[str | None]:
    """Return the channel of each image by its file's name: the sequence that the user chose it for, or its own name.

    None means that the image is skipped because another was chosen for its sequence.

    Raises:
        UserError: If a chosen image is missing.
    """
    picked = _picked(named, chosen)
    own = [None if sequence_of(each.description) in chosen else each.description for each in named]
    return [picked.get(index, name) for index, name in enumerate(own)]


def check_once(channels: Mapping[str, str]) -> None:
    """Refuse two channels that are one sequence under two names, such as `t1` and `t1n`; raises `UserError`.

    Args:
        channels: The name of its file, by channel.
    """
    same: dict[str, list[str]] = {}
    for channel in channels:
        same.setdefault(sequence_of(channel), []).append(channel)
    for sequence, names in same.items():
        if len(names) > 1:
            file = channels[names[0]]
            pattern = f"*{file[max(file.lower().rfind(names[0]), 0) :]}"
            one = f"say which with {option('channel', f'{sequence}=FILE')}"
            hint = (
                f'{one}, or which files to read, such as `images: ["{pattern}", ...]`, in cohort.yaml beside the cases'
            )
            rule = f"{len(names)} images of the case are {sequence}, and only one may be"
            raise UserError(rule, ", ".join(names), hint=hint)


def _picked(all_series: Sequence[Series], chosen: Mapping[str, str]) -> dict[int, str]:
    """Return the channel of each series that the user chose, by its index."""
    picked: dict[int, str] = {}
    for channel, wanted in chosen.items():
        matches = [index for index, series in enumerate(all_series) if series.is_called(wanted)]
        if len(matches) != 1:
            rule = (
                f"{option('channel')} must name one series of the study for {channel}"
                if not matches
                else f"{wanted!r} fits several series of the study"
            )
            shown = [series.description or series.number for series in all_series]
            raise UserError(rule, wanted, shown, hint="give its number" if matches else None)
        if matches[0] in picked:
            raise UserError(
                f"{option('channel')} must not give one series to two channels", f"{picked[matches[0]]} and {channel}"
            )
        picked[matches[0]] = channel
    return picked


def _check_single(all_series: Sequence[Series], names: Mapping[int, str | None]) -> None:
    for sequence in {name for name in names.values() if name not in (None, UNKNOWN)}:
        same = [all_series[index] for index in sorted(names) if names[index] == sequence]
        if len(same) > 1:
            shown = [
                each.description if len({s.description for s in same}) == len(same) else each.number for each in same
            ]
            rule = f"{len(same)} series of the study are {sequence}, and only one may be"
            raise UserError(
                rule, ", ".join(shown), shown, hint=f"say which with {option('channel', f'{sequence}=SERIES')}"
            )

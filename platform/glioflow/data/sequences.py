"""MR sequences: the table of their names, and the identification of a series' sequence. Reads no file."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from glioflow.data import series_words
from glioflow.errors import UserError, option

UNKNOWN = "series"
# A series known to be neither T1, T2 nor FLAIR: localizers, diffusion, perfusion, angiography and so on.
OTHER = "other"


@dataclass(frozen=True)
class MRSequence:
    """One MR sequence and all its names.

    Attributes:
        name: Its name in LGG, which is used to compare channels.
        brats: Its name as a channel of BraTS.
        brats_files: Endings of BraTS file names in all years, e.g. `t1` to 2021 and `t1n` from 2023.
        others: Further channel names in other cohorts and on scanners.
    """

    name: str
    brats: str
    brats_files: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Every channel name that means this sequence, in lower case."""
        return frozenset((self.name, self.brats, *self.brats_files, *self.others))


SEQUENCES = (
    MRSequence("pre", "t1", ("t1", "t1n"), ("t1w", "t1pre")),
    MRSequence("post", "t1ce", ("t1ce", "t1c"), ("t1gd", "t1post")),
    MRSequence("flair", "flair", ("flair", "t2f")),
    MRSequence("t2", "t2", ("t2", "t2w")),
)
BRATS_FILES = {ending: sequence.brats for sequence in SEQUENCES for ending in sequence.brats_files}

SEQUENCE_BY_NAME = {name: sequence.name for sequence in SEQUENCES for name in sequence.names}

_NO_AGENT = {"", "no", "none", "n", "na", "nil"}
_NO_VOLUME = re.compile(r"0+(?:[.,]0+)?(?: ?(?:ml|cc))?")


@dataclass(frozen=True)
class Series:
    """A scanner's description of one series of images.

    Attributes:
        description: SeriesDescription, as written by the site.
        inversion_ms: InversionTime; None if it is not stated.
        echo_ms: EchoTime.
        repetition_ms: RepetitionTime.
        technique: ScanningSequence, e.g. `("SE", "IR")`.
        image_type: ImageType.
        agent: ContrastBolusAgent, which every series of an examination may state.
        number: SeriesNumber, which the user may also give as the series' name.
        uid: SeriesInstanceUID, likewise.
    """

    description: str
    inversion_ms: float | None = None
    echo_ms: float | None = None
    repetition_ms: float | None = None
    technique: tuple[str, ...] = ()
    image_type: tuple[str, ...] = ()
    agent: str = ""
    number: str = ""
    uid: str = ""

    def is_called(self, name: str) -> bool:
        """Return whether the user's name for a series is its description, number or UID."""
        return name.strip().casefold() in {
            each.strip().casefold() for each in (self.description, self.number, self.uid)
        }

    @property
    def text(self) -> str:
        """The description in the form that `series_words` expects."""
        return series_words.plain(self.description)

    @property
    def has_agent(self) -> bool:
        """Whether the series names a contrast agent, not that there was none."""
        agent = series_words.plain(self.agent)
        is_none = re.sub(r"\W", "", agent) in _NO_AGENT or _NO_VOLUME.fullmatch(agent) is not None
        return not is_none and series_words.contrast(agent) != {"pre"}


def weighting(series: Series) -> str:
    """Return `t1`, `t2`, `flair`, `other` for a series that is none of these, or `UNKNOWN`.

    Scan parameters take precedence over words.
    """
    if _is_other(series):
        return OTHER
    return _measured(series) or series_words.weighting(series.text) or UNKNOWN


def name_series(all_series: Sequence[Series], *, known: Collection[str] = ()) -> list[str]:
    """Return the sequence of each series of one examination: a name in `SEQUENCES`, `OTHER` or `UNKNOWN`.

    Args:
        all_series: Series of the examination.
        known: Sequences whose series are already known.

    Raises:
        UserError: If it is unclear whether a T1-weighted series is before or after contrast.
    """
    names = [weighting(series) for series in all_series]
    t1 = [series for series, name in zip(all_series, names, strict=True) if name == "t1"]
    return [
        _contrast(series, t1, known) if name == "t1" else name for series, name in zip(all_series, names, strict=True)
    ]


def sequence_of_description(description: str) -> str:
    """Return the sequence that the words of a series description mean, or `UNKNOWN`.

    Raises:
        UserError: If they imply both before and after contrast.
    """
    if description.lower() in SEQUENCE_BY_NAME:
        return SEQUENCE_BY_NAME[description.lower()]
    (name,) = name_series([Series(description)])
    return UNKNOWN if name == OTHER else name


def _is_other(series: Series) -> bool:
    kinds = {kind.upper() for kind in series.image_type}
    if kinds & {"ADC", "DIFFUSION", "TRACEW", "FA", "P", "PHASE", "LOCALIZER", "SUBTRACTION", "PERFUSION"}:
        return True
    technique = {kind.upper() for kind in series.technique}
    # STIR, whatever it is called; gradient echoes are inverted for T1.
    short = "IR" in technique and "GR" not in technique and 80 <= (series.inversion_ms or 0.0) < 300
    star = "GR" in technique and "SE" not in technique and series_words.weighting(series.text) == "t2"  # T2*
    return short or star or "EP" in technique or series_words.is_other(series.text)


def _measured(series: Series) -> str | None:
    """Return the weighting that the times (in milliseconds) imply; None if they imply none."""
    inversion, echo = series.inversion_ms or 0.0, series.echo_ms
    if echo is None or echo <= 0:
        return "flair" if inversion >= 1500 else None
    if inversion >= 1500 and echo >= 60:
        return "flair"
    if 300 <= inversion < 1500 and echo < 40:
        return "t1"
    spin = "GR" not in {kind.upper() for kind in series.technique} and bool(series.technique)
    if spin and inversion < 300 and echo >= 60:
        return "t2"
    return "t1" if spin and inversion < 300 and echo < 40 and 0 < (series.repetition_ms or 0.0) <= 1000 else None


def _stated_phase(series: Series) -> str | None:
    """Return `pre` or `post` by the words; None if they imply neither; refuse words that imply both."""
    phases = series_words.contrast(series.text)
    if len(phases) > 1:
        raise _ambiguous(series)
    return next(iter(phases), None)


def _contrast(series: Series, t1: Sequence[Series], known: Collection[str]) -> str:
    """Identify a T1-weighted series by comparison with the others of its examination."""
    if {"pre", "post"} <= set(known):
        return "pre"  # which is skipped
    if (phase := _stated_phase(series)) is not None:
        return phase
    if not series.has_agent:
        if series_words.is_timed(series.text):
            raise _ambiguous(series)
        return "pre"
    others = [other for other in t1 if other is not series]
    if "pre" in known or any(
        _stated_phase(other) == "pre" or (_stated_phase(other) is None and not other.has_agent) for other in others
    ):
        return "post"
    if "post" in known or any(_stated_phase(other) == "post" for other in others):
        return "pre"
    raise _ambiguous(series)


def _ambiguous(series: Series) -> UserError:
    rule = "a T1-weighted series must be before or after contrast, and this one does not say which"
    either = " or ".join(option("channel", f"{name}=SERIES") for name in ("pre", "post"))
    hint = f"say which with {either}, by its description or number"
    return UserError(rule, repr(series.description), ["pre", "post"], hint=hint)


def is_channel_name(name: str) -> bool:
    """Return whether a name is exactly that of a channel in any of its spellings, such as `t1ce` or `FLAIR`."""
    return name.lower() in SEQUENCE_BY_NAME


def sequence_of(channel: str) -> str:
    """Return the sequence that a channel's name means, in any of its spellings; the name itself if unknown."""
    try:
        sequence = sequence_of_description(channel)
    except UserError:
        sequence = UNKNOWN
    return channel if sequence == UNKNOWN else sequence


def shown_channel(channels: Sequence[str]) -> int:
    """Return the index of the channel that pictures show: FLAIR, or the first if there is no FLAIR."""
    return channels.index("flair") if "flair" in channels else 0

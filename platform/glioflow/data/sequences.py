"""MR sequences: the one table of their names, in cohorts, file names and DICOM descriptions. Knows no file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN = "series"


@dataclass(frozen=True)
class MRSequence:
    """One MR sequence under all its names.

    Attributes:
        name: Its name in LGG, and the one under which two channels are compared.
        brats: Its name as a channel of BraTS.
        brats_files: How BraTS files end, in every generation, e.g. `t1` to 2021 and `t1n` from 2023.
        others: Further channel names, of other cohorts and of scanners.
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

_BY_NAME = {name: sequence.name for sequence in SEQUENCES for name in sequence.names}
_LGG_TO_BRATS = {sequence.name: sequence.brats for sequence in SEQUENCES}


@dataclass(frozen=True)
class _Clue:
    """What in a series description means a sequence: a part of its text and, where `words` lists any, one of them."""

    sequence: str
    part: str = ""
    words: frozenset[str] = frozenset()

    def fits(self, text: str, words: set[str]) -> bool:
        return self.part in text and (not self.words or bool(self.words & words))


# The first that fits decides.
_CLUES = (
    _Clue("flair", part="flair"),
    _Clue("post", part="t1c"),
    _Clue("post", part="t1", words=frozenset({"post", "gd", "gad", "ce", "c", "contrast", "postcontrast"})),
    _Clue("pre", part="t1"),
    _Clue("pre", words=frozenset({"pre", "precontrast"})),
    _Clue("t2", part="t2"),
    _Clue("post", words=frozenset({"post"})),
)


def sequence_of(channel: str) -> str:
    """Return the sequence that a channel's name means, in upper or lower case; the name itself where it means none."""
    return _BY_NAME.get(channel.lower(), channel)


def brats_name(channel: str) -> str:
    """Return LGG's name of a sequence as BraTS's, e.g. `post` as `t1ce`; any other name is returned as it is."""
    return _LGG_TO_BRATS.get(channel, channel)


def sequence_of_description(description: str) -> str:
    """Return the sequence that the description of a DICOM series means, or `UNKNOWN`."""
    text = description.lower()
    words = set(re.findall(r"[^\W_]+", text))
    return next((clue.sequence for clue in _CLUES if clue.fits(text, words)), UNKNOWN)


def shown_channel(channels: Sequence[str]) -> int:
    """Return the index of the channel that pictures show: FLAIR, or the first where there is no FLAIR."""
    return channels.index("flair") if "flair" in channels else 0

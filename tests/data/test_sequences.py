"""MR sequences: each old vocabulary gives what it gave."""

import itertools

import numpy as np
import pytest
from pydantic import TypeAdapter

from glioflow.data.case import Case
from glioflow.data.formats import brats
from glioflow.data.preprocessing.pipeline import Step, preprocess
from glioflow.data.sequences import (
    BRATS_FILES,
    SEQUENCES,
    UNKNOWN,
    brats_name,
    sequence_of,
    sequence_of_description,
    shown_channel,
)


def test_no_name_means_two_sequences():
    names = [name for sequence in SEQUENCES for name in sequence.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("sequence", "names"),
    [
        ("pre", ["pre", "t1", "t1n", "t1w", "t1pre", "T1"]),
        ("post", ["post", "t1ce", "t1gd", "t1c", "t1post", "T1Gd"]),
        ("flair", ["flair", "t2f", "FLAIR"]),
        ("t2", ["t2", "t2w"]),
    ],
)
def test_a_channel_is_known_by_every_name_of_its_sequence(sequence, names):
    assert {sequence_of(name) for name in names} == {sequence}


def test_a_channel_that_is_no_sequence_keeps_its_name():
    assert sequence_of("ADC") == "ADC"


@pytest.mark.parametrize(
    ("ending", "channel"),
    [
        *[("flair", "flair"), ("t1", "t1"), ("t1ce", "t1ce"), ("t2", "t2")],
        *[("t2f", "flair"), ("t1n", "t1"), ("t1c", "t1ce"), ("t2w", "t2")],
    ],
)
def test_brats_files_of_both_generations_are_channels(ending, channel):
    assert BRATS_FILES[ending] == channel
    assert set(BRATS_FILES.values()) == set(brats.CHANNELS)


def test_the_channels_step_takes_the_names_of_lgg_and_brats_for_each_other():
    image = np.arange(2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)
    case = Case("a", "a", image, None, ("pre", "flair", "post"), (1, 2))
    step = TypeAdapter(Step).validate_python({"step": "channels", "keep": ["t1ce", "flair", "t1"]})
    volume = preprocess(case, (step,))
    assert volume.channels == ("t1ce", "flair", "t1")
    np.testing.assert_array_equal(volume.image, image[..., ::-1])
    assert brats_name("t1n") == "t1n"


def described_before(description: str) -> str:
    """The rules for descriptions as `dicom.channel_of` had them."""
    text = description.lower()
    words = set("".join(letter if letter.isalnum() else " " for letter in text).split())
    if "flair" in text:
        return "flair"
    if "t1" in text and (words & {"post", "gd", "gad", "ce", "c", "contrast", "postcontrast"} or "t1c" in text):
        return "post"
    if "t1" in text or words & {"pre", "precontrast"}:
        return "pre"
    return "t2" if "t2" in text else "post" if "post" in words else "series"


PIECES = (
    "T1",
    "t2",
    "FLAIR",
    "post",
    "pre",
    "C",
    "ce",
    "t1c",
    "gd",
    "+GAD",
    "contrast",
    "precontrast",
    "ax",
    "tse²",
    "",
)


@pytest.mark.parametrize("separator", [" ", "_", "-", "", "ß"])
def test_descriptions_mean_what_they_meant(separator):
    for pieces in itertools.product(PIECES, repeat=3):
        description = separator.join(pieces)
        assert sequence_of_description(description) == described_before(description), description


@pytest.mark.parametrize(
    ("description", "sequence"),
    [("AX T1 POST GD", "post"), ("t2_tse_tra", "t2"), ("Sag T2 FLAIR", "flair"), ("localizer", UNKNOWN)],
)
def test_descriptions_of_scanners_are_known(description, sequence):
    assert sequence_of_description(description) == sequence


def test_pictures_show_flair_or_the_first_channel():
    assert (shown_channel(("pre", "flair")), shown_channel(("t2", "t1"))) == (1, 0)

"""MR sequences: their names in cohorts and files, and what a scanner's words and times mean."""

import numpy as np
import pytest
from dicom_series import write_series
from pydantic import TypeAdapter
from series_descriptions import ALL, CONFIRMED, descriptions

import glioflow as gf
from glioflow.data.case import Case
from glioflow.data.channel_choice import choose_channels, parse_choices
from glioflow.data.formats import brats
from glioflow.data.formats.study import read_study
from glioflow.data.preprocessing.pipeline import Channels, Step, preprocess
from glioflow.data.sequences import (
    BRATS_FILES,
    OTHER,
    SEQUENCES,
    UNKNOWN,
    Series,
    name_series,
    sequence_of,
    sequence_of_description,
    shown_channel,
)
from glioflow.errors import UserError
from glioflow.progress import quiet


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


def test_cm_is_an_agent_and_no_length_after_a_weighting():
    assert [sequence_of(name) for name in ("T1 CM", "AX T1 CM", "T1W CM", "T1 SE CM")] == ["post"] * 4
    assert [sequence_of(name) for name in ("T1 3 CM", "T1 COR 12 CM", "T2 CM")] == ["pre", "pre", "t2"]


def test_a_channel_may_be_named_as_a_site_names_it():
    assert [sequence_of(name) for name in ("ce-gd_T1w", "x_t1_post", "T1_KM")] == ["post"] * 3


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


@pytest.mark.parametrize(("sequence", "description"), ALL, ids=lambda text: text)
def test_a_description_of_a_scanner_means_its_sequence(sequence, description):
    assert sequence_of_description(description) == sequence


def test_the_table_is_large_and_says_nothing_twice():
    confirmed = [pair for table in CONFIRMED.values() for pair in descriptions(table)]
    assert len({text for _, text in ALL}) == len(ALL) > 500
    assert len(confirmed) > 300


@pytest.mark.parametrize(
    "description",
    [
        *("T1 PRE AND POST", "T1 W/O + W CONTRAST", "AX T1 W/WO", "T1 WWO", "T1 with and without", "T1 C-/C+"),
        *("T1 +/- C", "T1 +/-Gd", "AX T1 ± contrast", "t1_tse_tra_plus"),
        *("T1 with/without", "T1 pre post", "T1 mit und ohne KM", "T1 avec et sans gado", "T1 con e senza mdc"),
        *("T1 con y sin contraste", "T1 z/bez kontrastu", "T1 met en zonder contrast", "T1 nativ + KM"),
        *("T1 ohne/mit KM", "T1 o./m. KM", "T1 m/o KM"),
        *("T1 5min", "T1_MPRAGE 10 min", "T1 vibe 90sec", "t1 1.5 minutes"),
    ],
)
def test_a_description_that_says_both_or_a_time_that_may_follow_contrast_is_refused(description):
    with pytest.raises(UserError, match=r"before or after contrast.*choose one of: pre, post"):
        sequence_of_description(description)


@pytest.mark.parametrize(
    ("description", "sequence"),
    [
        *(("T1 5min post", "post"), ("T1 KM 10 min", "post"), ("T1 nativ 5min", "pre"), ("MOCO T1", "pre")),
        *(("T1 min TE", "pre"), ("FLAIR 5min", "flair"), ("T2 4min30", "t2")),
    ],
)
def test_a_time_beside_words_about_contrast_or_on_another_sequence_means_nothing(description, sequence):
    assert sequence_of_description(description) == sequence


def test_a_time_on_a_series_with_an_agent_beside_one_without_is_after_it():
    assert name_series([Series("T1"), Series("T1 5min", agent="Gadovist")]) == ["pre", "post"]


@pytest.mark.parametrize(
    ("facts", "sequence"),
    [
        ({"description": "AX HEAD", "inversion_ms": 2500, "echo_ms": 90}, "flair"),
        ({"description": "t2_tirm_tra", "inversion_ms": 2500, "echo_ms": 90, "technique": ("SE", "IR")}, "flair"),
        ({"description": "AX FLAIR", "inversion_ms": 860, "echo_ms": 10, "technique": ("SE", "IR")}, "pre"),
        ({"description": "brain tra", "echo_ms": 100, "technique": ("SE",)}, "t2"),
        ({"description": "brain tra", "echo_ms": 9, "repetition_ms": 500, "technique": ("SE",)}, "pre"),
        ({"description": "brain tra", "echo_ms": 9, "repetition_ms": 3000, "technique": ("SE",)}, UNKNOWN),
        ({"description": "AX T2", "echo_ms": 90, "technique": ("EP",)}, OTHER),
        ({"description": "t2_tirm", "inversion_ms": 160, "echo_ms": 60, "technique": ("SE", "IR")}, OTHER),
        ({"description": "AX T1", "inversion_ms": 250, "echo_ms": 4, "technique": ("GR", "IR")}, "pre"),
        ({"description": "AX T2", "echo_ms": 20, "repetition_ms": 600, "technique": ("GR",)}, OTHER),
        ({"description": "T1", "image_type": ("DERIVED", "PRIMARY", "ADC")}, OTHER),
        ({"description": "T1", "image_type": ("ORIGINAL", "PRIMARY", "P")}, OTHER),
    ],
)
def test_what_the_scanner_measured_with_comes_before_words(facts, sequence):
    assert name_series([Series(**facts)]) == [sequence]


@pytest.mark.parametrize(
    "none", ["No contrast", "w/o", "ohne KM", "0 ml", "0.0", "--", "N/A", "without", "non-contrast"]
)
def test_an_agent_that_was_not_given_is_none(none):
    assert name_series([Series("AX T1", agent=none)]) == ["pre"]
    assert name_series([Series("AX T1", agent=none), Series("AX T1 ", agent="Magnevist pre-filled")]) == ["pre", "post"]
    assert name_series([Series("SAG T1 PRE", agent=none), Series("AX T1", agent=none)]) == ["pre", "pre"]


def test_the_agent_tells_t1_from_t1_and_nothing_else():
    gd = {"agent": "Gadovist"}
    bare, with_agent = Series("AX T1"), Series("AX T1 ", **gd)
    assert name_series([bare, with_agent, Series("FLAIR", **gd), Series("T2", **gd)]) == ["pre", "post", "flair", "t2"]
    # On every series: words tell, and the T1 beside a T1 after contrast is the one before.
    assert name_series([Series("AX T1", **gd), Series("AX T1 POST", **gd)]) == ["pre", "post"]
    assert name_series([Series("AX T1", **gd), Series("AX T1 PRE", **gd)]) == ["post", "pre"]
    with pytest.raises(UserError, match="before or after contrast"):
        name_series([Series("AX T1", **gd), Series("T2", **gd)])


def test_two_series_of_one_sequence_are_refused_with_both_until_a_person_says_which():
    study = [Series("AX T2", number="3"), Series("COR T2", number="4"), Series("SAG T2", number="5"), Series("FLAIR")]
    with pytest.raises(UserError) as caught:
        choose_channels(study)
    assert "3 series of the study are t2" in str(caught.value)
    assert "AX T2, COR T2, SAG T2" in str(caught.value)
    assert 'channels=["t2=SERIES"]' in str(caught.value)
    for name in ("cor t2", "4"):
        assert choose_channels(study, parse_choices([f"T2={name}"])) == (
            [None, "t2", None, "flair"],
            [("AX T2", "t2"), ("SAG T2", "t2")],
        )


def test_a_series_of_no_sequence_is_left_out_beside_others_and_kept_alone():
    assert choose_channels([Series("LOCALIZER"), Series("FLAIR")]) == ([None, "flair"], [("LOCALIZER", None)])
    assert choose_channels([Series("ADC"), Series("DWI")]) == (["series", "series2"], [])


@pytest.mark.parametrize("text", ["flair", "flair=", "=3", "liver=3"])
def test_a_choice_that_says_nothing_is_refused(text):
    with pytest.raises(UserError, match=r"must be given as NAME=SERIES"):
        parse_choices([text])


def test_a_chosen_series_must_be_there():
    with pytest.raises(UserError, match=r"must name one series.*COR T2.*AX T2|must name one series.*AX T2"):
        choose_channels([Series("AX T2")], {"t2": "TRA T2"})


@pytest.fixture
def two_t2(tmp_path):
    """Return a DICOM study with a T1 FLAIR, two T2 and a localizer."""
    for number, text in enumerate(("AX T1 FLAIR", "AX T2", "COR T2", "LOCALIZER"), start=1):
        volume = np.full((4, 6, 8), 10 * number, np.uint16)
        volume[:, 2:4, 2:4] += np.arange(4, dtype=np.uint16)[:, None, None]
        write_series(tmp_path / "dicom" / "study" / str(number), volume, description=text, number=number)
    return tmp_path / "dicom"


def test_a_dicom_study_with_two_t2_is_read_once_a_person_says_which(two_t2):
    with pytest.raises(UserError, match="2 series of the study are t2"):
        read_study([two_t2 / "study"])
    case = read_study([two_t2 / "study"], channels={"t2": "COR T2"})
    assert case.channels == ("pre", "t2")
    assert case.image[0, 0, 0].tolist() == [10, 30]
    assert any("LOCALIZER" in warning for warning in case.warnings)


def test_check_and_prepare_take_the_choice(two_t2, tmp_path):
    assert "t2" in str(gf.check(two_t2, say=quiet).problems)
    assert gf.check(two_t2, channels=["t2=AX T2"], say=quiet).ok
    one = gf.prepare(two_t2, tmp_path / "one", channels=["t2=AX T2"], say=quiet)
    other = gf.prepare(two_t2, tmp_path / "other", channels=["t2=3"], say=quiet)
    assert one.fingerprint != other.fingerprint


def test_a_channel_is_kept_by_any_name_of_its_sequence_unless_two_have_it():
    def keep(channels, name):
        case = Case("a", "a", np.zeros((1, 4, 4, len(channels)), np.float32), None, channels, (1,))
        return preprocess(case, (Channels(keep=(name,)),)).channels

    assert keep(("T1_KM", "flair"), "t1ce") == ("t1ce",)
    assert keep(("ce-gd_t1w", "t1w"), "post") == ("post",)
    assert keep(("t1w", "t1_mprage"), "t1w") == ("t1w",)
    with pytest.raises(UserError, match=r"'t1' must be one channel.*t1w, t1_mprage"):
        keep(("t1w", "t1_mprage"), "t1")


def test_pictures_show_flair_or_the_first_channel():
    assert (shown_channel(("pre", "flair")), shown_channel(("t2", "t1"))) == (1, 0)

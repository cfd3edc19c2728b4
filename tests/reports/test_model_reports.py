"""What a reader of a model's report finds in it."""

import io

import numpy as np
import pytest
from PIL import Image

from glioflow.reports import evaluation_figures as draw
from glioflow.reports import figures
from glioflow.reports.evaluation_page import evaluation_page
from glioflow.reports.films import MAX_FRAMES, film
from glioflow.reports.numbers import duration, interval, number, percent, ranges, short
from glioflow.reports.tables import Table, tables_to_html


def volume(slices=40, size=64):
    rng = np.random.default_rng(0)
    image = np.zeros((slices, size, size), np.float32)
    image[:, 8:-8, 16:-16] = rng.uniform(0.4, 1, (slices, size - 16, size - 32))
    truth, found = np.zeros((2, *image.shape), bool)
    truth[10:20, 20:30, 20:30] = True
    found[12:24, 22:34, 22:34] = True
    return image, truth, found


def frames(png):
    picture = Image.open(io.BytesIO(png))
    out = []
    for index in range(picture.n_frames):
        picture.seek(index)
        out.append(np.asarray(picture.convert("RGB")).astype(int))
    return out


def test_a_film_shows_every_slice_of_a_short_case_and_some_of_a_long_one():
    assert len(frames(film(*(part[:7] for part in volume())))) == 7
    assert len(frames(film(*volume(slices=155)))) == MAX_FRAMES


def blue(frame):
    return ((frame[..., 2] > 200) & (frame[..., 0] < 100))[:-10].sum()


def red(frame):
    return ((frame[..., 0] > 200) & (frame[..., 2] < 120))[:-10].sum()


def test_truth_is_blue_and_prediction_red_where_they_are():
    shown = frames(film(*(part[5:25] for part in volume())))
    assert [blue(frame) > 0 for frame in shown] == [5 <= k < 15 for k in range(20)]
    assert [red(frame) > 0 for frame in shown] == [7 <= k < 19 for k in range(20)]


def test_a_film_is_cropped_to_the_head():
    height, width = frames(film(*volume()))[0].shape[:2]
    assert (height - 10) / width == pytest.approx(48 / 32, abs=0.02)


def test_a_black_case_without_tumor_is_a_film_too():
    assert len(frames(film(np.zeros((3, 16, 16)), *np.zeros((2, 3, 16, 16), bool)))) >= 1


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.12345, "0.123"), (12.34, "12.3"), (12345.6, "12,346"), ("train", "train")]
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def answer(**others):
    row = {"id": "TCGA_<b>", "institution": None, "dice": 0.0, "iou": 0.0, "hd95": 5.0, "nsd": 0.1, "uncertainty": 0.2}
    return {
        "per_patient": [row],
        **{"num_patients": 1, "dice_mean": 0.0, "dice_median": 0.0, "dice_ci95": [0.0, 0.0], "dice_num_empty_both": 1},
        **{"num_slices": 4, "num_tumor_slices": 0, "num_false_positive_slices": 1},
        "baselines": {"all_empty": {"dice_mean": 1.0, "dice_median": 1.0}},
        "calibration": {},
        "per_institution": {},
        **others,
    }


def test_warnings_come_first_and_names_are_escaped():
    page = evaluation_page(answer(warnings=["6 of 8 cases trained it"]), title="Some <model>", about="one patient")
    assert page.index("6 of 8 cases trained it.") < page.index(
        "Dice of each case" if "Dice of each" in page else "<h2>Dice"
    )
    assert "TCGA_&lt;b&gt;" in page
    assert "Some &lt;model&gt;" in page
    assert "For 1 patient a part of a case is empty in prediction and reference: it counts as 1" in page


def test_an_interval_that_is_not_available_says_why():
    few = {"level": 0.9, "unit": "px", "num_patients": 5, "available": False}
    page = evaluation_page(answer(volume_interval=few), title="t", about="a")
    assert "A 90% conformal interval for the volume is not available: 5 patients are too few." in page
    enough = {**few, "num_patients": 40, "available": True, "coverage": 0.91, "num_asked": 22}
    page = evaluation_page(answer(volume_interval=enough), title="t", about="a")
    assert "rests on 40 out-of-fold patients. It held 91% of 22 patients that it had not seen." in page


def test_every_figure_is_a_picture_even_of_next_to_nothing():
    made = [
        draw.reliability({"all": [(0.1, 0.0, 5)]}, title="t"),
        draw.by_group({"DU": [0.5]}, title="t"),
        draw.volumes([0.0], [0.0], unit="px"),
        draw.against([0.1], [0.2], title="t", xlabel="x", ylabel="y"),
        draw.paired([0.5], [0.4], names=("A", "B")),
        draw.intervals({"Dice": (0.1, -0.1, 0.3)}, title="t", xlabel="x"),
    ]
    assert all(png.startswith(b"\x89PNG") for png in made)


def test_the_distribution_of_dice_has_a_bar_for_each_patient_and_lines_at_mean_and_median(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "to_png", drawn.append)
    figures.distribution_of_dice({"a": 0.9, "b": 0.1, "c": 0.8}, title="t")
    axes = drawn[0].axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.1, 0.8, 0.9]
    assert {line.get_label(): line.get_ydata()[0] for line in axes.lines} == {
        "mean 0.600": pytest.approx(0.6),
        "median 0.800": pytest.approx(0.8),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (short(0.123456), "0.1235"),
        (short(0.123456, 2), "0.12"),
        (short(3), "3"),
        (short(None), "-"),
        (interval(0.75, 12.34), "0.750 to 12.3"),
        (interval(None, 1.0), "-"),
        (ranges([5, 6, 7, 9, 11, 12]), "5-7, 9, 11-12"),
        (ranges([]), "none"),
        (percent(0.0123), "1.2%"),
        (duration(0.0523, fine=True), "52 ms"),
        (duration(1.26, fine=True), "1.3 s"),
        (duration(119), "119 s"),
        (duration(600), "10 min"),
        (duration(9000), "2.5 h"),
    ],
)
def test_numbers_are_written_for_people(text, expected):
    assert text == expected


def test_a_table_without_rows_shows_its_title_alone():
    shown = tables_to_html([Table("12 numbers compared, all equal", ["what", "before"], []), Table("", ["what"], [])])
    assert "<p>12 numbers compared, all equal</p>" in shown
    assert "<table" not in shown
    assert "before" not in shown

"""The model card: says what it must, from the description alone, and lies in the registry."""

import pytest

from bundles import describe
from glioflow.bundle.card import card, card_html, subgroup_metrics

ROWS = [
    {"institution": institution, "dice": dice, "volume_reference_px": volume}
    for institution, dice, volume in (
        ("CS", 0.9, 500),
        ("CS", 0.8, 100),
        ("HT", 0.5, 20),
        ("HT", 0.7, 900),
        (None, 0.6, 50),
    )
] + [{"institution": "HT", "dice": None, "volume_reference_px": 3}]
METRICS = {
    **{"test/dice_mean": 0.812, "test/dice_ci95_low": 0.75, "test/dice_ci95_high": 0.86, "test/dice_median": 0.83},
    "val/dice_mean": 0.79,
}


@pytest.fixture
def description(tiny):
    return describe(tiny, metrics={**METRICS, **subgroup_metrics(ROWS)})


def test_subgroups_are_institutions_and_sizes_with_intervals():
    found = subgroup_metrics(ROWS)
    assert found["test/by/institution/CS/dice_mean"] == pytest.approx(0.85)
    assert found["test/by/institution/CS/num_cases"] == 2
    assert found["test/by/institution/unknown/dice_mean"] == pytest.approx(0.6)
    assert found["test/by/tumor size/small/dice_mean"] == pytest.approx(0.55)  # of 20 and 50 px
    assert found["test/by/tumor size/large/dice_mean"] == pytest.approx(0.7)  # of 900 px
    low, high = (found[f"test/by/institution/HT/dice_ci95_{end}"] for end in ("low", "high"))
    assert 0.5 <= low <= 0.6 <= high <= 0.7
    assert subgroup_metrics([]) == {}


def test_a_card_says_what_one_must_know(description):
    text = card(description, title="glioma version 3", survival="death01", lineage={"run": "abc", "commit": "def"})
    assert text.startswith("# glioma version 3\n")
    assert "Research software, not for clinical use" in text
    for heading in (
        *("Intended use", "Model", "Data and split", "Metrics", "Subgroups", "Limits", "Lineage", "Licenses"),
    ):
        assert f"\n## {heading}\n" in text
    for expected in ("| Dice | 0.812 | 0.750 to 0.860 | 0.83 | 0.79 |", "| institution: CS | 0.85 |", "| run | abc |"):
        assert expected in text
    for expected in ("buda-unet", "train 4, val 2, test 2", "Only 2 test patients", "death01", "CC BY-NC-SA"):
        assert expected in text


def test_what_a_card_says_cannot_break_out_of_its_page_or_table(tiny):
    nasty = "<script>alert(1)</script>|x\ny"
    description = describe(tiny, metrics=METRICS)
    assert "<script>" not in card_html(description, title=nasty, lineage={"run": nasty})
    assert "alert(1)</script>\\|x y |" in card(description, title="x", lineage={"run": nasty})


def test_a_card_of_a_model_without_test_patients_has_no_empty_tables(tiny):
    text = card(describe(tiny), title="x")
    assert "| metric |" not in text
    assert "| group |" not in text
    assert "0.812" in card_html(describe(tiny, metrics=METRICS), title="x")

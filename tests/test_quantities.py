"""Counts in messages."""

import pytest

from glioflow.quantities import count


@pytest.mark.parametrize(("number", "text"), [(0, "0 cases"), (1, "1 case"), (12345, "12345 cases")])
def test_a_noun_agrees_with_its_number(number, text):
    assert count(number, "case") == text

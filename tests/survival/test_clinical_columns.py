"""One clinical value in its column's type, from a file or a request."""

import pytest

from glioflow.errors import UserError
from glioflow.survival.clinical_columns import typed_value


@pytest.mark.parametrize("value", [-1, 121, "old", True, [50], "inf", {"years": 3}])
def test_a_request_cannot_bring_an_impossible_age(value):
    with pytest.raises(UserError, match="age_years must be a number from 0 to 120"):
        typed_value("age_years", value)


@pytest.mark.parametrize("value", [None, "", "NA", "n/a", float("nan")])
def test_a_missing_value_is_missing(value):
    assert typed_value("age_years", value) is None

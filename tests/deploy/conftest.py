"""Hosts for the tests of this folder."""

from collections.abc import Iterator

import pytest

from hosts import Hosts, made_hosts


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Give head, worker and client; skip where that is not permitted."""
    with made_hosts() as made:
        yield made

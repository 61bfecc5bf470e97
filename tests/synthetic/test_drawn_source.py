"""Named shares of drawn sources: names alone, lists, and a name that is not known."""

from __future__ import annotations

from typing import Any

import pytest

from sailvit.synthetic.drawn_source import named_shares

KNOWN = ("bar", "pie")


@pytest.mark.parametrize(
    ("given", "shares"),
    [("bar", {"bar": 1.0}), (["bar", "pie"], {"bar": 1.0, "pie": 1.0}), ({"pie": 3}, {"pie": 3})],
)
def test_names_stand_for_equal_shares(given: Any, shares: dict[str, float]):
    assert named_shares(given, KNOWN, "there is no") == shares


def test_the_nearest_name_is_offered():
    with pytest.raises(ValueError, match="there is no 'bra'; write bar"):
        named_shares("bra", KNOWN, "there is no")
    assert named_shares(7, KNOWN, "there is no") == 7

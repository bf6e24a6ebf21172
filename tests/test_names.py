"""The first name that nothing else has."""

import pytest

from revgraph.names import first_free


@pytest.mark.parametrize(
    ("taken", "start", "expected"),
    [
        ((), 1, "a"),
        (("b", "a_1"), 1, "a"),
        (("a",), 1, "a_1"),
        (("a", "a_1", "a_3"), 1, "a_2"),
        (("a", "a_0"), 0, "a_1"),
        (("a", "a_1"), 2, "a_2"),
    ],
)
def test_the_stem_itself_else_the_first_number_that_is_free(taken, start, expected):
    assert first_free("a", taken, start) == expected

"""The first name that nothing else has."""

import pytest

from revgraph.names import first_free, next_free


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


def test_the_next_free_name_is_the_first_and_nothing_is_tried_twice():
    class Taken(set):
        asked = 0

        def __contains__(self, name):
            self.asked += 1
            return super().__contains__(name)

    taken, tried = Taken({"a_1"}), dict[str, int]()
    for _ in range(100):
        taken.add(next_free("a", taken, tried))
    assert taken == {"a", *(f"a_{i}" for i in range(1, 101))}
    assert taken.asked < 400

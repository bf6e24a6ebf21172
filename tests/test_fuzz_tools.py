"""The fuzzers' targets, without the fuzzer: their seeds, and some changes of them, end as they should."""

import random
import sys
from pathlib import Path

import pytest

from revgraph.errors import RevgraphError

sys.path.append(str(Path(__file__).parents[1] / "tools" / "fuzz"))

import targets

pytestmark = pytest.mark.filterwarnings("ignore")  # what NumPy says of numbers that no network has


def outcome(target, data):
    try:
        return target.run(data)
    except RevgraphError as error:
        targets.check_line(error)
        return "refused"


@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds_are_not_all_refused(name):
    target = targets.TARGETS[name]
    seeds = list(target.seeds())[:8]
    assert {outcome(target, seed) for seed in seeds} - {"refused"}
    assert all(len(seed) <= target.largest for seed in seeds)


@pytest.mark.parametrize("name", [name for name, target in targets.TARGETS.items() if target.mutate])
def test_changes_differ_and_end_in_a_result_or_a_refusal(name):
    target, rng = targets.TARGETS[name], random.Random(1)
    data = seed = next(iter(target.seeds()))
    changed = 0
    for i in range(60):
        data = target.mutate(rng, data if i % 4 else seed)
        changed += data != seed
        outcome(target, data)
    assert changed > 40


def test_a_message_of_several_lines_would_be_found():
    error = RevgraphError("a", "b", "c")
    error.args = ("two\nlines",)
    with pytest.raises(AssertionError, match="not a clear line"):
        targets.check_line(error)

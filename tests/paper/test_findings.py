"""The figures that tools/paper/findings.py has of its own."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def findings() -> ModuleType:
    file = Path(__file__).parents[2] / "tools" / "paper" / "findings.py"
    spec = importlib.util.spec_from_file_location("findings", file)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_overlap_of_boxes(findings):
    assert findings.overlap((0, 4, 0, 4), (0, 4, 0, 4)) == 1
    assert findings.overlap((0, 4, 0, 4), (0, 4, 2, 6)) == pytest.approx(8 / 24)
    assert findings.overlap((0, 2, 0, 2), (2, 4, 0, 2)) == 0


def test_area_under_the_curve_counts_pairs(findings):
    rng = np.random.default_rng(0)
    values, inside = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in values[inside] for b in values[~inside]]
    assert findings.area_under_curve(values, inside) == pytest.approx(np.mean(pairs))
    assert findings.area_under_curve(values, np.ones(60, bool)) == 0.5

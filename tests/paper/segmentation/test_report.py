"""Means, differences and their intervals."""

import numpy as np
import pytest

from revgraph.paper.segmentation import report


def lines(**scores: list[tuple[str, float]]) -> list[dict[str, object]]:
    return [
        {"picture": str(i), "class": group, "method": method, "pp": v, "iou": v / 2, "empty": 0}
        for method, values in scores.items()
        for i, (group, v) in enumerate(values)
    ]


def test_means_are_of_pictures_or_of_classes():
    values = [0.2, 0.4, 0.9]
    (row,) = report.means(lines(A=[("", v) for v in values]))
    assert (row["pp"], row["iou"], row["iou_median"], row["pictures"]) == (50, 25, 20, 3)
    assert 20 <= row["pp_low"] < row["pp"] < row["pp_high"] <= 90
    (row,) = report.means(lines(A=list(zip("aab", values, strict=True))))
    assert row["pp"] == pytest.approx(100 * (0.3 + 0.9) / 2)
    assert row["iou_median"] == pytest.approx(20)  # of pictures, whatever their classes


def test_differences_are_of_the_same_pictures():
    rows = lines(A=[("", v) for v in (0.2, 0.4, 0.9)], B=[("", v) for v in (0.1, 0.3, 0.8)])
    (row,) = report.differences(rows)
    # paired, it is the same everywhere, though either method's own interval is wide
    assert (row["method"], row["less"]) == ("A", "B")
    assert (row["pp_low"], row["pp"], row["pp_high"]) == pytest.approx((10, 10, 10))


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """A standard error of about sigma / sqrt(n): 1.96 of them on either side."""
    from revgraph.paper import measure

    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = measure.interval(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert measure.interval(np.array([0.5])) == (0.5, 0.5)

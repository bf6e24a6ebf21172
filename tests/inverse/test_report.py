"""The numbers and the tables made of them."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import report

from revgraph import recipe
from revgraph.errors import RevgraphError


def test_the_scale_is_the_mean_distance_of_two_pictures() -> None:
    x = np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype(np.float32)
    pairs = [np.linalg.norm((a - b).astype(np.float64)) for i, a in enumerate(x) for b in x[:i]]
    assert evaluate.distance(x) == pytest.approx(np.mean(pairs))


def test_errors_are_norms_of_pictures_and_their_squares() -> None:
    difference = np.zeros((2, 3, 2, 2), np.float32)
    difference[0, 0, 0] = 3, 4
    difference[1, 1, 1] = 6, 8
    assert evaluate.measured(difference, scale=5.0) == {"l2": 1.5, "squared": 2.5}


ROWS = [
    report.row("", report.UNINFORMED, "", {"l2": 1.0, "squared": 1.0}),
    report.row("centre", "masks", "0", {"l2": 0.8, "squared": 0.64}, 0.9),
    report.row("centre", "masks", "1", {"l2": 0.6, "squared": 0.36}, 0.7),
    report.row("centre", "both", "0", {"l2": 0.4, "squared": 0.16}, 0.5),
    report.row("centre", "both", "1", {"l2": 0.45, "squared": 0.2}, 0.5),
]


def test_the_tables_have_means_and_deviations_over_the_seeds() -> None:
    lines = report.errors(ROWS).splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        "centre",
        "masks",
        "0.700 ± 0.141",
        "0.500 ± 0.198",
        "0.800 ± 0.141",
    ]
    assert "not even y" in lines[2]


def test_differences_are_taken_seed_by_seed_beside_the_papers() -> None:
    lines = {line.split("|")[1].strip(): line for line in report.differences(ROWS).splitlines()}
    cells = [cell.strip() for cell in lines["both against masks"].split("|")[1:-1]]
    assert cells[:3] == ["both against masks", "-46 %", "-37.5 ± 17.7 %"]  # -50 and -25
    assert [cell.strip() for cell in lines["both against switches"].split("|")[2:4]] == ["-15 %", ""]


@pytest.mark.parametrize("name", ["squeezenet1_1", "imagenet"])
def test_x_is_shown_as_the_picture_that_it_was_made_of(name: str) -> None:
    chosen = recipe.load(name)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    x = chosen.feed(report.Image.fromarray(pixels), (9, 9))[0]
    shown = np.asarray(report.image(chosen, x)).astype(int)
    assert np.abs(shown - pixels).max() <= 1  # float32 and rounding


def test_a_folder_without_inverses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RevgraphError, match=r"nothing to evaluate in .*no inverse was trained to its end"):
        evaluate.evaluate(tmp_path)

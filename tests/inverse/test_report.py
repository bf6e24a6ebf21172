"""The numbers and the tables made of them."""

from pathlib import Path

import evaluate
import mirror
import numpy as np
import pytest
import report
from report import Found, Trained

import revgraph
from revgraph import recipe
from revgraph.errors import RevgraphError


def test_the_scale_is_the_mean_distance_of_two_crops() -> None:
    x = np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype(np.float32)
    pairs = [np.linalg.norm((a - b).astype(np.float64)) for i, a in enumerate(x) for b in x[:i]]
    assert evaluate.distance(x) == pytest.approx(np.mean(pairs))


def test_errors_are_norms_crop_by_crop() -> None:
    difference = np.zeros((4, 3, 2, 2), np.float32)
    difference[0, 0, 0] = 3, 4
    difference[3, 1, 1] = 6, 8
    np.testing.assert_array_equal(evaluate.errors(difference, 5.0, apart=2), [[1, 0], [0, 2]])


def test_reconstructions_are_row_by_row_and_the_control_has_the_y_of_another_picture(network: Path) -> None:
    session = revgraph.Session(mirror.mirrored(network, "relu3", 23, "centre")["both"])
    x = np.random.default_rng(0).standard_normal((66, 3, 23, 23)).astype(np.float32)  # more than one run
    own, other = evaluate.reconstructions(session, x, apart=2)
    for i in (0, 1, 2, 63, 65):
        trace, foreign = session.forward(x[[i]]), session.forward(x[[i - 2]])
        np.testing.assert_allclose(own[[i]], session.reverse(trace, trace.y), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(other[[i]], session.reverse(trace, foreign.y), rtol=1e-4, atol=1e-4)
    assert np.abs(own - other).max() > 0.1


def test_bits_are_those_of_masks_and_of_windows(network: Path) -> None:
    pairs = mirror.mirrored(network, "relu3", 23, "centre")
    # conv1 is 4 x 24 x 22, pool1 12 x 11 of 3 x 3, conv2 8 x 12 x 11, pool2 6 x 5 of 2 x 2, conv3 6 x 6 x 5.
    masks, switches = 4 * 24 * 22 + 8 * 12 * 11 + 6 * 6 * 5, 4 * 12 * 11 * np.log2(9) + 8 * 6 * 5 * 2
    found = {kind: evaluate.bits(pair) for kind, pair in pairs.items()}
    expected = {"nothing": 0, "masks": masks, "switches": switches, "both": masks + switches}
    assert found == pytest.approx(expected)


def inverse(given: str, seed: int, *errors: float) -> Found:
    """Of two pictures with one crop each."""
    own = np.array(errors)[:, None]
    return Found(Trained("centre", given, seed, Path()), own, own + 0.1, 1234.5)


FOUND = [
    Found(report.UNINFORMED, np.ones((2, 1))),
    inverse("masks", 0, 0.8, 0.8),
    inverse("masks", 1, 0.4, 0.8),
    inverse("both", 0, 0.4, 0.4),
    inverse("both", 1, 0.6, 0.3),
]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_tables_have_means_and_deviations_over_the_seeds() -> None:
    lines = report.errors(FOUND).splitlines()
    assert cells(lines[2]) == ["", "not even y", "0", "1.000", "1.000", ""]
    expected = ["centre", "masks", "1,234", "0.700 ± 0.141", "0.520 ± 0.170", "0.800 ± 0.141"]
    assert cells(lines[3]) == expected


def test_differences_are_taken_seed_by_seed_beside_the_papers() -> None:
    lines = {cells(line)[0]: cells(line) for line in report.differences(FOUND).splitlines()}
    # -50 and -25 % for the seeds; of their mean -16.7 % for the first picture and -56.25 % for the second.
    assert lines["both against masks"][:3] == [
        "both against masks",
        "-46 %",
        "-37.5 ± 17.7 % (-56.2 to -16.7)",
    ]
    assert lines["both against switches"][1:3] == ["-15 %", ""]


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


def test_inverses_are_found_in_the_order_of_the_tables(tmp_path: Path) -> None:
    for name in ("learned/both.0", "centre/both.10", "centre/both.9", "centre/masks.9", "centre/both.9.old"):
        folder = tmp_path / "inverses" / name
        folder.mkdir(parents=True)
        (folder / "net.desalinet.reversed.onnx").touch()
    found = [(one.unpooling, one.given, one.seed) for one in report.trained_in(tmp_path)]
    expected = [("centre", "masks", 9), ("centre", "both", 9), ("centre", "both", 10), ("learned", "both", 0)]
    assert found == expected


def test_what_is_gone_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "inverses" / "centre" / "both.0"
    folder.mkdir(parents=True)
    (folder / "net.desalinet.reversed.onnx").touch()
    with pytest.raises(RevgraphError, match=r"cannot evaluate .*settings.json' is not there \(train.py"):
        evaluate.evaluate(tmp_path)

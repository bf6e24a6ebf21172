"""Seeds by quantile, and the graph cuts against brute force."""

import itertools

import cv2
import numpy as np
import pytest
from scenes import scene
from scipy.stats import multivariate_normal

from revgraph.paper.segmentation import cut
from revgraph.paper.segmentation.saliency import gaussian

rng = np.random.default_rng(0)


def test_seeds_are_quantiles():
    found = cut.seeds(rng.permutation(1000).reshape(20, 50).astype(float), 0.95)
    counts = {side: int((found == side).sum()) for side in (-2, -1, 0, 1, 2)}
    assert counts == {-2: 5, -1: 295, 0: 650, 1: 45, 2: 5}


def test_seeds_of_a_sparse_map_lie_where_it_is_not_zero():
    m = np.zeros((10, 100))
    m[3, :7] = np.arange(1, 8)
    found = cut.seeds(m)
    assert ((found > 0) == (m > 0)).all()
    assert ((found < 0) == (m == 0)).all()


@pytest.mark.parametrize("solver", ["grabcut", "boykov-jolly"])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_no_seeds_no_foreground(solver, value):
    sown = cut.seeds(np.full((8, 9), value))
    assert not sown.any()
    assert not cut.segment(np.zeros((8, 9, 3), np.uint8), sown, solver, 150.0).any()


@pytest.mark.parametrize("solver", ["grabcut", "boykov-jolly"])
def test_a_cut_finds_the_disc_from_a_few_seeds(solver):
    image, disc = scene(60, 80)
    blob = gaussian((60, 80))
    pixels = np.asarray(image)
    found = cut.segment(pixels, cut.seeds(blob, 0.95), solver, 150.0)
    assert (found == disc).mean() > 0.98
    assert (found == cut.segment(pixels, cut.seeds(blob, 0.95), solver, 150.0)).all()


@pytest.mark.parametrize("solver", ["grabcut", "boykov-jolly"])
@pytest.mark.parametrize("size", [(1, 2), (2, 2), (3, 5)])
def test_tiny_and_plain_pictures_are_cut_too(solver, size):
    found = cut.segment(np.full((*size, 3), 90, np.uint8), cut.seeds(rng.random(size)), solver, 150.0)
    assert found.shape == size


def test_the_cut_has_the_least_energy_of_all():
    """Against every one of the 4096 masks of 3 x 4 pixels, the energy summed as it is written."""
    for seed in range(4):
        draw = np.random.default_rng(seed)
        colours = draw.random((3, 4, 3))
        as_foreground, as_background = draw.random((2, 3, 4)) * 3
        neighbours = [
            ((r, c), other)
            for r, c in np.ndindex(3, 4)
            for other in ((r + 1, c), (r, c + 1))
            if other[0] < 3 and other[1] < 4
        ]
        squares = {pair: float(((colours[pair[0]] - colours[pair[1]]) ** 2).sum()) for pair in neighbours}
        mean = sum(squares.values()) / len(squares)

        def energy(mask, ends=(as_foreground, as_background), squares=squares, mean=mean):
            sides = float(np.where(mask, *ends).sum())
            return sides + sum(
                0.8 * np.exp(-square / (mean / 2)) for (a, b), square in squares.items() if mask[a] != mask[b]
            )

        masks = [np.array(bits).reshape(3, 4) for bits in itertools.product((False, True), repeat=12)]
        least = min(energy(mask) for mask in masks)
        found = cut._least(as_foreground, as_background, colours, 0.8)
        assert energy(found) <= least + 29 / (2 * cut.STEPS)  # each capacity is rounded once
        assert found.any()
        assert not found.all()


def test_colours_are_likely_by_their_mixture():
    colours = rng.random((6, 7, 3))
    chosen = np.zeros((6, 7), bool)
    chosen[2, 3] = True
    expected = 0.05 + 0.95 * multivariate_normal(colours[2, 3], 1e-4 * np.eye(3)).pdf(colours)
    np.testing.assert_allclose(cut._likelihood(colours, chosen), expected, rtol=1e-6)


def test_certain_seeds_keep_their_side():
    pixels = np.full((9, 9, 3), 100, np.uint8)
    sown = np.full((9, 9), -1, np.int8)
    sown[:2], sown[4, 4], sown[0, 0] = -2, 2, 1
    for smoothness in (0.0, 150.0, 5000.0):
        found = cut.boykov_jolly(pixels, sown, smoothness)
        assert found[4, 4]
        assert not found[1].any()


def test_the_largest_component_touches_across_corners():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    assert np.argwhere(cut.largest(mask)).tolist() == [[0, 0], [1, 1]]
    assert not cut.largest(np.zeros((3, 3), bool)).any()


def test_grabcut_starts_from_the_seeds_and_has_five_rounds(monkeypatch):
    seen = []
    monkeypatch.setattr(cv2, "grabCut", lambda *arguments: seen.append((arguments[1].copy(), *arguments[5:])))
    cut.grabcut(np.zeros((1, 5, 3), np.uint8), np.array([[-2, -1, 0, 1, 2]], np.int8))
    ((mask, rounds, mode),) = seen
    background, maybe, perhaps, foreground = cv2.GC_BGD, cv2.GC_PR_BGD, cv2.GC_PR_FGD, cv2.GC_FGD
    assert mask.tolist() == [[background, maybe, maybe, perhaps, foreground]]
    assert (rounds, mode) == (5, cv2.GC_INIT_WITH_MASK)


def test_certain_seeds_stay_with_grabcut():
    image, disc = scene(60, 80)
    sown = np.where(disc, 1, -1).astype(np.int8)
    sown[:4, :4], sown[27, 44] = 2, -2
    found = cut.grabcut(np.asarray(image), sown)
    assert found[:4, :4].all()
    assert not found[27, 44]
    assert not cut.segment(np.asarray(image), sown, "grabcut", 150.0)[
        :4, :4
    ].any()  # another component than the disc

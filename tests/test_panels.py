"""Pictures side by side."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from revgraph import panels, picture
from revgraph.errors import RevgraphError


def noise(size=(24, 16), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


def cell(canvas, text, size, at):
    """The picture in panel number `at`, where all are of one size."""
    left, top = text + at * (max(size[0], 8 * text) + text), text + 3 * text // 2
    return canvas.crop((left, top, left + size[0], top + size[1]))


def test_panels_hold_the_pictures_unchanged():
    images = [noise((250, 220), seed) for seed in range(3)]
    canvas = panels.row(images, ["a", "b", "c"], "caption")
    assert canvas.getpixel((0, 0)) == (255, 255, 255)
    for at, image in enumerate(images):
        assert cell(canvas, 14, image.size, at) == image


@pytest.mark.parametrize("side", [1, 32, 100, 191])
def test_small_pictures_grow_by_a_whole_factor(side):
    image = noise((side, side))
    factor = -(-192 // side)
    canvas = panels.row([image], ["a"], "")
    large = cell(canvas, max(14, side * factor // 18), (side * factor, side * factor), 0)
    assert large == image.resize(large.size, Image.Resampling.NEAREST)


@pytest.mark.parametrize("size", [(1, 1000), (3000, 1), (1600, 1200), (40, 30)])
def test_any_size(size):
    canvas = panels.row([noise(size)] * 2, ["a", "b"], "some words " * 300)
    assert size[1] < canvas.height < size[1] + 1000
    assert canvas.width < 2 * max(size[0], 2048) + 200


def test_text_stays_inside():
    canvas = panels.row(
        [Image.new("RGB", (200, 200), "white")], ["title " * 99], "caption " * 99 + "word" * 99
    )
    ink = np.argwhere(np.asarray(canvas.convert("L")) < 200)
    assert (ink.min(axis=0) >= 10).all()
    assert (ink.max(axis=0) < np.array(canvas.size[::-1]) - 10).all()


def test_captions_are_wrapped_then_shortened():
    font = ImageFont.load_default(14)
    assert panels._wrap("", font, 200) == []
    assert panels._wrap("short", font, 200) == ["short"]
    lines = panels._wrap("word " * 200, font, 200)
    assert len(lines) == 4
    assert lines[-1].endswith("...")
    assert all(font.getlength(line) <= 200 for line in lines)


def test_text_is_put_in_letters_that_the_font_has():
    assert panels.printable("caf\u00e9\n \u65e5 \ufb01n") == "cafe ? fin"


def test_explained():
    crop = noise((227, 227))
    x_hat = np.random.default_rng(0).standard_normal((3, 227, 227)).astype(np.float32)
    canvas = panels.explained(crop, x_hat, "caption")
    assert cell(canvas, 14, crop.size, 0) == crop
    assert cell(canvas, 14, crop.size, 1) == picture.image_of(picture.tone_map(x_hat))
    shown = np.asarray(cell(canvas, 14, crop.size, 2), float)[..., 0]
    norm = np.abs(x_hat).max(axis=0)
    np.testing.assert_allclose(shown, np.clip(norm / np.quantile(norm, 0.995), 0, 1) * 255, atol=0.51)


def test_a_zero_x_hat():
    canvas = panels.explained(noise((227, 227)), np.zeros((3, 227, 227)), "zero")
    assert cell(canvas, 14, (227, 227), 1).getextrema() == ((128, 128),) * 3
    assert cell(canvas, 14, (227, 227), 2).getextrema() == ((0, 0),) * 3


def test_a_single_point():
    x_hat = np.zeros((3, 227, 227))
    x_hat[1, 100, 50] = -2
    canvas = panels.explained(noise((227, 227)), x_hat, "one")
    assert cell(canvas, 14, (227, 227), 1).getpixel((50, 100)) == (128, 3, 128)
    assert cell(canvas, 14, (227, 227), 2).getpixel((50, 100)) == (255, 255, 255)


def test_two_x_hats_each_in_its_own_tones_and_their_difference_in_the_firsts():
    a, b = np.random.default_rng(0).standard_normal((2, 3, 200, 200)).astype(np.float32)
    b *= 5
    canvas = panels.compared(noise((200, 200)), (a, b), ("one", "other"), "")
    for at, shown in enumerate((picture.tone_map(a), picture.tone_map(b)), 1):
        assert cell(canvas, 14, (200, 200), at) == picture.image_of(shown)
    difference = picture.tone_map(a.astype(np.float64) - b, scale=a)
    assert cell(canvas, 14, (200, 200), 3) == picture.image_of(difference)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_x_hat_that_is_not_finite(value):
    x_hat = np.zeros((3, 4, 4), np.float32)
    fine, x_hat[1, 2, 3] = x_hat.copy(), value
    crop = noise((4, 4))
    for draw in (
        lambda: panels.explained(crop, x_hat, ""),
        lambda: panels.compared(crop, (x_hat, x_hat), ("a", "b"), ""),
        lambda: panels.compared(crop, (fine, x_hat), ("a", "b"), ""),
    ):
        with pytest.raises(RevgraphError, match="x_hat"):
            draw()

import io
import os
import re
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from revgraph import picture
from revgraph.errors import RevgraphError
from revgraph.finite import NotFiniteError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def noise(size=(24, 16), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


def saved(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


# ----- Reading -----


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
def test_modes_of_png(tmp_path, mode):
    image = noise().convert(mode)
    read = picture.read(saved(tmp_path, image))
    assert (read.mode, read.size) == ("RGB", image.size)
    np.testing.assert_array_equal(np.asarray(read), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp", "a.tif", "a.webp", "a.gif", "a.ppm"])
def test_types(tmp_path, name):
    path = saved(tmp_path, Image.new("RGB", (24, 16), RED), name)
    read = picture.read(path)
    np.testing.assert_allclose(np.asarray(read, float), np.broadcast_to(RED, (16, 24, 3)), atol=2)
    os.rename(path, tmp_path / "no_suffix")
    assert picture.read(str(tmp_path / "no_suffix")) == read


def test_cmyk(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg")
    np.testing.assert_allclose(np.asarray(picture.read(path), float)[4, 4], RED, atol=6)


def test_transparency_is_flattened_on_white(tmp_path):
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (*RED, alpha))
    read = picture.read(saved(tmp_path, image))
    assert [read.getpixel((x, 0)) for x in range(3)] == [(255, 255, 255), (255, 127, 127), RED]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_palette_with_transparency(tmp_path, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    read = picture.read(saved(tmp_path, image, transparency=transparency))
    assert [read.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), GREEN]


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (32, 16), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees
    image.paste(BLUE, (0, 0, 16, 16))
    read = picture.read(saved(tmp_path, image, "a.jpg", exif=exif, quality=95, subsampling=0))
    assert read.size == (16, 32)
    np.testing.assert_allclose([read.getpixel((8, 4)), read.getpixel((8, 28))], [BLUE, RED], atol=4)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled(tmp_path, name):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    read = picture.read(saved(tmp_path, Image.fromarray(values), name))
    assert [read.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


def test_big_endian_16_bit_grey(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 65535, 32896))
    read = picture.read(tmp_path / "a.pgm")
    assert [read.getpixel((x, 0)) for x in range(2)] == [(255,) * 3, (128,) * 3]


def test_float_grey(tmp_path):
    read = picture.read(saved(tmp_path, Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "a.tif"))
    assert [read.getpixel((x, 0))[2] for x in range(3)] == [0, 128, 255]
    outside, nan = "its grey values lie outside 0 to 1", "some of its grey values are NaN"
    for value, why in ((1.5, outside), (-0.1, outside), (np.inf, outside), (np.nan, nan)):
        path = saved(tmp_path, Image.fromarray(np.array([[0.5, value]], np.float32)), "a.tif")
        with pytest.raises(RevgraphError, match=why):
            picture.read(path)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_the_first_frame_of_several(tmp_path, name):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE))
    path = saved(tmp_path, first, name, save_all=True, append_images=[second])
    np.testing.assert_allclose(picture.read(path).getpixel((4, 4)), RED, atol=2)


def test_what_cannot_be_read_is_said(tmp_path):
    whole = saved(tmp_path, noise((64, 64)), "whole.png").read_bytes()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello\nworld")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.jpg").write_bytes(saved(tmp_path, noise((64, 64)), "whole.jpg").read_bytes()[:900])
    (tmp_path / "drawing.eps").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    )
    why = {
        "none.png": "no such file",
        "": "it is a folder",
        "empty.png": "the file is empty",
        "text.png": "not a picture, or of an unknown type",
        "drawing.eps": "not a picture, or of an unknown type",
        "cut.png": "truncated",
        "cut.jpg": "truncated",
    }
    for name, reason in why.items():
        path = tmp_path / name
        with pytest.raises(
            RevgraphError, match=f"cannot read picture '{re.escape(str(path))}': .*{reason}"
        ) as caught:
            picture.read(path)
        assert "\n" not in str(caught.value)
        assert "file of type PNG, JPEG" in str(caught.value)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb(tmp_path, side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(RevgraphError, match=r"cannot read picture '.*': too large: .* pixels"):
        picture.read(tmp_path / "a.png")


@pytest.mark.skipif(
    sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="runs as root"
)
def test_a_file_one_may_not_read(tmp_path):
    path = saved(tmp_path, noise())
    path.chmod(0)
    with pytest.raises(RevgraphError, match="Permission denied"):
        picture.read(path)


# ----- Tone map and saliency -----


def restated(x):
    """Footnote 4, from the paper: 1 / (1 + exp(log(99) x / a)) over all channels jointly."""
    a = np.quantile(x.ravel(), 0.005)
    return 1 / (1 + np.exp(np.log(99) * x / a))


def test_tone_map_restated():
    x = np.random.default_rng(0).standard_normal((3, 20, 30))
    np.testing.assert_allclose(picture.tone_map(x), restated(x), rtol=1e-12)
    half = x.astype(np.float16)
    np.testing.assert_allclose(picture.tone_map(half), restated(half.astype(np.float64)), rtol=2e-3)


def test_tone_map_puts_0_in_the_middle_and_a_at_one_percent():
    x = np.linspace(-2, 2, 1201)
    mapped = picture.tone_map(x)
    assert mapped[600] == 0.5
    assert np.interp(np.quantile(x, 0.005), x, mapped) == pytest.approx(0.01, rel=1e-3)
    assert (np.diff(mapped) > 0).all()


def test_tone_map_does_not_see_the_scale():
    x = np.random.default_rng(0).standard_normal((3, 20, 30))
    np.testing.assert_allclose(picture.tone_map(x * 1e30), picture.tone_map(x), rtol=1e-9)


@pytest.mark.parametrize(
    "x", [np.zeros((3, 4, 4)), np.maximum(np.random.default_rng(0).standard_normal(999), 0)]
)
def test_tone_map_with_nothing_negative_is_grey(x):
    mapped = picture.tone_map(x)
    assert (mapped == 0.5).all()
    assert mapped.shape == x.shape


@pytest.mark.parametrize("size", [1e-6, 1e-300, 5e-324])
def test_tone_map_of_tiny_values_takes_the_minimum(size):
    x = np.array([-size, 0, size] + [0] * 997)
    np.testing.assert_allclose(picture.tone_map(x)[:3], [0.01, 0.5, 0.99], rtol=1e-9)


def test_tone_map_of_few_negatives_takes_the_minimum():
    x = np.zeros(10_000)
    x[:2] = -3, 1.5
    np.testing.assert_allclose(picture.tone_map(x)[:2], [0.01, 1 / (1 + 99**-0.5)], rtol=1e-9)


def test_tone_map_without_overflow():
    x = np.array([-5e-324, 0, 1e308, -1e308 / 1e308, 1e-320])
    mapped = picture.tone_map(x)
    assert ((mapped >= 0) & (mapped <= 1)).all()
    assert picture.tone_map(np.array([-1e-310, 1e308, 0.0]))[1] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_x_hat_that_is_not_finite(value):
    x = np.zeros((3, 4, 4), np.float32)
    x[1, 2, 3] = value
    for show in (picture.tone_map, picture.grey):
        with pytest.raises(RevgraphError, match="cannot show x_hat: it holds 1 "):
            show(x)


def test_saliency_is_the_largest_magnitude():
    x = np.random.default_rng(0).standard_normal((3, 5, 7))
    expected = [[max(abs(x[c, h, w]) for c in range(3)) for w in range(7)] for h in range(5)]
    np.testing.assert_array_equal(picture.saliency(x), expected)


def test_image_of():
    image = picture.image_of(np.array([[[0.0, 1.0]], [[0.5, 2.0]], [[0.2, -1.0]]]))
    assert (image.mode, image.size) == ("RGB", (2, 1))
    assert [image.getpixel((x, 0)) for x in range(2)] == [(0, 128, 51), (255, 255, 0)]
    assert picture.image_of(np.eye(3)).mode == "L"


# ----- Writing -----


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.TIFF", "a.webp"])
def test_what_is_written_is_read_again(tmp_path, name):
    (tmp_path / name).write_bytes(picture.encode(noise(), name))
    assert picture.read(tmp_path / name).tobytes() == noise().tobytes()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "1", "P"])
def test_any_mode_as_jpeg(mode):
    with Image.open(io.BytesIO(picture.encode(noise().convert(mode), "a.JPG"))) as image:
        assert image.format == "JPEG"


@pytest.mark.parametrize("name", ["a", "a.eps", "a.gif", "a.png.txt", ".png"])
def test_unknown_suffix(name):
    known = r"\(known: .png, .jpg, .jpeg, .webp, .tif, .tiff\)"
    with pytest.raises(RevgraphError, match=f"cannot write picture '.*': unknown suffix '.*' {known}"):
        picture.encode(noise(), name)


def test_only_the_suffix_says_what_is_encoded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sheet.png").mkdir()  # not where the picture will go
    with Image.open(io.BytesIO(picture.encode(noise(), "sheet.png"))) as image:
        assert image.format == "PNG"


def test_too_large_for_its_type():
    with pytest.raises(RevgraphError, match=r"cannot write picture '.*': JPEG: .* \(a .png file\)"):
        picture.encode(Image.new("RGB", (70_000, 1)), "a.jpg")


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_png(shape):
    pixels = np.random.default_rng(0).uniform(size=shape)
    with Image.open(io.BytesIO(picture.png(pixels))) as image:
        assert (image.format, image.mode) == ("PNG", "L" if len(shape) == 2 else "RGB")
        np.testing.assert_array_equal(image, picture.image_of(pixels))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_saliency_of_what_is_not_finite_is_refused(value):
    x_hat = np.zeros((3, 4, 5), np.float32)
    x_hat[2, 3, 4] = value
    for show in picture.saliency, picture.grey, picture.tone_map:
        with pytest.raises(
            NotFiniteError, match=r"cannot show x_hat: it holds 1 .* the first at \[2, 3, 4\]"
        ):
            show(x_hat)

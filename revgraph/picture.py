"""Pictures read, x_hat made visible, pictures written. Arrays are (C, H, W) in RGB order."""

import io
import math
import os
import unicodedata
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from revgraph.errors import RevgraphError
from revgraph.writing import write_all

Array = npt.NDArray[Any]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# What read() opens. Not EPS: Pillow would start Ghostscript on it.
READABLE = ("PNG", "JPEG", "JPEG2000", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
_KNOWN = f"file of type {', '.join(READABLE)}"
WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_deflate"},
}

# ----- Reading -----


def read(path: str | os.PathLike[str], most: int | None = None) -> Image.Image:
    """The picture in a file as RGB: upright, transparency on white, the first frame of several.

    Args:
        path: Of the file.
        most: How many pixels it may have; None leaves that to Pillow.

    Raises:
        RevgraphError: There is no such picture, it is larger, or cannot be read; the message says which.
    """
    file, what = Path(path), f"cannot read picture '{os.fspath(path)}'"
    if not file.is_file():
        why = "it is a folder" if file.is_dir() else "no such file"
        raise RevgraphError(what, why, f"an existing {_KNOWN}")
    return _decode(file, what, file.stat().st_size == 0, most)


def decode(file: BinaryIO, what: str = "cannot read this picture", most: int | None = None) -> Image.Image:
    """As `read`, of an open file; of so many pixels at most.

    Raises:
        RevgraphError: It cannot be read, or is larger; the message begins with `what`.
    """
    empty = not file.read(1)
    file.seek(0)
    return _decode(file, what, empty, most)


def _decode(file: Path | BinaryIO, what: str, empty: bool, most: int | None) -> Image.Image:
    try:
        Image.init()
        with Image.open(file, formats=[name for name in READABLE if name in Image.OPEN]) as image:
            _check_size(image, most)
            return _flatten(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RevgraphError(what, f"too large: {error}", "a smaller copy of it") from error
    except UnidentifiedImageError as error:
        why = "the file is empty" if empty else "not a picture, or of an unknown type"
        raise RevgraphError(what, why, f"a {_KNOWN}") from error
    # Pillow's decoders raise whatever a damaged file makes them stumble on, even SyntaxError.
    except Exception as error:
        raise RevgraphError(what, str(error) or type(error).__name__, f"a {_KNOWN}") from error


def _check_size(image: Image.Image, most: int | None) -> None:
    """Before it is decoded; Pillow's own limit is a warning up to twice its value."""
    if most is not None and image.width * image.height > most:
        raise Image.DecompressionBombError(f"it has {image.width} x {image.height} pixels, {most} at most")


def _flatten(image: Image.Image) -> Image.Image:
    """Any mode as RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep_grey(np.asarray(image, np.float32), image.mode).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _from_deep_grey(values: Array, mode: str) -> Image.Image:
    """16-bit or float grey as 8-bit: Pillow itself would clip at 255."""
    top = 1.0 if mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= top):
        raise ValueError(f"its grey values lie outside 0 to {top:g}")
    return image_of(values / top)


# ----- x_hat to picture -----


def tone_map(x_hat: Array, scale: Array | None = None) -> Array:
    """σ(-log(99) x / a), float64 in [0, 1] and shaped like x_hat (of one image): footnote 4.

    a is the 0.5 % quantile of all of x_hat, or its minimum where |a| < 1e-5. If that is 0 too, uniform 0.5.
    With `scale`, another x_hat, a is that one's.

    Raises:
        RevgraphError: x_hat is not finite.
    """
    x = _finite(x_hat)
    of = x if scale is None else _finite(scale)
    a = np.quantile(of, 0.005)
    if abs(a) < 1e-5:
        a = of.min()
    if a == 0:
        return np.full(x.shape, 0.5)
    with np.errstate(over="ignore"):  # an infinite x / a is mapped to 0 or 1, as it should be
        return np.asarray(0.5 + 0.5 * np.tanh(-math.log(99) / 2 * (x / a)))


def saliency(x_hat: Array) -> Array:
    """The L-infinity norm over the channels of x_hat (C, H, W): (H, W), Sect. 3.5."""
    return np.asarray(np.abs(x_hat).max(axis=-3))


def image_of(rgb: Array) -> Image.Image:
    """The array (3, H, W), or grey (H, W), of values in [0, 1] as an 8-bit picture."""
    pixels = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels))


def _finite(x_hat: Array) -> Array:
    x = np.asarray(x_hat, np.float64)
    if not np.isfinite(x).all():
        why = "it holds NaN or infinite values"
        raise RevgraphError("cannot show x_hat", why, "compile with --precision fp32, or check the model")
    return x


def grey(x_hat: Array) -> Array:
    """The saliency map of x_hat (C, H, W) as it is shown, (H, W) in [0, 1].

    It is scaled by its 99.5 % quantile, or by its maximum where fewer points than that are lit.

    Raises:
        RevgraphError: x_hat is not finite.
    """
    found = saliency(_finite(x_hat))
    top = np.quantile(found, 0.995) or found.max() or 1.0
    return np.asarray(np.minimum(found, top) / top)


# ----- Panels -----


def explain(
    crop: Image.Image,
    x_hat: Array,
    caption: str,
    titles: Sequence[str] = ("input", "x_hat", "saliency map"),
) -> Image.Image:
    """The input, the tone-mapped x_hat (3, H, W; RGB) and its saliency map, side by side."""
    return panels([crop, image_of(tone_map(x_hat)), image_of(grey(x_hat))], titles, caption)


def compare(
    crop: Image.Image, x_hats: tuple[Array, Array], names: tuple[str, str], caption: str
) -> Image.Image:
    """The input, two x_hats (3, H, W; RGB) each in its own tones, and their difference in the first's."""
    a, b = map(_finite, x_hats)
    shown = [tone_map(a), tone_map(b), tone_map(a - b, scale=a)]
    return panels([crop, *map(image_of, shown)], ["input", *names, "difference"], caption)


def panels(images: Sequence[Image.Image], titles: Sequence[str], caption: str) -> Image.Image:
    """Pictures side by side on white, a title over each and the caption below, wrapped to fit."""
    enlarged = [_enlarge(image) for image in images]
    text = min(max(14, max(image.height for image in enlarged) // 18), 48)
    cells = [_titled(image, title, text) for image, title in zip(enlarged, titles, strict=True)]
    width = sum(cell.width for cell in cells) + text * (len(cells) - 1)
    height = max(cell.height for cell in cells)
    below = _paragraph(caption, width, text)
    canvas = Image.new("RGB", (width + 2 * text, height + below.height + 2 * text), "white")
    left = text
    for cell in cells:
        canvas.paste(cell, (left, text))
        left += cell.width + text
    canvas.paste(below, (text, text + height))
    return canvas


def _enlarge(image: Image.Image) -> Image.Image:
    """A small picture by the whole factor that makes it 192 pixels high, unless that makes it very wide."""
    factor = max(1, min(-(-192 // image.height), 2048 // image.width))
    return ImageOps.scale(image.convert("RGB"), factor, Image.Resampling.NEAREST)


def _titled(image: Image.Image, title: str, text: int) -> Image.Image:
    font = ImageFont.load_default(text)
    cell = Image.new("RGB", (max(image.width, 8 * text), image.height + 3 * text // 2), "white")
    ImageDraw.Draw(cell).text((0, text), _shorten(printable(title), font, cell.width), "black", font, "ls")
    cell.paste(image, (0, 3 * text // 2))
    return cell


def _paragraph(caption: str, width: int, text: int) -> Image.Image:
    font = ImageFont.load_default(text)
    lines = _wrap(printable(caption), font, width)
    block = Image.new("RGB", (width, (text + len(lines) * 4 * text // 3) if lines else 0), "white")
    for row, line in enumerate(lines, 1):
        ImageDraw.Draw(block).text((0, 2 * text // 3 + row * 4 * text // 3), line, "#444444", font, "ls")
    return block


def _wrap(caption: str, font: Font, width: int, most: int = 4) -> list[str]:
    """The caption in at most that many lines; what does not fit is shortened."""
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or len(lines) == most or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_shorten(line, font, width) for line in lines if line]


def _shorten(line: str, font: Font, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    fits = bisect(range(len(line)), float(width), key=lambda end: float(font.getlength(line[:end] + "...")))
    return line[: max(fits - 1, 0)].rstrip() + "..."


def printable(text: str) -> str:
    """Text in the letters of Pillow's own font, which knows ASCII and little more."""
    letters = unicodedata.normalize("NFKD", " ".join(text.split()))
    return "".join(c if c.isascii() else "?" for c in letters if not unicodedata.combining(c))


# ----- Writing -----


def encode(image: Image.Image, path: str | os.PathLike[str]) -> bytes:
    """The content of a file of the type that the path's suffix says; what lies there is not looked at.

    Raises:
        RevgraphError: The suffix says nothing, or the picture does not fit the type.
    """
    file, what = Path(path), f"cannot write picture '{os.fspath(path)}'"
    format_name = WRITABLE.get(file.suffix.lower())
    if format_name is None:
        raise RevgraphError(what, f"unknown suffix '{file.suffix}'", f"known: {', '.join(WRITABLE)}")
    encoded = io.BytesIO()
    try:
        image.convert("RGB").save(encoded, format_name, **OPTIONS.get(format_name, {}))
    except (OSError, ValueError, KeyError) as error:  # too large for the type, or a Pillow built without it
        raise RevgraphError(what, f"{format_name}: {error}", "a .png file") from error
    return encoded.getvalue()


def write(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """The picture as a file of the type that its suffix says; it appears whole or not at all.

    Raises:
        RevgraphError: It cannot be encoded, or the file cannot be written.
    """
    # A link stays, and the file that it points to is replaced.
    write_all({Path(os.path.realpath(path)): encode(image, path)})

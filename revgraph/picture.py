"""Pictures read, x_hat made visible, pictures encoded. Arrays are (C, H, W) in RGB order."""

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from revgraph import finite
from revgraph.errors import RevgraphError
from revgraph.reading import check_ordinary

Array = npt.NDArray[Any]


class Kind(NamedTuple):
    """A type of picture that is read.

    Attributes:
        suffixes: Of the files that folders are searched for.
        saving: Pillow's options for it; None where it is not written.
    """

    suffixes: tuple[str, ...] = ()
    saving: Mapping[str, Any] | None = None


# Not EPS: Pillow would start Ghostscript on it.
KINDS: Mapping[str, Kind] = {
    "PNG": Kind((".png",), {}),
    "JPEG": Kind((".jpg", ".jpeg"), {"quality": 95, "subsampling": 0}),
    "JPEG2000": Kind(),
    "WEBP": Kind((".webp",), {"lossless": True}),
    "AVIF": Kind(),
    "TIFF": Kind((".tif", ".tiff"), {"compression": "tiff_deflate"}),
    "BMP": Kind((".bmp",)),
    "GIF": Kind((".gif",)),
    "PPM": Kind(),
}
"""By Pillow's name."""

SUFFIXES = {suffix: name for name, kind in KINDS.items() for suffix in kind.suffixes}
"""Of the files that folders are searched for, and the types that they say."""

_KNOWN = f"file of type {', '.join(KINDS)}"

# ----- Reading -----


PIXELS = 89_000_000
"""Most pixels that are read unless told otherwise, a little below where Pillow begins to warn."""


def read(path: str | os.PathLike[str], most: int = PIXELS) -> Image.Image:
    """The picture in a file as RGB: upright, transparency on white, the first frame of several.

    Args:
        path: Of the file.
        most: How many pixels it may have.

    Raises:
        RevgraphError: There is no such picture, it is larger, or cannot be read; the message says which.
    """
    file, what = Path(path), f"cannot read picture '{os.fspath(path)}'"
    try:
        check_ordinary(file)
    except (OSError, ValueError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else _why(error)
        raise RevgraphError(what, why, f"an existing {_KNOWN}") from error
    return _decode(file, what, file.stat().st_size == 0, most)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def decode(file: BinaryIO, what: str = "cannot read this picture", most: int = PIXELS) -> Image.Image:
    """As `read`, of an open file; of so many pixels at most.

    Raises:
        RevgraphError: It cannot be read, or is larger; the message begins with `what`.
    """
    empty = not file.read(1)
    file.seek(0)
    return _decode(file, what, empty, most)


def _decode(file: Path | BinaryIO, what: str, empty: bool, most: int) -> Image.Image:
    try:
        Image.init()
        with Image.open(file, formats=[name for name in KINDS if name in Image.OPEN]) as image:
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


def _check_size(image: Image.Image, most: int) -> None:
    """Before it is decoded; Pillow's own limit is a warning up to twice its value."""
    if image.width * image.height > most:
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
    if np.isnan(values).any():
        raise ValueError("some of its grey values are NaN")
    if not (values.min() >= 0 and values.max() <= top):
        raise ValueError(f"its grey values lie outside 0 to {top:g}")
    return image_of(values / top)


# ----- x_hat to picture -----


def tone_map(x_hat: Array, scale: Array | None = None) -> Array:
    """σ(-log(99) x / a), float64 in [0, 1] and shaped like x_hat (of one image): footnote 4.

    a is the 0.5 % quantile of all of x_hat, or its minimum where |a| < 1e-5. If that is 0 too, uniform 0.5.
    With `scale`, another x_hat, a is that one's.

    Raises:
        NotFiniteError: x_hat is not finite.
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
    """The L-infinity norm over the channels of x_hat (C, H, W): (H, W), Sect. 3.5.

    Raises:
        NotFiniteError: x_hat is not finite.
    """
    _check(x_hat)
    return np.asarray(np.abs(x_hat).max(axis=-3))


def image_of(rgb: Array) -> Image.Image:
    """The array (3, H, W), or grey (H, W), of values in [0, 1] as an 8-bit picture."""
    pixels = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels))


def _check(x_hat: Array) -> None:
    finite.check("cannot show x_hat", "it", x_hat, "compile with --precision fp32, or check the model")


def _finite(x_hat: Array) -> Array:
    _check(x_hat)
    return np.asarray(x_hat, np.float64)


def grey(x_hat: Array) -> Array:
    """The saliency map of x_hat (C, H, W) as it is shown, (H, W) in [0, 1].

    It is scaled by its 99.5 % quantile, or by its maximum where fewer points than that are lit.

    Raises:
        NotFiniteError: x_hat is not finite.
    """
    found = saliency(x_hat).astype(np.float64)
    top = np.quantile(found, 0.995) or found.max() or 1.0
    return np.asarray(np.minimum(found, top) / top)


# ----- Writing -----


def type_of(path: str | os.PathLike[str]) -> str:
    """The type of picture that the path's suffix says, by Pillow's name.

    Raises:
        RevgraphError: It says none, or one that is read alone.
    """
    suffix = Path(path).suffix
    found = SUFFIXES.get(suffix.lower(), "")
    if not found or KINDS[found].saving is None:
        known = ", ".join(known for known, name in SUFFIXES.items() if KINDS[name].saving is not None)
        what = f"cannot write picture '{os.fspath(path)}'"
        raise RevgraphError(what, f"unknown suffix '{suffix}'", f"known: {known}")
    return found


def encode(image: Image.Image, path: str | os.PathLike[str]) -> bytes:
    """The content of a file of the type that the path's suffix says; what lies there is not looked at.

    Raises:
        RevgraphError: The suffix says nothing, or the picture does not fit the type.
    """
    name, encoded = type_of(path), io.BytesIO()
    try:
        image.convert("RGB").save(encoded, name, **KINDS[name].saving or {})
    except (OSError, ValueError, KeyError) as error:  # too large for the type, or a Pillow built without it
        what = f"cannot write picture '{os.fspath(path)}'"
        raise RevgraphError(what, f"{name}: {error}", "a .png file") from error
    return encoded.getvalue()


def png(pixels: Array) -> bytes:
    """The content of a PNG file, of what `image_of` takes: grey stays grey."""
    encoded = io.BytesIO()
    image_of(pixels).save(encoded, "PNG")
    return encoded.getvalue()

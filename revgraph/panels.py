"""Pictures side by side, with titles and a caption."""

import unicodedata
from bisect import bisect
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from revgraph import picture
from revgraph.picture import Array

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

LINES = 4
"""Most lines of a caption."""


def explained(crop: Image.Image, x_hat: Array, caption: str) -> Image.Image:
    """The input, the tone-mapped x_hat (3, H, W; RGB) and its saliency map, side by side."""
    shown = [picture.tone_map(x_hat), picture.grey(x_hat)]
    return row([crop, *map(picture.image_of, shown)], ["input", "x_hat", "saliency map"], caption)


def compared(
    crop: Image.Image, x_hats: tuple[Array, Array], names: tuple[str, str], caption: str
) -> Image.Image:
    """The input, two x_hats (3, H, W; RGB) each in its own tones, and their difference in the first's."""
    a, b = (np.asarray(x_hat, np.float64) for x_hat in x_hats)
    shown = [picture.tone_map(a), picture.tone_map(b), picture.tone_map(a - b, scale=a)]
    return row([crop, *map(picture.image_of, shown)], ["input", *names, "difference"], caption)


def row(images: Sequence[Image.Image], titles: Sequence[str], caption: str) -> Image.Image:
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
    for i, line in enumerate(lines, 1):
        ImageDraw.Draw(block).text((0, 2 * text // 3 + i * 4 * text // 3), line, "#444444", font, "ls")
    return block


def _wrap(caption: str, font: Font, width: int) -> list[str]:
    """The caption in at most LINES; what does not fit is shortened."""
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or len(lines) == LINES or font.getlength(longer) <= width:
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

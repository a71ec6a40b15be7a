"""The confusion matrix: counted, and drawn as a PNG with Pillow alone."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image, ImageDraw, ImageFont

    Color = tuple[int, int, int]

_CELL, _LEFT, _TOP, _RIGHT, _BOTTOM = 56, 96, 110, 120, 84
_INK, _FAINT, _LINE, _PAPER = (32, 38, 46), (110, 118, 129), (214, 219, 226), (255, 255, 255)
# From near white to dark blue for what is right, to dark red for what is wrong.
_RIGHT_SCALE = ((241, 246, 252), (8, 72, 135))
_WRONG_SCALE = ((253, 243, 240), (178, 34, 24))


def count(truth: NDArray[np.int64], found: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count how often a class (row) was taken for another (column); shape (classes, classes)."""
    import numpy as np

    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (truth, found), 1)
    return matrix


def accuracy(matrix: NDArray[np.int64]) -> float:
    """Return the share on the diagonal, 0 to 1; 0 for no images."""
    total = int(matrix.sum())
    return float(matrix.trace() / total) if total else 0.0


def draw(matrix: NDArray[np.int64], title: str, subtitle: str) -> bytes:
    """Return a PNG of the matrix: cells shaded by their share of the row, numbers, axes and a scale."""
    from PIL import Image, ImageDraw

    side = _CELL * len(matrix)
    image = Image.new("RGB", (_LEFT + side + _RIGHT, _TOP + side + _BOTTOM), _PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((_LEFT, 28), title, _INK, _font(24))
    pen.text((_LEFT, 64), subtitle, _FAINT, _font(16))
    _draw_cells(pen, matrix)
    _draw_axes(image, pen, len(matrix))
    _draw_scale(pen, side)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _draw_cells(pen: ImageDraw.ImageDraw, matrix: NDArray[np.int64]) -> None:
    for row, numbers in enumerate(matrix.tolist()):
        for column, number in enumerate(numbers):
            share = number / max(sum(numbers), 1)
            x, y = _LEFT + column * _CELL, _TOP + row * _CELL
            scale = _RIGHT_SCALE if row == column else _WRONG_SCALE
            # Single mistakes must show beside hundreds of hits.
            shade = share if row == column else min(1.0, 4 * share)
            pen.rectangle((x, y, x + _CELL, y + _CELL), _mix(scale, shade) if number else _PAPER, _LINE)
            if number:
                ink = _PAPER if shade > 0.55 else _INK
                pen.text((x + _CELL / 2, y + _CELL / 2), str(number), ink, _font(18), anchor="mm")


def _draw_axes(image: Image.Image, pen: ImageDraw.ImageDraw, classes: int) -> None:
    from PIL import Image, ImageDraw

    side = classes * _CELL
    for index in range(classes):
        middle = index * _CELL + _CELL / 2
        pen.text((_LEFT + middle, _TOP + side + 18), str(index), _INK, _font(18), anchor="mm")
        pen.text((_LEFT - 18, _TOP + middle), str(index), _INK, _font(18), anchor="mm")
    pen.text((_LEFT + side / 2, _TOP + side + 52), "predicted digit", _FAINT, _font(18), anchor="mm")
    label = Image.new("RGB", (side, 28), _PAPER)
    ImageDraw.Draw(label).text((side / 2, 14), "true digit", _FAINT, _font(18), anchor="mm")
    image.paste(label.rotate(90, expand=True), (_LEFT - 74, _TOP))


def _draw_scale(pen: ImageDraw.ImageDraw, side: int) -> None:
    left = _LEFT + side + 28
    for offset in range(side + 1):
        pen.line((left, _TOP + offset, left + 18, _TOP + offset), _mix(_RIGHT_SCALE, 1 - offset / side))
    pen.rectangle((left, _TOP, left + 18, _TOP + side), outline=_LINE)
    for share in (0, 25, 50, 75, 100):
        pen.text((left + 26, _TOP + side * (1 - share / 100)), f"{share} %", _FAINT, _font(14), anchor="lm")


def _mix(scale: tuple[Color, Color], share: float) -> Color:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(*scale, strict=True))
    return red, green, blue


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)

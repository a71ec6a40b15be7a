from __future__ import annotations

import io

import numpy as np
from PIL import Image

from infra.training import confusion


def test_rows_are_the_truth() -> None:
    matrix = confusion.count(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert confusion.accuracy(matrix) == 0.5


def test_no_images_are_no_accuracy() -> None:
    assert confusion.accuracy(np.zeros((3, 3), dtype=np.int64)) == 0


def test_the_picture_shows_hits_in_blue_and_mistakes_in_red() -> None:
    matrix = np.diag([20, 20, 20]).astype(np.int64)
    matrix[0, 2] = 9
    data = confusion.draw(matrix, "Title", "subtitle")
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        colors = [picture.getpixel(corner(row, column)) for row, column in ((1, 1), (0, 2), (2, 0))]
    (hit, miss, empty) = [c for c in colors if isinstance(c, tuple)]
    assert hit[2] > 1.5 * hit[0]
    assert miss[0] > 1.5 * miss[2]
    assert empty == (255, 255, 255)


def corner(row: int, column: int) -> tuple[int, int]:
    """A point inside a cell, away from its number."""
    return 96 + 56 * column + 5, 110 + 56 * row + 5

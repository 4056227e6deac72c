"""Gradient histograms, against a slow and obvious rewriting."""

import math

import numpy as np

from encoders.video._hog import histogram_of_gradients


def slow(picture, orientations=8, cell=8):
    height, width, channels = picture.shape
    rows, columns = height // cell, width // cell
    cells = np.zeros((rows, columns, orientations))
    for y in range(rows * cell):
        for x in range(columns * cell):
            best = (0.0, 0.0, 0.0)
            for c in range(channels):
                down = (
                    float(picture[y + 1, x, c]) - float(picture[y - 1, x, c])
                    if 0 < y < height - 1
                    else 0.0
                )
                right = (
                    float(picture[y, x + 1, c]) - float(picture[y, x - 1, c])
                    if 0 < x < width - 1
                    else 0.0
                )
                if math.hypot(down, right) > best[0]:
                    best = (math.hypot(down, right), down, right)
            angle = math.degrees(math.atan2(best[1], best[2])) % 180
            cells[y // cell, x // cell, min(int(angle * orientations / 180), 7)] += (
                best[0] / cell**2
            )
    out = []
    for y in range(rows - 1):
        for x in range(columns - 1):
            block = cells[y : y + 2, x : x + 2].ravel()
            for clip in (0.2, None):
                block = block / math.sqrt((block**2).sum() + 1e-10)
                block = np.minimum(block, clip) if clip else block
            out.append(block)
    return np.concatenate(out)


def test_it_is_the_slow_one():
    picture = np.random.default_rng(0).integers(0, 255, (32, 40, 3)).astype(np.uint8)
    np.testing.assert_allclose(histogram_of_gradients(picture), slow(picture), atol=1e-9)


def test_a_face_has_5408_numbers_and_a_plain_wall_zeros():
    values = histogram_of_gradients(np.full((112, 112, 3), 128, np.uint8))
    assert values.shape == (5408,)
    assert (values == 0).all()

"""From a decoded picture to the one that a player shows: upright, unmirrored, in its proportions."""

import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from jaxtyping import UInt8

Pixels = UInt8[np.ndarray, "height width 3"]
Matrix = tuple[int, ...]

SQUARE = Fraction(1)
AS_STORED: Matrix = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def display_matrix(frame: Any) -> Matrix:
    """The nine numbers that place a stored picture on the screen; by default it stays as it is.

    Afterwards the frame and its side data hold each other until the next collection: ask once a film.
    """
    try:
        found = frame.side_data.get(Type.DISPLAYMATRIX)
    except (
        ValueError
    ):  # PyAV does not know every kind of side data that FFmpeg attaches, Exif's for one
        return _turn(int(frame.rotation))
    return AS_STORED if found is None else struct.unpack("=9i", bytes(found)[:36])


def _turn(rotation: int) -> Matrix:
    """The matrix of a counter-clockwise turn [degrees], to the nearest quarter."""
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[round(rotation / 90) % 4]
    return (cosine << 16, -sine << 16, 0, sine << 16, cosine << 16, 0, 0, 0, 1 << 30)


def is_turned(matrix: Matrix) -> bool:
    """Whether rows become columns."""
    return abs(matrix[1]) + abs(matrix[3]) > abs(matrix[0]) + abs(matrix[4])


def placed(image: Pixels, matrix: Matrix) -> UInt8[np.ndarray, "shown_height shown_width 3"]:
    """A stored picture as it is shown: x' = a x + c y and y' = b x + d y, by quarter turns and mirrors."""
    a, b, _, c, d = matrix[:5]
    if is_turned(matrix):
        image, (to_right, to_bottom) = image.swapaxes(0, 1), (c, b)
    else:
        to_right, to_bottom = a, d
    return image[:: -1 if to_bottom < 0 else 1, :: -1 if to_right < 0 else 1]


def pixel_aspect(stream: Any) -> Fraction:
    """Width of a pixel over its height."""
    aspect = stream.sample_aspect_ratio
    return Fraction(aspect) if aspect and 0.05 < aspect < 20 else SQUARE


def shown_size(width: int, height: int, aspect: Fraction, matrix: Matrix) -> tuple[int, int]:
    """Width and height on the screen [px]: one side is stretched, none is shrunk."""
    if aspect > 1:
        width = round(width * aspect)
    elif aspect < 1:
        height = round(height / aspect)
    return (height, width) if is_turned(matrix) else (width, height)


def shown(frame: Any, aspect: Fraction, matrix: Matrix) -> tuple[Pixels, tuple[int, int]]:
    """The picture upright, still with the pixels as stored, and its width and height on the screen."""
    size = shown_size(frame.width, frame.height, aspect, matrix)
    # By default every frame starts threads of its own to change its colours.
    return placed(frame.to_ndarray(format="rgb24", threads=1), matrix), size


def resized(
    image: Pixels, size: int, shown_px: tuple[int, int] | None = None
) -> UInt8[np.ndarray, "small_height small_width 3"]:
    """The shorter side brought down to `size`; a smaller picture stays as it is.

    Args:
        image: pixels as stored.
        size: of the shorter side [px].
        shown_px: width and height on the screen where the pixels are not square.
    """
    height, width = image.shape[:2]
    wide, high = shown_px or (width, height)
    short = min(wide, high)
    if short > size:
        wide, high = max(1, round(wide * size / short)), max(1, round(high * size / short))
    if (wide, high) == (width, height):
        return image
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    small = frame.reformat(width=wide, height=high, interpolation="AREA", threads=1)
    return small.to_ndarray()  # type: ignore[no-any-return]

"""Boxes around the faces of a picture: that of the one that was read in its own colour, the others grey."""

from collections.abc import Sequence

import numpy as np

from encoders.spec import Descriptor
from encoders.store import local_paths
from encoders.video._face import Face, FaceFinder

READ, OTHER = (255, 214, 0), (150, 150, 150)
"""Colours of the boxes."""

THICKNESS = 120
"""Lines are this part of the shorter side of the picture, and at least a pixel."""


class FaceBoxes:
    """Draws boxes into pictures.

    Args:
        finder: that of the encoders, so that what it finds surest is what they read.
    """

    def __init__(self, finder: FaceFinder) -> None:
        self._finder = finder

    def __call__(self, image: np.ndarray, _time_s: float) -> np.ndarray:
        """A picture (RGB, height x width x 3) with its boxes."""
        image = np.ascontiguousarray(image)
        faces = self._finder.find_all(image)
        if not faces:
            return image
        read = self._finder.find(image)
        return framed(image, faces, None if read is None else read.centre)


def framed(
    image: np.ndarray, faces: Sequence[Face], read: tuple[float, float] | None
) -> np.ndarray:
    """A picture with a box around each face.

    Args:
        image: RGB, height x width x 3.
        faces: in pixels of the picture.
        read: centre of the one that was read [px]; None: none of them.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    width = max(1, min(picture.size) // THICKNESS)
    for face in sorted(
        faces, key=lambda face: face.centre == read
    ):  # the one that counts is on top
        (x, y), half = face.centre, face.side / 2
        colour = READ if face.centre == read else OTHER
        draw.rectangle((x - half, y - half, x + half, y + half), outline=colour, width=width)
    return np.asarray(picture)


def face_boxes(encoders: Sequence[Descriptor], store: str) -> FaceBoxes | None:
    """What marks the faces that some encoders read; None where none of them looks for faces.

    Args:
        encoders: of a bundle.
        store: of the weights.
    """
    for item in encoders:
        needed = [each for each in item.weights if each.name in ("detector", "mesh")]
        if len(needed) == 2:
            paths = local_paths(needed, store)
            return FaceBoxes(FaceFinder(paths["detector"], paths["mesh"]))
    return None

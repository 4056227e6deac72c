"""Finding faces in a frame: detector, presence check, upright crops.

BlazeFace (short range, 128 x 128 input, https://arxiv.org/abs/1907.05047) proposes a box with six points; the
face mesh (192 x 192 input, https://arxiv.org/abs/1907.06724) then says whether a face is really there: on
drawings the detector fires and the mesh does not. Both are TensorFlow Lite files run by LiteRT.
"""

import math
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from cluster.errors import MissingExtraError

DETECTOR_PX, MESH_PX = 128, 192
MIN_SCORE = 0.5
MIN_PRESENCE = 0.5
MESH_MARGIN = 1.5
"""The mesh wants the face with a margin of a quarter of its size on each side."""


MOST_FACES = 16

SAME_FACE = 0.3
"""Boxes that share this part of their union are one face."""

_Box = tuple[tuple[float, float], float, float, float]
"""Centre [px], side [px], angle [rad] and score of a box of the detector."""


@dataclass(frozen=True)
class Face:
    """A face that detector and mesh agree on; lengths in pixels of the frame."""

    centre: tuple[float, float]
    side: float
    """Side of the square around the face."""

    angle: float
    """Angle of the line through the eyes [rad]; positive where the right end is lower."""

    score: float
    presence: float
    landmarks: Float[np.ndarray, "468 3"]


class FaceFinder:
    """The two networks; calls are serialised, since an interpreter belongs to one thread at a time."""

    def __init__(self, detector: Path, mesh: Path, *, threads: int = 1) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtraError("finding faces", "offline") from error

        self._lock = threading.Lock()
        self._detector, self._mesh = (
            Interpreter(str(path), num_threads=threads) for path in (detector, mesh)
        )
        for interpreter in (self._detector, self._mesh):
            interpreter.allocate_tensors()
        self._anchors = anchors()

    def find(self, frame: UInt8[np.ndarray, "height width 3"]) -> Face | None:
        """The surest face of a frame, or None."""
        image = Image.fromarray(frame)
        with self._lock:
            return next((self._checked(image, each) for each in self._detect(image, 1)), None)

    def find_all(
        self, frame: UInt8[np.ndarray, "height width 3"], most: int = MOST_FACES
    ) -> list[Face]:
        """The faces of a frame, the surest first; of boxes that lie over each other the surer one.

        Args:
            frame: RGB picture.
            most: boxes of the detector that are looked at.
        """
        image = Image.fromarray(frame)
        with self._lock:
            checked = [self._checked(image, each) for each in self._detect(image, most)]
        return [face for face in checked if face is not None]

    def _checked(self, image: Image.Image, found: _Box) -> Face | None:
        """The face in a box of the detector, where the mesh sees one there."""
        centre, side, angle, score = found
        crop = upright(image, centre, side * MESH_MARGIN, angle, MESH_PX)
        points, presence = self._landmarks(crop)
        if presence < MIN_PRESENCE:
            return None
        landmarks = to_frame(points, centre, side * MESH_MARGIN, angle)
        return Face(centre, side, angle, score, presence, landmarks)

    def _detect(self, image: Image.Image, most: int) -> list[_Box]:
        """Boxes that may hold a face, the surest first."""
        # Letter-boxed, so that a wide frame does not squeeze the face.
        longest = max(image.size)
        left, top = (longest - image.width) / 2, (longest - image.height) / 2
        square = image.transform(
            (DETECTOR_PX, DETECTOR_PX),
            Image.Transform.EXTENT,
            (-left, -top, longest - left, longest - top),
            Image.Resampling.BILINEAR,
        )
        tensor = np.asarray(square, np.float32)[None] / 127.5 - 1
        outputs = run(self._detector, tensor)
        boxes = next(output for output in outputs if output.shape[-1] == 16)[0]
        scores = next(output for output in outputs if output.shape[-1] == 1)[0, :, 0]
        found: list[_Box] = []
        for best in np.argsort(-scores, kind="stable"):
            score = sigmoid(float(scores[best]))
            if score < MIN_SCORE or len(found) == most:
                break
            box = boxes[best] / DETECTOR_PX
            points = box[4:].reshape(6, 2) + self._anchors[best]
            middle = (box[:2] + self._anchors[best]) * longest - (left, top)
            right_eye, left_eye = points[0], points[1]
            angle = math.atan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0])
            side = float(max(box[2], box[3]) * longest)
            this = (float(middle[0]), float(middle[1])), side, angle, score
            if all(overlap(this, other) < SAME_FACE for other in found):
                found.append(this)
        return found

    def _landmarks(self, crop: Image.Image) -> tuple[np.ndarray, float]:
        tensor = np.asarray(crop, np.float32)[None] / 255
        outputs = run(self._mesh, tensor)
        points = next(output for output in outputs if output.size == 468 * 3)
        presence = next(output for output in outputs if output.size == 1)
        return points.reshape(468, 3) / MESH_PX, sigmoid(float(presence.ravel()[0]))


def overlap(one: _Box, other: _Box) -> float:
    """Intersection over union of two boxes, as if they stood upright.

    >>> overlap(((0, 0), 2, 0, 1), ((1, 0), 2, 0, 1))
    0.3333333333333333
    """
    (centre, side, *_), (middle, width, *_) = one, other
    shared = 1.0
    for axis in range(2):
        low = max(centre[axis] - side / 2, middle[axis] - width / 2)
        high = min(centre[axis] + side / 2, middle[axis] + width / 2)
        shared *= max(0.0, high - low)
    return shared / (side**2 + width**2 - shared)


def anchors() -> Float[np.ndarray, "896 2"]:
    """Centres of the detector's boxes: two a cell of 8 px, six a cell of 16 px, relative to the frame."""
    centres = []
    for stride, count in ((8, 2), (16, 6)):
        cells = (np.arange(DETECTOR_PX // stride) + 0.5) / (DETECTOR_PX // stride)
        grid = np.stack(np.meshgrid(cells, cells), -1).reshape(-1, 2)
        centres.append(np.repeat(grid, count, 0))
    return np.concatenate(centres)


def upright(
    image: Image.Image, centre: tuple[float, float], side: float, angle: float, size: int
) -> Image.Image:
    """A square cut around `centre`, turned so that the eyes are level, `size` x `size` pixels."""
    # Twice the size and a box filter: bilinear sampling alone would alias large faces.
    fine = 2 * size
    step_x = (math.cos(angle) * side / fine, math.sin(angle) * side / fine)
    step_y = (-step_x[1], step_x[0])
    origin = [centre[axis] - (step_x[axis] + step_y[axis]) * (fine - 1) / 2 for axis in range(2)]
    affine = (step_x[0], step_y[0], origin[0], step_x[1], step_y[1], origin[1])
    turned = image.transform(
        (fine, fine), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    )
    return turned.reduce(2)


def to_frame(
    points: Float[np.ndarray, "n 3"], centre: tuple[float, float], side: float, angle: float
) -> Float[np.ndarray, "n 3"]:
    """Points of an upright crop (0..1 across it) in pixels of the frame; depth in the same unit."""
    local = (points - (0.5, 0.5, 0.0)) * side
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.concatenate([local[:, :2] @ turn + centre, local[:, 2:]], 1)


def run(interpreter: object, tensor: np.ndarray) -> list[np.ndarray]:
    """All outputs of a TensorFlow Lite network, copied out of its memory."""
    place = interpreter.get_input_details()[0]["index"]  # type: ignore[attr-defined]
    interpreter.set_tensor(place, tensor)  # type: ignore[attr-defined]
    interpreter.invoke()  # type: ignore[attr-defined]
    return [
        interpreter.get_tensor(output["index"])  # type: ignore[attr-defined]
        for output in interpreter.get_output_details()  # type: ignore[attr-defined]
    ]


def sigmoid(x: float) -> float:
    """Logistic function that does not overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))

"""Finding one face in a frame: detector, presence check, upright crops.

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
            found = self._detect(image)
            if found is None:
                return None
            centre, side, angle, score = found
            crop = upright(image, centre, side * MESH_MARGIN, angle, MESH_PX)
            points, presence = self._landmarks(crop)
        if presence < MIN_PRESENCE:
            return None
        landmarks = to_frame(points, centre, side * MESH_MARGIN, angle)
        return Face(centre, side, angle, score, presence, landmarks)

    def _detect(self, image: Image.Image) -> tuple[tuple[float, float], float, float, float] | None:
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
        best = int(scores.argmax())
        score = sigmoid(float(scores[best]))
        if score < MIN_SCORE:
            return None
        box = boxes[best] / DETECTOR_PX
        points = box[4:].reshape(6, 2) + self._anchors[best]
        middle = (box[:2] + self._anchors[best]) * longest - (left, top)
        right_eye, left_eye = points[0], points[1]
        angle = math.atan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0])
        side = float(max(box[2], box[3]) * longest)
        return (float(middle[0]), float(middle[1])), side, angle, score

    def _landmarks(self, crop: Image.Image) -> tuple[np.ndarray, float]:
        tensor = np.asarray(crop, np.float32)[None] / 255
        outputs = run(self._mesh, tensor)
        points = next(output for output in outputs if output.size == 468 * 3)
        presence = next(output for output in outputs if output.size == 1)
        return points.reshape(468, 3) / MESH_PX, sigmoid(float(presence.ravel()[0]))


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

"""The face's outline as numbers: gradient histograms of the aligned face, and where its 68 points lie.

The face is turned and scaled to 112 x 112 by the line through its eyes, all outside its outline grey, and
described by HOG (8 orientations, cells of 8 x 8 pixels, blocks of 2 x 2 cells, the strongest of the colour
channels at every pixel: 13 x 13 x 4 x 8 = 5408) and by 68 points in the picture (136 numbers, in sides). The
median over the clip is removed, which leaves what the face does and takes away whose it is. A PCA belongs to
the net that reads it, not here.

Baltrusaitis, Mahmoud and Robinson, 2015, https://doi.org/10.1109/FG.2015.7284869 (the median per person).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from encoders.options import Switch
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded, EncoderSpec, FramePolicy, Frames
from encoders.video import DETECTOR, MESH, rate
from encoders.video._face import Face, FaceFinder
from encoders.video._hog import histogram_of_gradients

SPEC = EncoderSpec(
    name="face_hog",
    modality="video",
    summary="HOG (5408) and 68 landmarks (136) of the aligned face, clip median removed",
    implementation="encoders.video.face_hog:FaceHog",
    weights=tuple(type(each)(**{**vars(each), "when": ""}) for each in (DETECTOR, MESH)),
    dim=5408 + 136,
    frames=FramePolicy(kind="fps", rate_hz=5.0, size=256),
    dtype="float32",
    licence="Apache-2.0",
    memory_gb=0.4,
    seconds_per_clip_second=0.05,
    options={"fps": rate(5.0), "median_removed": Switch(True)},
    side={"presence": 1},
    extra="offline",
)

SIDE_PX = 112
_GREY = 128
_EYES = ((33, 133), (362, 263))
"""Outer and inner corner of each eye in the mesh of 468 points."""

_EYES_APART, _EYES_HIGH = 0.4, 0.36
"""Distance between the eyes and their height in the picture, in sides."""

LANDMARKS_68 = (
    # jaw, left to right
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,
    # brows
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    # nose bridge and base
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    # eyes
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    # outer lips, inner lips
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
"""Points of the mesh nearest to the usual 68."""

_FOREHEAD = (21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251)


class FaceHog:
    """Detector, mesh and plain image processing."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        policy = descriptor.frame_policy
        assert policy is not None
        self._policy = policy
        self._pool = str(descriptor.options["pool"])
        self._median_removed = bool(descriptor.options["median_removed"])
        self._finder = FaceFinder(weights["detector"], weights["mesh"], threads=threads)

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step a frame; a frame without a face is not valid."""
        return [
            pooled(self._encode(clip.frames[self._policy], clip.duration_s), self._pool, clip.words)
            for clip in clips
        ]

    def _encode(self, frames: Frames, duration_s: float) -> Encoded:
        count = len(frames.pixels)
        values = np.zeros((count, SPEC.dim), np.float32)
        presence = np.zeros((count, 1), np.float32)
        for index, frame in enumerate(frames.pixels):
            face = self._finder.find(frame)
            if face is not None:
                values[index] = describe_face(frame, face)
                presence[index] = face.presence
        valid = presence[:, 0] > 0
        if self._median_removed and valid.any():
            values[valid] -= np.median(values[valid], axis=0)
        ends = np.append(frames.times_s[1:], max(duration_s, frames.times_s[-1] if count else 0.0))
        return Encoded(
            values=values,
            step_start_s=frames.times_s,
            step_end_s=ends[:count],
            valid=valid,
            side={"presence": presence},
        )


def describe_face(frame: np.ndarray, face: Face) -> np.ndarray:
    """HOG, then x and y of the 68 points in sides of the aligned picture [5544]."""
    matrix = alignment(face.landmarks[:, :2])
    points = face.landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    picture = aligned(frame, matrix, points)
    where = (points[list(LANDMARKS_68)] / SIDE_PX).ravel()
    return np.concatenate([histogram_of_gradients(picture), where]).astype(np.float32)


def alignment(points: np.ndarray) -> np.ndarray:
    """Turn, scale and shift (2 x 3) that bring the eyes to their places in the picture."""
    left, right = (points[list(corners)].mean(0) for corners in _EYES)
    across = right - left
    scale = _EYES_APART * SIDE_PX / max(float(np.hypot(*across)), 1e-6)
    cosine, sine = scale * across / max(float(np.hypot(*across)), 1e-6)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    target = np.array([0.5, _EYES_HIGH]) * SIDE_PX
    return np.column_stack([turn, target - turn @ ((left + right) / 2)])


def aligned(frame: np.ndarray, matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The face upright in 112 x 112, grey outside the outline with the forehead kept."""
    back = np.linalg.inv(matrix[:, :2])
    shift = -back @ matrix[:, 2]
    coefficients = (*back[0], shift[0], *back[1], shift[1])
    picture = Image.fromarray(frame).transform(
        (SIDE_PX, SIDE_PX),
        Image.Transform.AFFINE,
        coefficients,
        Image.Resampling.BILINEAR,
        fillcolor=(_GREY,) * 3,
    )
    mask = Image.new("L", (SIDE_PX, SIDE_PX), 0)
    outline = [*LANDMARKS_68[:17], *reversed(_FOREHEAD)]
    ImageDraw.Draw(mask).polygon([tuple(point) for point in points[outline]], fill=255)
    grey = Image.new("RGB", (SIDE_PX, SIDE_PX), (_GREY,) * 3)
    return np.asarray(Image.composite(picture, grey, mask))

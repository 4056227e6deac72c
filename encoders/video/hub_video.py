"""Any image or video transformer of the model hub, or of a folder: CLIP, SigLIP, DINO, VideoMAE, V-JEPA 2.

`hub_video:preset=clip_large`, or `hub_video:weights=hf://owner/name@revision,dim=768,depth=12`; the numbers
stand in its config.json. An image transformer gives a step a frame, `fps` of them a second. A video
transformer gives a step for every run of `frames` frames, with `policy=even` (one run over the clip) or
`policy=windows` (successive runs at `fps`). `px` is the side of the pictures where it is not the config's;
published pictures have 224 px (V-JEPA 2's preset: its own 256) unless another is typed.

CLIP: Radford et al., 2021, https://arxiv.org/abs/2103.00020. SigLIP 2: Tschannen et al., 2025,
https://arxiv.org/abs/2502.14786. DINOv3: Simeoni et al., 2025, https://arxiv.org/abs/2508.10104. V-JEPA 2:
Assran et al., 2025, https://arxiv.org/abs/2506.09985.
"""

from encoders.options import OneOf
from encoders.spec import HUB_OPTIONS, EncoderSpec, FramePolicy, preset
from encoders.video import CROP, DETECTOR, MESH, PICTURES, SIDE, rate, run

PRESETS = {
    "clip_large": preset(
        "hf://openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41",
        licence="MIT",
        size_mb=1710.0,
        dim=1024,
        depth=24,
    ),
    "dinov3_base": preset(
        "hf://facebook/dinov3-vitb16-pretrain-lvd1689m@5931719e67bbdb9737e363e781fb0c67687896bc",
        licence="DINOv3 licence (its terms are to be accepted at the hub)",
        size_mb=343.0,
        dim=768,
        depth=12,
    ),
    "siglip2_base": preset(
        "hf://google/siglip2-base-patch16-224@75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2",
        licence="Apache-2.0",
        size_mb=1540.0,
        dim=768,
        depth=12,
    ),
    "vjepa2_large": preset(
        "hf://facebook/vjepa2-vitl-fpc64-256@b3c1679b7c34d3255ef3547f27c7b226aefab26f",
        licence="MIT",
        size_mb=1300.0,
        dim=1024,
        depth=24,
        policy="even",
        frames=16,
        inputs={"px": 256},
    ),
}

SPEC = EncoderSpec(
    name="hub_video",
    modality="video",
    summary="any image or video transformer, by preset= or weights=, dim= and depth=",
    implementation="encoders.video._hub:hub_video",
    weights=(DETECTOR, MESH),
    own_weights=True,
    dim=0,
    frames=FramePolicy(kind="fps", count=16, rate_hz=2.0, size=256),
    licence="that of the weights",
    memory_gb=4.0,
    seconds_per_clip_second=1.0,
    options={
        "policy": OneOf("fps", ("even", "fps", "windows")),
        "frames": run(16),
        "fps": rate(2.0),
        "px": SIDE,
        **CROP,
        **HUB_OPTIONS,
    },
    presets=PRESETS,
    inputs=PICTURES,
)

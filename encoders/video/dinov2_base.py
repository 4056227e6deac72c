"""DINOv2 ViT-B/14 on every sampled frame. Oquab et al., 2023, https://arxiv.org/abs/2304.07193."""

from encoders.video import frame_spec

SPEC = frame_spec(
    "dinov2_base",
    "DINOv2 base class token of every frame",
    "hf://facebook/dinov2-base@f9e44c814b77203eaa57a6bdbbd535f21ede1415",
    licence="Apache-2.0",
    size_mb=346.0,
)

"""CLIP ViT-B/32, image tower, on every sampled frame. Radford et al., 2021, https://arxiv.org/abs/2103.00020."""

from encoders.video import frame_spec

SPEC = frame_spec(
    "clip_vit",
    "CLIP ViT-B/32 class token of every frame",
    "hf://openai/clip-vit-base-patch32@3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    licence="MIT",
    size_mb=605.0,
)

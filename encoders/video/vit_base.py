"""ViT-B/16 (ImageNet-21k) on every sampled frame. Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929."""

from encoders.video import frame_spec

SPEC = frame_spec(
    "vit_base",
    "ViT-B/16 class token of every frame",
    "hf://google/vit-base-patch16-224-in21k@b4569560a39a0f1af58e3ddaf17facf20ab919b0",
    licence="Apache-2.0",
    size_mb=346.0,
)

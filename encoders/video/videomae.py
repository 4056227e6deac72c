"""VideoMAE base, 16 frames at once, mean of the patches. Tong et al., 2022, https://arxiv.org/abs/2203.12602."""

from encoders.video import clip_spec

SPEC = clip_spec(
    "videomae",
    "VideoMAE mean over the patches of 16 frames",
    "hf://MCG-NJU/videomae-base@dc740ceda42fce44faed2ea03c6d447db72f6af9",
    count=16,
    licence="CC-BY-NC-4.0",
    size_mb=377.0,
)

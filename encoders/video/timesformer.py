"""TimeSformer base (Kinetics-400), 8 frames at once. Bertasius et al., 2021, https://arxiv.org/abs/2102.05095."""

from encoders.video import clip_spec

SPEC = clip_spec(
    "timesformer",
    "TimeSformer class token of 8 frames",
    "hf://facebook/timesformer-base-finetuned-k400@8aaf40ea7d3d282dcb0a5dea01a198320d15d6c0",
    count=8,
    licence="CC-BY-NC-4.0",
    size_mb=486.0,
)

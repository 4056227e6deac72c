"""WavLM base: 12 blocks, 768 wide, 50 Hz. Chen et al., 2021, https://arxiv.org/abs/2110.13900."""

from encoders.audio import speech_spec

SPEC = speech_spec(
    "wavlm_base",
    "WavLM base states at 50 Hz",
    "hf://microsoft/wavlm-base@efa81aae7ff777e464159e0f877d54eac5b84f81",
    licence="CC-BY-SA-3.0",
    size_mb=378.0,
)

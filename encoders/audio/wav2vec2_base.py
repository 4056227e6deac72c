"""wav2vec 2.0 base: 12 blocks, 768 wide, 50 Hz. Baevski et al., 2020, https://arxiv.org/abs/2006.11477."""

from encoders.audio import speech_spec

SPEC = speech_spec(
    "wav2vec2_base",
    "wav2vec 2.0 base states at 50 Hz",
    "hf://facebook/wav2vec2-base@0b5b8e868dd84f03fd87d01f9c4ff0f080fecfe8",
    licence="Apache-2.0",
    size_mb=380.0,
)

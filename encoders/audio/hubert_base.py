"""HuBERT base: 12 blocks, 768 wide, 50 Hz. Hsu et al., 2021, https://arxiv.org/abs/2106.07447."""

from encoders.audio import speech_spec

SPEC = speech_spec(
    "hubert_base",
    "HuBERT base states at 50 Hz",
    "hf://facebook/hubert-base-ls960@dba3bb02fda4248b6e082697eee756de8fe8aa8a",
    licence="Apache-2.0",
    size_mb=378.0,
)

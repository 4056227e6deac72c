"""The encoder of Whisper small, multilingual: 12 blocks, 768 wide, 50 Hz.

Radford et al., 2022, https://arxiv.org/abs/2212.04356.
"""

from encoders.audio import whisper_spec

SPEC = whisper_spec(
    "whisper_small",
    "Whisper small encoder states at 50 Hz (multilingual)",
    "hf://openai/whisper-small@973afd24965f72e36ca33b3055d56a652f456b4d",
    dim=768,
    blocks=12,
    size_mb=967.0,
)

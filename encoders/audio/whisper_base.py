"""The encoder of Whisper base, multilingual: 6 blocks, 512 wide, 50 Hz.

Radford et al., 2022, https://arxiv.org/abs/2212.04356.
"""

from encoders.audio import whisper_spec

SPEC = whisper_spec(
    "whisper_base",
    "Whisper base encoder states at 50 Hz (multilingual)",
    "hf://openai/whisper-base@e37978b90ca9030d5170a5c07aadb050351a65bb",
    dim=512,
    blocks=6,
    size_mb=290.0,
)

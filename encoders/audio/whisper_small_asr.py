"""Whisper small as a transcriber of 99 languages, behind a voice detector, with word times.

`language=auto` lets the model name the language of each window; a code (`language=de`) fixes it. Any other
Whisper of the hub: `whisper_small_asr:weights=hf://openai/whisper-large-v3@REVISION`.

Radford et al., 2022, https://arxiv.org/abs/2212.04356.
"""

from encoders.audio.whisper_small import SPEC as STATES
from encoders.audio.whisper_tiny_en_asr import VOICE
from encoders.spec import EncoderSpec

SPEC = EncoderSpec(
    name="whisper_small_asr",
    modality="audio",
    summary="Whisper small transcripts (99 languages) with word times, gated by voice activity",
    implementation="encoders.audio._recognise:WhisperRecogniser",
    weights=(*STATES.weights, VOICE),
    dim=0,
    rate_hz=16000,
    licence="Apache-2.0",
    memory_gb=3.5,
    seconds_per_clip_second=1.5,
    options={"language": "auto", "word_times": True, "voice_gate": True},
)

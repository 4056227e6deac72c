"""Whisper tiny.en as a transcriber of English, behind a voice detector, with word times.

Greedy decoding of the windows in which somebody speaks; empty text where nobody does. MIT weights.
"""

from collections.abc import Mapping

from encoders.audio.whisper_tiny_en import MODEL
from encoders.options import Declared, Switch
from encoders.spec import EncoderSpec, Weights

VOICE = Weights(
    name="voice",
    uri="package://silero-vad==6.2.3/silero_vad/data/silero_vad_16k.safetensors",
    sha256="c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
    licence="MIT",
    size_mb=1.2,
    when="voice_gate=True",
)

TRANSCRIPT: Mapping[str, Declared] = {"word_times": Switch(True), "voice_gate": Switch(True)}
"""word_times: give times of words. voice_gate: read only where the voice detector finds speech."""

_FOLDER = MODEL.uri.rpartition("/")[0]

SPEC = EncoderSpec(
    name="whisper_tiny_en_asr",
    modality="audio",
    summary="Whisper tiny.en transcripts with word times, gated by voice activity, offline",
    implementation="encoders.audio._recognise:WhisperRecogniser",
    weights=(
        MODEL,
        Weights(
            name="tokenizer",
            uri=f"{_FOLDER}/tokenizer.json",
            sha256="929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            licence="MIT",
            size_mb=2.1,
        ),
        Weights(
            name="config",
            uri=f"{_FOLDER}/config.json",
            sha256="14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            licence="MIT",
            size_mb=0.002,
        ),
        VOICE,
    ),
    dim=0,
    rate_hz=16000,
    licence="MIT",
    memory_gb=0.9,
    seconds_per_clip_second=0.08,
    options=TRANSCRIPT,
)

"""Audio encoders: sound, voice and prosody."""

from collections.abc import Mapping
from dataclasses import replace

from encoders.options import Declared, Number
from encoders.spec import HUB_OPTIONS, EncoderSpec, Inputs, Weights

DIMENSIONS = ("arousal", "dominance", "valence")
"""Of dimensional emotion, in the order of audEERING's head."""

LOUD: Mapping[str, Declared] = {"loud": Number(0, 0, 200)}
"""Of encoders of 20 ms steps: steps more than so many dB below the loudest of their clip are not valid;
0: all are."""

MEL = Inputs(
    dim=160,
    dtype="float16",
    publisher="encoders.audio._inputs:MelPublisher",
    branch="encoders.audio._inputs:WhisperBranch",
)
"""Of Whisper: two log-mel frames of 80 bands a step of 20 ms."""

MELS = replace(MEL, dim=2, times=("mels",), options={"mels": Number(80, 1, 512)})
"""Of any Whisper: two log-mel frames of ``mels`` bands a step."""

WAVE = Inputs(
    dim=320,
    dtype="float16",
    publisher="encoders.audio._inputs:WavePublisher",
    branch="encoders.audio._inputs:SpeechBranch",
)
"""Of wav2vec 2.0 and its kin: 320 samples a step of 20 ms."""


def speech_spec(
    name: str, summary: str, uri: str, *, licence: str, size_mb: float, dim: int = 768
) -> EncoderSpec:
    """The spec of a self-supervised speech transformer with 12 blocks."""
    return EncoderSpec(
        name=name,
        modality="audio",
        summary=summary,
        implementation="encoders.audio._speech:SpeechTransformer",
        weights=(Weights(name="model", uri=uri, sha256=None, licence=licence, size_mb=size_mb),),
        dim=dim,
        num_layers=13,
        hop_s=0.02,
        rate_hz=16000,
        licence=licence,
        memory_gb=2.0,
        seconds_per_clip_second=0.15,
        options={**HUB_OPTIONS, **LOUD},
        inputs=WAVE,
    )


def whisper_spec(
    name: str, summary: str, uri: str, *, dim: int, blocks: int, size_mb: float
) -> EncoderSpec:
    """The spec of the encoder of a Whisper of the model hub."""
    return EncoderSpec(
        name=name,
        modality="audio",
        summary=summary,
        implementation="encoders.audio._whisper:WhisperStates",
        weights=(
            Weights(name="model", uri=uri, sha256=None, licence="Apache-2.0", size_mb=size_mb),
        ),
        dim=dim,
        num_layers=blocks + 1,
        hop_s=0.02,
        rate_hz=16000,
        licence="Apache-2.0",
        memory_gb=3 * size_mb / 1000 + 0.5,
        seconds_per_clip_second=0.02 * (dim / 384) ** 2 * blocks / 4,
        options={**HUB_OPTIONS, **LOUD},
        inputs=MEL,
    )

"""wav2vec 2.0 trained for emotion: 12 blocks, 1024 wide, 50 Hz; arousal, dominance and valence of the clip.

The robust large model, cut to 12 blocks and fine-tuned on MSP-Podcast with its own head: a dense layer, tanh
and three outputs on the mean of the last states, about 0 to 1 each. For research only. A net
that trains it has a head of its own in place of that one. Wagner et al., 2023,
https://arxiv.org/abs/2203.07378.
"""

from encoders.audio import DIMENSIONS, LOUD, WAVE
from encoders.spec import HUB_OPTIONS, EncoderSpec, OwnAnswer, Weights

LICENCE = "CC-BY-NC-SA-4.0 (non-commercial)"

SPEC = EncoderSpec(
    name="wav2vec2_dimensional",
    modality="audio",
    summary="wav2vec 2.0 fine-tuned for emotion (non-commercial); arousal, dominance, valence beside",
    implementation="encoders.audio._speech_heads:DimensionalSpeech",
    weights=(
        Weights(
            name="model",
            uri="hf://audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim@"
            "6eba34a2485ea31cb03600241787c3a5edab8626",
            sha256=None,
            licence=LICENCE,
            size_mb=661.0,
        ),
    ),
    dim=1024,
    num_layers=13,
    hop_s=0.02,
    rate_hz=16000,
    licence=LICENCE,
    memory_gb=2.5,
    seconds_per_clip_second=0.25,
    options={**HUB_OPTIONS, **LOUD},
    inputs=WAVE,
    side=dict.fromkeys(DIMENSIONS, 1),
    answers=dict.fromkeys(DIMENSIONS, OwnAnswer(range=(0.0, 1.0))),
)

"""The encoder of any Whisper of the model hub, or of a folder, at 50 steps a second.

`hub_whisper:preset=large_v3`, or `hub_whisper:weights=hf://owner/name@revision,dim=1280,depth=32`; the
numbers stand in its config.json (`d_model`, `encoder_layers`). Radford et al., 2022, https://arxiv.org/abs/2212.04356.
"""

from encoders.audio import LOUD, MELS
from encoders.spec import HUB_OPTIONS, EncoderSpec, preset

PRESETS = {
    "large_v3": preset(
        "hf://openai/whisper-large-v3@06f233fe06e710322aca913c1bc4249a0d71fce1",
        licence="Apache-2.0",
        size_mb=3087.0,
        dim=1280,
        depth=32,
        mels=128,
    ),
}

SPEC = EncoderSpec(
    name="hub_whisper",
    modality="audio",
    summary="the encoder of any Whisper, by preset= or weights=, dim= and depth=",
    implementation="encoders.audio._whisper:WhisperStates",
    weights=(),
    own_weights=True,
    dim=0,
    hop_s=0.02,
    rate_hz=16000,
    licence="that of the weights",
    memory_gb=10.0,
    seconds_per_clip_second=1.0,
    options={**HUB_OPTIONS, **LOUD},
    presets=PRESETS,
    inputs=MELS,
)

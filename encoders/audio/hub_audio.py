"""Any other speech transformer of the model hub, or of a folder: wav2vec 2.0, HuBERT, WavLM and their kin.

`hub_audio:preset=wavlm_large`, or `hub_audio:weights=hf://owner/name@revision,dim=1024,depth=24`; the
numbers stand in its config.json.

HuBERT: Hsu et al., 2021, https://arxiv.org/abs/2106.07447. WavLM: Chen et al., 2021,
https://arxiv.org/abs/2110.13900. data2vec:
Baevski et al., 2022, https://arxiv.org/abs/2202.03555.
"""

from encoders.audio import LOUD, WAVE
from encoders.spec import HUB_OPTIONS, EncoderSpec, preset

PRESETS = {
    "hubert_large": preset(
        "hf://facebook/hubert-large-ll60k@ff022d095678a2995f3c49bab18a96a9e553f782",
        licence="Apache-2.0",
        size_mb=1262.0,
        dim=1024,
        depth=24,
    ),
    "wavlm_large": preset(
        "hf://microsoft/wavlm-large@c1423ed94bb01d80a3f5ce5bc39f6026a0f4828c",
        licence="CC-BY-SA-3.0",
        size_mb=1262.0,
        dim=1024,
        depth=24,
    ),
}

SPEC = EncoderSpec(
    name="hub_audio",
    modality="audio",
    summary="any wav2vec 2.0, HuBERT, WavLM or data2vec, by preset= or weights=, dim= and depth=",
    implementation="encoders.audio._speech:SpeechTransformer",
    weights=(),
    own_weights=True,
    dim=0,
    hop_s=0.02,
    rate_hz=16000,
    licence="that of the weights",
    memory_gb=4.0,
    seconds_per_clip_second=0.3,
    options={**HUB_OPTIONS, **LOUD},
    inputs=WAVE,
    presets=PRESETS,
)

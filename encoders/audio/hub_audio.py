"""Any other speech transformer of the model hub, or of a folder: wav2vec 2.0, HuBERT, WavLM and their kin.

`hub_audio:weights=hf://owner/name@revision,dim=1024,depth=24`; the numbers stand in its config.json.
"""

from encoders.audio import WAVE
from encoders.spec import HUB_OPTIONS, EncoderSpec

SPEC = EncoderSpec(
    name="hub_audio",
    modality="audio",
    summary="any wav2vec 2.0, HuBERT or WavLM, by weights=, dim= and depth=",
    implementation="encoders.audio._speech:SpeechTransformer",
    weights=(),
    own_weights=True,
    dim=0,
    hop_s=0.02,
    rate_hz=16000,
    licence="that of the weights",
    memory_gb=4.0,
    seconds_per_clip_second=0.3,
    options=HUB_OPTIONS,
    inputs=WAVE,
)

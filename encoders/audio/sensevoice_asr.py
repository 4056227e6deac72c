"""SenseVoice small as a transcriber of Chinese, Cantonese, English, Japanese and Korean, with word times.

`--transcriber sensevoice_asr:weights=hf://FunAudioLLM/SenseVoiceSmall@REVISION`; `language=auto` lets it name
the language, a code (`en`, `zh`, `yue`, `ja`, `ko`) fixes it. Files and licence are those of `sensevoice`.
"""

from encoders.audio.sensevoice import LANGUAGES
from encoders.audio.sensevoice import SPEC as STATES
from encoders.audio.whisper_tiny_en_asr import TRANSCRIPT, VOICE
from encoders.options import OneOf
from encoders.spec import EncoderSpec

SPEC = EncoderSpec(
    name="sensevoice_asr",
    modality="audio",
    summary="SenseVoice small transcripts (5 languages) by weights=, with word times, gated by voice",
    implementation="encoders.audio._sensevoice_words:SenseVoiceRecogniser",
    weights=(VOICE,),
    own_weights=True,
    dim=0,
    rate_hz=16000,
    licence=STATES.licence,
    memory_gb=2.0,
    seconds_per_clip_second=0.1,
    options={"language": OneOf("auto", tuple(LANGUAGES)), **TRANSCRIPT},
)

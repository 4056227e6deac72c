"""Whisper small as a transcriber of 99 languages, behind a voice detector, with word times.

`language=auto` lets the model name the language of each window; a code (`language=de`) fixes it. Any other
Whisper of the hub: `whisper_small_asr:weights=hf://openai/whisper-large-v3@REVISION`.

Radford et al., 2022, https://arxiv.org/abs/2212.04356.
"""

from encoders.audio.whisper_small import SPEC as STATES
from encoders.audio.whisper_tiny_en_asr import TRANSCRIPT, VOICE
from encoders.options import OneOf
from encoders.spec import EncoderSpec

LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta "
    "no th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk "
    "sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb "
    "my bo tl mg as tt haw ln ha ba jw su yue"
)
"""Codes of all languages that a Whisper knows; `yue` since large-v3."""

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
    options={"language": OneOf("auto", ("auto", *LANGUAGES.split())), **TRANSCRIPT},
)

"""SenseVoice small: speech of five languages; states every 60 ms, 8 emotions and 9 events of the clip.

`sensevoice:weights=hf://FunAudioLLM/SenseVoiceSmall@REVISION`, or the folder of its files (`model.pt` or the
same as `model.safetensors`, `am.mvn`, `*.bpe.model`). Code MIT; the weights have FunASR's model licence. As a
transcriber: `sensevoice_asr`. An et al., 2024, https://arxiv.org/abs/2407.04051.
"""

from encoders.spec import HUB_OPTIONS, EncoderSpec, Inputs, OwnAnswer

TOKENS_OF = {
    "angry": "<|ANGRY|>",
    "disgusted": "<|DISGUSTED|>",
    "fearful": "<|FEARFUL|>",
    "happy": "<|HAPPY|>",
    "neutral": "<|NEUTRAL|>",
    "sad": "<|SAD|>",
    "surprised": "<|SURPRISED|>",
    "unknown": "<|EMO_UNKNOWN|>",
    "applause": "<|Applause|>",
    "breath": "<|Breath|>",
    "cough": "<|Cough|>",
    "cry": "<|Cry|>",
    "laughter": "<|Laughter|>",
    "music": "<|BGM|>",
    "none": "<|Event_UNK|>",
    "sneeze": "<|Sneeze|>",
    "speech": "<|Speech|>",
}
"""Name of an emotion or event -> the model's token."""

LANGUAGES = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12}
"""Code of a language -> row of the model's `embed` that asks for it."""

EMOTIONS, EVENTS = tuple(TOKENS_OF)[:8], tuple(TOKENS_OF)[8:]

SPEC = EncoderSpec(
    name="sensevoice",
    modality="audio",
    summary="SenseVoice small by weights=; probabilities of 8 emotions and 9 events beside its states",
    implementation="encoders.audio._sensevoice:SenseVoiceStates",
    weights=(),
    own_weights=True,
    dim=512,
    num_layers=70,
    hop_s=0.06,
    rate_hz=16000,
    licence="FunASR model licence (code MIT)",
    memory_gb=2.0,
    seconds_per_clip_second=0.1,
    options=HUB_OPTIONS,
    inputs=Inputs(
        dim=561,
        dtype="float16",
        publisher="encoders.audio._sensevoice_inputs:SenseVoicePublisher",
        branch="encoders.audio._sensevoice_inputs:SenseVoiceBranch",
    ),
    side={"emotion": len(EMOTIONS), "event": len(EVENTS)},
    answers={"emotion": OwnAnswer(classes=EMOTIONS)},
)

"""emotion2vec+: speech trained on emotion alone; states at 50 Hz and probabilities of nine classes.

`emotion2vec:preset=plus_large`, or the base model (its size is the default) from a folder or file,
`emotion2vec:weights=file:///models/emotion2vec_plus_base/model.pt`, or at a revision of the hub,
`weights=hf://emotion2vec/emotion2vec_plus_base@REVISION`. The code is MIT; the weights have the licence that
their card names. The nine are FunASR's, in its order; `other` and `unknown` are classes of the model.
Ma et al., 2024, https://arxiv.org/abs/2312.15185.
"""

from dataclasses import replace

from encoders.audio import LOUD, WAVE
from encoders.spec import HUB_OPTIONS, EncoderSpec, OwnAnswer, preset

CLASSES = (
    "angry",
    "disgusted",
    "fearful",
    "happy",
    "neutral",
    "other",
    "sad",
    "surprised",
    "unknown",
)

PRESETS = {
    "plus_large": preset(
        "hf://emotion2vec/emotion2vec_plus_large@6c303ba987b86b93193de93e34bb2b077a6bedc4",
        licence="FunASR model licence (see the card)",
        size_mb=1945.8,
        dim=1024,
        depth=12,
    ),
}

SPEC = EncoderSpec(
    name="emotion2vec",
    modality="audio",
    summary="emotion2vec+ by preset= or weights=; probabilities of 9 emotions beside its states",
    implementation="encoders.audio._emotion2vec:Emotion2vec",
    weights=(),
    own_weights=True,
    dim=768,
    num_layers=13,
    hop_s=0.02,
    rate_hz=16000,
    licence="that of the weights (code MIT)",
    memory_gb=4.0,
    seconds_per_clip_second=0.2,
    options={**HUB_OPTIONS, **LOUD},
    presets=PRESETS,
    inputs=replace(
        WAVE,
        publisher="encoders.audio._emotion2vec:Emotion2vecPublisher",
        branch="encoders.audio._emotion2vec:Emotion2vecBranch",
    ),
    side={"emotion": len(CLASSES)},
    answers={"emotion": OwnAnswer(classes=CLASSES)},
)

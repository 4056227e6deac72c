"""EmotiEffNet of several tasks: probabilities of 8 emotions, valence and arousal of each face.

`emotieffnet_va:weights=file:///models/enet_b0_8_va_mtl.pt`; all else is as in `emotieffnet`.
"""

from dataclasses import replace

from encoders.spec import OwnAnswer
from encoders.video import emotieffnet

SPEC = replace(
    emotieffnet.SPEC,
    name="emotieffnet_va",
    summary="faces by EmotiEffNet, by weights=; 8 emotions, valence and arousal beside its features",
    side={**emotieffnet.SPEC.side, "valence": 1, "arousal": 1},
    answers={
        **emotieffnet.SPEC.answers,
        "valence": OwnAnswer(range=(-1.0, 1.0)),
        "arousal": OwnAnswer(range=(-1.0, 1.0)),
    },
)

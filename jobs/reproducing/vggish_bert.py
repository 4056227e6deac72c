"""Voice and words of IEMOCAP in five classes: VGGish and BERT under heads of 512, by session.

The published split resamples rows with replacement before it cuts; it cannot be repeated here, where no
speaker stands on both sides.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from jobs.datasets import iemocap
from jobs.reproducing import encoded
from jobs.reproducing.preset import Fused, Model, Preset, ReproduceConfig, Step, TrainedNet

ENCODERS = {"audio": "vggish", "text": "bert_base"}
METRICS = ("accuracy", "macro_f1")
PUBLISHED = {"audio+text": (0.766, 0.772), "audio": (0.601, 0.607), "text": (0.655, 0.661)}
"""Modalities -> accuracy and macro F1."""

CLEAN_SEEDS = (71, 72, 73)
LATE = "late fusion"


def steps(config: ReproduceConfig) -> Sequence[Step]:
    """The five classes of IEMOCAP, and its features."""
    prepared = iemocap.Config(root=config.root, source=config.data, scheme="five")
    encoders = encoded.chosen(config, ENCODERS)
    return encoded.steps(config, "iemocap", prepared, list(encoders.values()))


def models(config: ReproduceConfig) -> Sequence[Model]:
    """Voice, words, both in one net, and both fused late."""
    encoders = dict(sorted(encoded.chosen(config, ENCODERS).items()))
    sets = [each for size in (1, 2) for each in combinations(encoders, size)]
    lines = [_model(config, each, encoders) for each in sets]
    singles = tuple(line.name for line in lines if "+" not in line.name)
    if len(singles) > 1:
        lines.append(Model(name=LATE, clean=Fused(models=singles), note="not published"))
    return lines


def _model(config: ReproduceConfig, modalities: Sequence[str], encoders: dict[str, str]) -> Model:
    name = "+".join(modalities)
    inputs = [encoders[modality] for modality in modalities]
    recipe: dict[str, Any] = {
        "folds": "session", "pool": "mean", "optimiser": "adamw", "batch_size": 32, "epochs": 50,
        "class_weights": True,
    }  # fmt: skip
    return Model(
        name=name,
        published=dict(zip(METRICS, PUBLISHED[name], strict=True)) if name in PUBLISHED else {},
        reproduced=TrainedNet(
            config=config.trained(
                inputs, "concat_mlp", {"preset": "vggish_bert"}, seeds=(71,), lr=2e-5, **recipe
            )
        ),
        clean=TrainedNet(
            config=config.trained(
                inputs, "concat_mlp", {"hidden": 512}, seeds=CLEAN_SEEDS, lr=1e-3, **recipe
            )
        ),
    )


PRESET = Preset(
    title="IEMOCAP in five classes: VGGish and BERT",
    source="https://github.com/LawsonOliveira/Emotion_recognition",
    dataset="iemocap",
    data="the folder IEMOCAP_full_release",
    task="emotion",
    metrics=METRICS,
    why=(
        "Rows are drawn with replacement before the split: about 55 % of the published test rows are "
        "training rows too. Here each session is held out in turn, in both columns.",
        "Its net ends in a softmax before the cross-entropy, so that the loss cannot fall below 0.905.",
        "It trains on the first 3 s of a turn, scaled as integers, and serves sound scaled as fractions.",
        "VGGish and BERT are tuned with its heads; here they are frozen, and the heads alone train. "
        "Safe weights of VGGish are not published: --encoders vggish:weights=FILE bert_base, or others.",
    ),
    columns={
        "reproduced": "its heads, batch, learning rate of 2e-5 and class weights on frozen features, seed "
        "71, one session held out in turn.",
        "clean": "a head of the same width that is normalised, a learning rate that suits frozen features, "
        "three seeds averaged, one session held out in turn.",
    },
    steps=steps,
    models=models,
)

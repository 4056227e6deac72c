"""M2FNet on MELD: the paper's seven emotions, and a study's eight pairs of emotion and sentiment.

Settings of the paper (https://arxiv.org/abs/2206.02187): one encoder with a skip connection a modality, five
layers of fusion, AdamW at 5e-4. Its extractors (a tuned RoBERTa, a mel ResNet, a face ResNet) are not public:
public encoders stand in, each named in the page's config.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from jobs.datasets import meld
from jobs.preparing.adapter import files_below, is_media
from jobs.reproducing import encoded
from jobs.reproducing.preset import Model, Preset, Protocol, ReproduceConfig, Step, TrainedNet

ENCODERS = {"text": "roberta_base", "audio": "wav2vec2_base", "video": "face_expression"}
METRICS = ("accuracy", "weighted_f1")
PAPER = {
    "text+audio+video": (0.6785, 0.6671),
    "text": (0.6724, 0.6623),
    "audio": (0.4904, 0.3963),
    "video": (0.4563, 0.3244),
}
"""Modalities -> accuracy and weighted F1."""

STUDY = {"text+audio+video": (0.35, None)}
"""Of the eight pairs: about 35 % accuracy; no weighted F1."""

CLEAN_SEEDS = (0, 1, 2)
Figures = Mapping[str, tuple[float, float | None]]


def encoders_of(config: ReproduceConfig) -> dict[str, str]:
    """Modality -> encoder; without films those of text alone."""
    found = encoded.chosen(config, ENCODERS)
    films = any(is_media(file) for file in files_below(config.data))
    return found if films else {"text": found.get("text", ENCODERS["text"])}


def steps_for(glued: bool) -> Callable[[ReproduceConfig], list[Step]]:
    """MELD, with the eight pairs or without, and its features."""

    def steps(config: ReproduceConfig) -> list[Step]:
        prepared = meld.Config(root=config.root, source=config.data, glued=glued)
        return encoded.steps(config, "meld", prepared, list(encoders_of(config).values()))

    return steps


def models_for(published: Figures) -> Callable[[ReproduceConfig], Sequence[Model]]:
    """The published sets of modalities, and the other ones of those that are there."""

    def models(config: ReproduceConfig) -> Sequence[Model]:
        there = encoders_of(config)
        sets = [each for size in (3, 2, 1) for each in combinations(there, size)]
        return [_model(config, there, each, published) for each in sets]

    return models


def _model(
    config: ReproduceConfig, there: dict[str, str], modalities: Sequence[str], published: Figures
) -> Model:
    name = "+".join(modalities)
    figures = zip(METRICS, published.get(name, (None, None)), strict=True)
    inputs = [there[modality] for modality in modalities]
    recipe: dict[str, Any] = {
        "optimiser": "adamw", "lr": 5e-4, "weight_decay": 5e-4, "batch_size": 32, "epochs": 60,
        "patience": 10, "monitor": "weighted_f1",
    }  # fmt: skip
    options = {"encoders": 1, "fusion_layers": 5, "dropout": 0.4}
    return Model(
        name=name,
        published={metric: value for metric, value in figures if value is not None},
        reproduced=TrainedNet(
            config=config.trained(inputs, "m2fnet", options, seeds=(0,), pool="mean", **recipe)
        ),
        clean=TrainedNet(
            config=config.trained(
                inputs, "m2fnet", options, seeds=CLEAN_SEEDS, pool="mean", causal=True, **recipe
            )
        ),
        note="" if published.get(name) else "not published",
    )


COLUMNS: Mapping[Protocol, str] = {
    "reproduced": "the paper's sizes, learning rate and split, every utterance reading the whole "
    "dialogue; the epoch of best weighted F1 on dev, one seed.",
    "clean": "the same, and no utterance reads a later one; three seeds averaged.",
}
DATA = "the folder MELD.Raw; without its films the lines of text alone are made, and no film is captioned"
FUTURE = "Every utterance reads the whole dialogue, later turns among it: no figure of live use."

MELD = Preset(
    title="M2FNet on MELD, seven emotions",
    source="https://arxiv.org/abs/2206.02187, table 2",
    dataset="meld",
    data=DATA,
    task="emotion",
    metrics=METRICS,
    why=(
        "The paper's text encoder is a RoBERTa tuned on MELD, and its extractors of sound and faces are not "
        "public; here frozen public encoders stand in for them.",
        FUTURE,
        "No official code is public: which split chose the epoch cannot be told.",
        "One figure without seeds or an interval: dialogues are 280.",
    ),
    columns=COLUMNS,
    steps=steps_for(glued=False),
    models=models_for(PAPER),
)
GLUED = Preset(
    title="A simplified M2FNet on MELD, eight pairs of emotion and sentiment",
    source="https://github.com/thomas-dujardin/multimodalemotion",
    dataset="meld",
    data=DATA,
    task="emotion_sentiment",
    metrics=METRICS,
    why=(
        "The study's loss is wrapped as a new leaf before it is differentiated: no weight gets a gradient, "
        "and its 35 % lie below the 48 % of always saying neutral.",
        "It attends over the rows of a batch, which are other dialogues, and joins films to lines by their "
        "place in two sorted lists, which one missing film shifts.",
        "It fits a PCA in each clip alone, so that its components mean something else in each.",
        FUTURE,
    ),
    columns=COLUMNS,
    steps=steps_for(glued=True),
    models=models_for(STUDY),
    captions=True,
)

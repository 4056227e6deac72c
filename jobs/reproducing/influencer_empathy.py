"""The fourteen models of the influencer-empathy study: LSTMs, tensors, memories and graphs, L1 on a score.

Sizes, batch, learning rate and weight decay are the study's; its loop of training is that of MMSA, its parent
(Adam, L1, the epoch of least validation loss, 8 epochs of patience). It prints no figures.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from jobs import features
from jobs.datasets import influencer_empathy, mmsa
from jobs.interop.arrays import open_arrays
from jobs.reproducing.preset import Model, Preset, ReproduceConfig, Step, TrainedNet
from jobs.training.run import TrainConfig

TABLES = {"text": "bert", "audio": "covarep", "vision": "openface"}
"""Array of the pickle -> feature table."""

MODALITY: Mapping[str, Literal["text", "audio", "video"]] = {
    "text": "text", "audio": "audio", "vision": "video",
}  # fmt: skip
PUBLISHED_SEED = (42,)
CLEAN_SEEDS = (42, 43, 44)

CLEAN_RECURRENT: Mapping[str, Any] = {"norm": "feature", "readout": "ends"}
"""Normalised over features, not over places in time; both directions of the LSTM are read at their ends."""

CLEAN_TENSOR = {
    "hidden.text": 128, "hidden.audio": 32, "hidden.*": 128, "recurrent_out": 128, "post_fusion": 16,
    "norm": "layer",
}  # fmt: skip
"""A8 without the bounds of -3 and 3, which are of other labels."""


class Study(NamedTuple):
    """A row of the study's table of settings."""

    title: str
    net: str
    reads: str
    """Arrays."""

    batch_size: int
    lr: float
    weight_decay: float
    patience: int = 8


ALL = "text audio vision"
MODELS = {
    "A1": Study("text", "lstm", "text", 128, 2e-3, 1e-4),
    "A2": Study("audio", "lstm", "audio", 128, 2e-3, 0.0, 40),
    "A3": Study("image", "lstm", "vision", 64, 1e-3, 0.0),
    "A4": Study("text+audio", "ef_lstm", "text audio", 128, 1e-2, 5e-3),
    "A5": Study("text+image", "ef_lstm", "text vision", 64, 2e-3, 1e-3),
    "A6": Study("audio+image", "ef_lstm", "audio vision", 128, 2e-3, 0.0),
    "A7": Study("all three", "ef_lstm", ALL, 32, 5e-4, 1e-4),
    "A8": Study("TFN", "tfn", ALL, 32, 5e-4, 0.0),
    "A9": Study("LMF", "lmf", ALL, 64, 5e-3, 5e-3, 40),
    "A10": Study("MFN", "mfn", ALL, 64, 1e-3, 0.0),
    "A11": Study("Graph-MFN, no graph", "graph_mfn", ALL, 32, 2e-3, 5e-3),
    "A12": Study("Graph-MFN, no window", "graph_mfn", ALL, 64, 5e-4, 0.0),
    "A13": Study("Graph-MFN, no memory", "graph_mfn", ALL, 32, 5e-4, 5e-3),
    "A14": Study("Graph-MFN", "graph_mfn", ALL, 64, 5e-4, 0.0),
}
"""The preset of the net of that name is its configuration."""


def steps(config: ReproduceConfig) -> Sequence[Step]:
    """The pickle's clips, and its three arrays."""
    file = mmsa.pickle_of(config.data, influencer_empathy.ABOUT)
    has_train, _ = layout_of(file)
    prepared = influencer_empathy.Config(
        root=config.root, source=file, split="" if has_train else "60/20/20"
    )
    return [
        Step(command="prepare influencer_empathy", config=prepared),
        *(
            Step(
                command="features import",
                config=features.Import(
                    root=config.root,
                    file=file,
                    array=array,
                    name=table,
                    modality=MODALITY[array],
                    licence=influencer_empathy.ABOUT.licence,
                ),
            )
            for array, table in TABLES.items()
        ),
    ]


def layout_of(file: str) -> tuple[bool, int]:
    """Whether a pickle has a part for training, and the steps of its clips."""
    with open_arrays(file) as content:
        key = next(name for name in content if name.rpartition("/")[2] == "text")
        return any(name.startswith("train/") for name in content), mmsa.shape_of(content, key)[1]


def models(config: ReproduceConfig) -> Sequence[Model]:
    """A1 to A14."""
    _, length = layout_of(mmsa.pickle_of(config.data, influencer_empathy.ABOUT))
    return [
        Model(
            name=name,
            title=study.title,
            reproduced=TrainedNet(
                config=_trained(config, study, as_published(name, study, length), clean=False)
            ),
            clean=TrainedNet(config=_trained(config, study, mended(name, study), clean=True)),
        )
        for name, study in MODELS.items()
    ]


def as_published(name: str, study: Study, length: int) -> dict[str, Any]:
    """Options of a net as the study ran it, for clips of a length [steps]."""
    options: dict[str, Any] = {"preset": name}
    if study.net in ("lstm", "ef_lstm"):
        options["steps"] = length
    if name in ("A12", "A13", "A14"):
        options["frozen_vertices"] = True
    return options


def mended(name: str, study: Study) -> dict[str, Any]:
    """Options of the same net without the study's faults."""
    if study.net in ("lstm", "ef_lstm"):
        return {"preset": name, **CLEAN_RECURRENT}
    return dict(CLEAN_TENSOR) if name == "A8" else {"preset": name}


def _trained(
    config: ReproduceConfig, study: Study, options: Mapping[str, Any], *, clean: bool
) -> TrainConfig:
    return config.trained(
        [TABLES[array] for array in study.reads.split()],
        study.net,
        options,
        seeds=CLEAN_SEEDS if clean else PUBLISHED_SEED,
        scale="standard" if clean else "none",
        target_scale="standard" if clean else "none",
        optimiser="adam",
        epochs=100,
        patience=study.patience,
        batch_size=study.batch_size,
        lr=study.lr,
        weight_decay=study.weight_decay,
        clip_norm=1.0 if clean else 0.0,
        lr_factors={"factor.": 0.1} if study.net == "lmf" else {},
    )


PRESET = Preset(
    title="Influencer empathy: fourteen models",
    source="https://github.com/multimodal-influencer-empathy/Multimodal-Influencer-empathy",
    dataset="influencer_empathy",
    data="the pickle empathy_test_data.pkl, with the parts train, valid and test or one part alone",
    task="empathy",
    metrics=("mae", "pearson", "acc2_has_zero", "f1_has_zero"),
    why=(
        "The study prints no figures: its scripts print one dict each, and write no file.",
        "The networks at the vertices of its fusion graph are in a plain dict: no optimiser sees them, they "
        "are not saved, and each load draws new ones; A12 to A14 were evaluated with random weights there.",
        "Its normalisation over places in time (batch norm of 624 channels) holds for clips of that length "
        "alone, and its LSTMs are read at the last entry of one direction.",
        "A10 to A14 were fed audio and image as their mean over time, repeated at every step; here both "
        "columns read the sequences.",
        "A8 squeezes its answer between -3 and 3, the range of another dataset.",
        "The file names no speaker: clips of one person may stand on both sides of a split.",
    ),
    columns={
        "reproduced": "the study's nets and settings, the graph's vertices frozen as drawn, seed 42, raw "
        "features; the epoch of least validation loss.",
        "clean": "the same sizes; vertices train, normalisation over features, no bounds, features and "
        "targets scaled, three seeds averaged.",
    },
    steps=steps,
    models=models,
)

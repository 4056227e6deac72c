"""MMSA's tables of sentiment as a value: MOSI, MOSEI and CH-SIMS, five seeds, features as handed out.

Figures: https://github.com/thuiar/MMSA, results/result-stat.md; settings: its config_regression.json for
MOSI, with those of MOSEI where they differ. Its settings for CH-SIMS are not repeated: MOSI's stand in.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from cluster import storage
from cluster.errors import NotPreparedError
from jobs import features
from jobs.datasets import mmsa
from jobs.preparing.adapter import files_below
from jobs.reproducing.preset import Model, Preset, ReproduceConfig, Step, TrainedNet

SEEDS = (1111, 1112, 1113, 1114, 1115)
LICENCE = "research use"
ARRAYS: Mapping[str, Literal["text", "audio", "video"]] = {
    "text": "text", "audio": "audio", "vision": "video",
}  # fmt: skip
"""Array of the pickle -> modality."""

SIGNED = (
    "acc2_has_zero", "f1_has_zero", "acc2_nonzero", "f1_nonzero", "acc5", "acc7", "mae", "pearson",
)  # fmt: skip
CHINESE = ("sims_acc2", "sims_acc3", "sims_acc5", "sims_f1", "sims_mae", "sims_pearson")
"""Columns of its tables, in their order."""

TUNED = "its BERT is tuned together with the net; here the features of the file are, untuned"

Options = dict[str, int | float | str | bool]


class Setting(NamedTuple):
    """How MMSA trains one net."""

    net: str
    aligned: bool
    batch_size: int
    lr: float
    weight_decay: float
    options: Options
    clean: Mapping[str, int | float | str | bool] = MappingProxyType({})
    """In place of some of them, where the net of MMSA has a fault."""
    clip_norm: float = 0.0
    note: str = ""


def hidden(text: int, audio: int, video: int) -> Options:
    """Widths of the subnets."""
    return {"hidden.text": text, "hidden.audio": audio, "hidden.video": video}


MEMORY: Options = {"align": "shared", "gates_see_memory": True}
GRAPH: Options = {
    "align": "shared", "efficacy": "linear", "vertex": "linear", "frozen_vertices": True,
}  # fmt: skip
TRAINED_GRAPH: Options = {"efficacy": "sigmoid", "vertex": "relu", "frozen_vertices": False}

SETTINGS = {
    "EF-LSTM": Setting("ef_lstm", True, 32, 1e-3, 5e-3, {
        "hidden": 128, "layers": 4, "dropout": 0.5,
    }, {}, 0.0, "MMSA normalises over places in time; here both columns do so over features"),
    "LF-DNN": Setting("lf_dnn", False, 128, 1e-3, 1e-2, {
        **hidden(128, 16, 128), "recurrent_out": 256, "post_fusion": 128, "dropout": 0.2, "norm": "batch",
    }, {"norm": "layer"}),
    "TFN": Setting("tfn", False, 32, 1e-3, 0.0, {
        **hidden(128, 32, 128), "recurrent_out": 32, "post_fusion": 64, "dropout": 0.3, "norm": "batch",
    }, {"norm": "layer"}),
    "LMF": Setting("lmf", False, 64, 1e-3, 5e-3, {
        **hidden(128, 16, 128), "recurrent_out": 64, "rank": 3, "dropout": 0.3, "norm": "batch",
        "learned_ranks": False,
    }, {"norm": "layer", "learned_ranks": True}),
    "MFN": Setting("mfn", True, 128, 2e-3, 0.0, {
        **hidden(256, 32, 256), **MEMORY, "memory": 400, "attention": 32, "candidate": 64, "keep": 256,
        "add": 32, "head": 128, "attention_dropout": 0.2, "candidate_dropout": 0.0, "keep_dropout": 0.7,
        "add_dropout": 0.5, "head_dropout": 0.0,
    }, {}, 0.0, "MMSA feeds audio and video as their means over time; here both columns read the sequences"),
    "Graph-MFN": Setting("graph_mfn", True, 32, 2e-3, 5e-3, {
        **hidden(256, 32, 256), **GRAPH, "memory_width": 300, "node": 64, "candidate": 32, "keep": 128,
        "add": 64, "head": 256, "candidate_dropout": 0.0, "keep_dropout": 0.5, "add_dropout": 0.5,
        "head_dropout": 0.0,
    }, TRAINED_GRAPH),
    "MulT": Setting("mult", False, 16, 2e-3, 0.0, {
        "hidden": 50, "heads": 10, "layers": 4, "kernel": 5, "dropout": 0.3,
    }, {}, 0.6, "one dropout of 0.3 stands for MMSA's seven"),
    "MISA": Setting("misa", False, 16, 1e-4, 0.0, {"hidden": 128}, {}, 0.8, TUNED),
    "Self-MM": Setting(
        "self_mm", False, 16, 1e-3, 1e-3, {"hidden.audio": 16, "hidden.*": 32}, {}, 1.0, TUNED
    ),
}  # fmt: skip
"""On MOSI."""

ON_MOSEI: Mapping[str, Mapping[str, Any]] = {
    "EF-LSTM": {"options": {"hidden": 256, "layers": 2}},
    "TFN": {"batch_size": 128, "lr": 5e-3, "options": {
        **hidden(128, 16, 128), "recurrent_out": 128, "post_fusion": 16,
    }},
    "LMF": {"batch_size": 32, "options": {"rank": 4}},
    "MFN": {"lr": 5e-4, "options": {**hidden(128, 32, 128), "memory": 128}},
    "Graph-MFN": {"options": {**hidden(64, 16, 64), "node": 128}},
    "MulT": {"batch_size": 4, "lr": 5e-4, "options": {"hidden": 30, "heads": 6}},
}  # fmt: skip
"""What differs there."""

PUBLISHED_MOSI = {
    "EF-LSTM": (77.38, 77.35, 78.48, 78.51, 40.15, 35.39, 94.88, 66.90),
    "LF-DNN": (77.52, 77.46, 78.63, 78.63, 38.05, 34.52, 95.48, 65.84),
    "TFN": (77.99, 77.95, 79.08, 79.11, 39.39, 34.46, 94.73, 67.33),
    "LMF": (77.90, 77.80, 79.18, 79.15, 38.13, 33.82, 95.04, 65.10),
    "MFN": (77.67, 77.63, 78.87, 78.90, 40.47, 35.83, 92.68, 67.02),
    "Graph-MFN": (77.14, 77.08, 78.35, 78.35, 38.63, 34.64, 95.57, 64.86),
    "MulT": (79.71, 79.63, 80.98, 80.95, 42.68, 36.91, 87.99, 70.22),
    "MISA": (81.84, 81.82, 83.54, 83.58, 47.08, 41.37, 77.65, 77.81),
    "Self-MM": (83.44, 83.36, 85.46, 85.43, 53.47, 46.67, 70.80, 79.63),
}
PUBLISHED_MOSEI = {
    "EF-LSTM": (77.84, 78.34, 80.79, 80.67, 51.16, 50.01, 60.05, 68.25),
    "LF-DNN": (80.60, 80.85, 82.74, 82.52, 51.97, 50.83, 58.02, 70.87),
    "TFN": (78.50, 78.96, 81.89, 81.74, 53.10, 51.60, 57.26, 71.41),
    "LMF": (80.54, 80.94, 83.48, 83.36, 52.99, 51.59, 57.57, 71.69),
    "MFN": (78.94, 79.55, 82.86, 82.85, 52.76, 51.34, 57.33, 71.82),
    "Graph-MFN": (81.28, 81.48, 83.48, 83.23, 52.69, 51.37, 57.45, 71.33),
    "MulT": (81.15, 81.56, 84.63, 84.52, 54.18, 52.84, 55.93, 73.31),
    "MISA": (80.67, 81.12, 84.67, 84.66, 53.63, 52.05, 55.75, 75.15),
    "Self-MM": (83.76, 83.82, 85.15, 84.90, 55.53, 53.87, 53.09, 76.49),
}
PUBLISHED_SIMS = {
    "EF-LSTM": (69.37, 54.27, 21.23, 56.82, 59.07, 5.45),
    "LF-DNN": (77.02, 64.33, 39.74, 77.27, 44.63, 55.51),
    "TFN": (78.38, 65.12, 39.30, 78.62, 43.22, 59.10),
    "LMF": (77.77, 64.68, 40.53, 77.88, 44.12, 57.59),
    "MFN": (77.90, 65.73, 39.47, 77.88, 43.49, 58.24),
    "Graph-MFN": (78.77, 65.65, 39.82, 78.21, 44.50, 57.84),
    "MulT": (78.56, 64.77, 37.94, 79.66, 45.32, 56.41),
    "Self-MM": (80.04, 65.47, 41.53, 80.44, 42.50, 59.52),
}
"""In hundredths, all of them."""


def pickles(data: str) -> dict[str, str]:
    """`aligned` and `unaligned` -> file, of a file or of the folder that MMSA hands out.

    Raises:
        NotPreparedError: no such pickle.
    """
    place = storage.absolute(data)
    fs, path = storage.filesystem(place)
    files = files_below(place) if fs.isdir(path) else [place]
    found = {}
    for file in files:
        name = PurePosixPath(file).name
        if name.endswith((".pkl", ".pickle")):
            found["unaligned" if name.startswith("unaligned") else "aligned"] = file
    if not found:
        raise NotPreparedError(
            f"--data {data}: expected Processed/aligned_50.pkl or unaligned_50.pkl, or such a file; "
            "where they are had: affuse prepare mmsa --how"
        )
    return found


def steps_for(name: str, bounds: tuple[float, float]) -> Callable[[ReproduceConfig], list[Step]]:
    """Clips and labels of one pickle, the features of each."""

    def steps(config: ReproduceConfig) -> list[Step]:
        found = pickles(config.data)
        prepared = mmsa.Config(
            root=config.root,
            source=next(iter(found.values())),
            range=bounds,
            dataset_name=name,
            licence=LICENCE,
        )
        imported = [
            features.Import(
                root=config.root,
                file=file,
                array=array,
                name=f"{kind}_{array}",
                modality=modality,
                padding="zeros",
                licence=LICENCE,
            )
            for kind, file in found.items()
            for array, modality in ARRAYS.items()
        ]
        return [
            Step(command="prepare mmsa", config=prepared),
            *(Step(command="features import", config=each) for each in imported),
        ]

    return steps


def models_for(
    metrics: Sequence[str],
    published: Mapping[str, Sequence[float]],
    differs: Mapping[str, Mapping[str, Any]],
) -> Callable[[ReproduceConfig], list[Model]]:
    """A line a net of the table that is in the zoo."""

    def models(config: ReproduceConfig) -> list[Model]:
        there = pickles(config.data)
        lines = []
        for name, figures in published.items():
            setting = with_differences(SETTINGS[name], differs.get(name, {}))
            natural = [figure / 100 for figure in figures]
            lines.append(
                _model(config, name, setting, there, dict(zip(metrics, natural, strict=True)))
            )
        return lines

    return models


def with_differences(setting: Setting, differs: Mapping[str, Any]) -> Setting:
    """A setting with what another dataset has in place of it."""
    options = {**setting.options, **differs.get("options", {})}
    return setting._replace(**{**differs, "options": options})


def _model(
    config: ReproduceConfig,
    name: str,
    setting: Setting,
    there: Mapping[str, str],
    published: Mapping[str, float],
) -> Model:
    wanted = "aligned" if setting.aligned else "unaligned"
    kind = wanted if wanted in there else next(iter(there))
    inputs = [f"{kind}_{array}" for array in ARRAYS]
    recipe: dict[str, Any] = {
        "optimiser": "adam", "epochs": 200, "patience": 8, "batch_size": setting.batch_size,
        "lr": setting.lr, "weight_decay": setting.weight_decay,
    }  # fmt: skip
    ours = config.trained(
        inputs, setting.net, {**setting.options, **setting.clean}, seeds=SEEDS, **recipe
    )
    theirs = config.trained(
        inputs, setting.net, setting.options, seeds=SEEDS, scale="none", target_scale="none",
        clip_norm=setting.clip_norm, **recipe,
    )  # fmt: skip
    said = "" if kind == wanted else f"the table has it on {wanted} features; here are {kind} ones"
    return Model(
        name=name,
        published=published,
        reproduced=TrainedNet(config=theirs, seeds_apart=True),
        clean=TrainedNet(config=ours),
        note="; ".join(filter(None, (setting.note, said))),
    )


def _preset(
    title: str,
    bounds: tuple[float, float],
    metrics: tuple[str, ...],
    published: Mapping[str, Sequence[float]],
    *,
    differs: Mapping[str, Mapping[str, Any]],
    more: tuple[str, ...] = (),
) -> Preset:
    return Preset(
        title=f"MMSA, regression on {title}",
        source="https://github.com/thuiar/MMSA, results/result-stat.md",
        dataset="mmsa",
        data=f"the folder {title} of MMSA, or one of its pickles of features",
        task="sentiment",
        metrics=metrics,
        why=(
            "A tuned text encoder is worth 4 to 8 points, more than any fusion net since 2019: lines "
            "with a tuned BERT (MISA, Self-MM) are not comparable with frozen features.",
            "MMSA's Graph-MFN never trains the networks at its vertices, and its LMF never trains the "
            "weights of its ranks.",
            "MMSA's nets mostly read the padding behind a clip; here padding is masked in both columns.",
            "Its users report re-runs a point below the table with its own settings and seeds "
            "(thuiar/MMSA#68).",
            *more,
        ),
        columns={
            "reproduced": "MMSA's settings and seeds 1111 to 1115, the epoch of least validation loss, raw "
            "features; each figure is the mean of the seeds' figures.",
            "clean": "the same settings, faults of the nets mended, features and targets scaled on the "
            "training part; the seeds' predictions are averaged before they are judged.",
        },
        steps=steps_for(title.lower(), bounds),
        models=models_for(metrics, published, differs),
    )


MOSI = _preset("MOSI", (-3.0, 3.0), SIGNED, PUBLISHED_MOSI, differs={})
MOSEI = _preset("MOSEI", (-3.0, 3.0), SIGNED, PUBLISHED_MOSEI, differs=ON_MOSEI)
SIMS = _preset(
    "SIMS", (-1.0, 1.0), CHINESE, PUBLISHED_SIMS, differs={},
    more=(
        "MMSA's EF-LSTM on CH-SIMS is a collapsed run that says the majority class.",
        "MMSA's settings for CH-SIMS are not repeated here: those for MOSI stand in.",
    ),
)  # fmt: skip

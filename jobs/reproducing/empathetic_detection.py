"""AvaMERG's speaker emotion: voice and words, pictures and words, each with profiles, and both fused late.

The two published nets are `dialogue_profile` with its presets; the fusion of both was planned there.
"""

from collections.abc import Sequence
from typing import Any

from jobs.datasets import avamerg
from jobs.reproducing import encoded
from jobs.reproducing.preset import Fused, Model, Preset, ReproduceConfig, Step, TrainedNet

ENCODERS = {"audio": "wav2vec2_base", "text": "bert_base", "video": "timesformer"}
METRICS = ("accuracy", "weighted_f1", "macro_f1")
NETS = {
    "audio+text": ("audio_text", ("audio", "text"), 1e-5, (0.8315, 0.8237, None)),
    "video+text": ("video_text", ("video", "text"), 2e-5, (0.3189, 0.3627, 0.246)),
}
"""Line -> preset of the net, what it reads, learning rate, published figures."""

LATE = "late fusion"
CLEAN_SEEDS = (42, 43, 44)


def steps(config: ReproduceConfig) -> Sequence[Step]:
    """The conversations, cut where they bring no splits, and their features."""
    has_splits = any(
        file.rpartition("/")[2].rpartition(".")[0].lower() in avamerg.SPLIT_OF
        for file in encoded.files_of(config.data, ".json")
    )
    prepared = avamerg.Config(
        root=config.root, source=config.data, split="" if has_splits else "60/20/20", seed=42
    )
    encoders = encoded.chosen(config, ENCODERS)
    return encoded.steps(config, "avamerg", prepared, list(encoders.values()))


def models(config: ReproduceConfig) -> Sequence[Model]:
    """The nets whose modalities are there, and their late fusion."""
    there = encoded.chosen(config, ENCODERS)
    lines = []
    for name, (preset, modalities, lr, figures) in NETS.items():
        if not set(modalities) <= set(there):
            continue
        inputs = [there[modality] for modality in modalities]
        recipe: dict[str, Any] = {
            "pool": "mean", "optimiser": "adamw", "weight_decay": 0.01, "batch_size": 12, "epochs": 25,
            "patience": 5, "loss": "focal", "loss_options": {"gamma": 2.0},
        }  # fmt: skip
        options = {"preset": preset}
        lines.append(
            Model(
                name=name,
                published={
                    metric: value
                    for metric, value in zip(METRICS, figures, strict=True)
                    if value is not None
                },
                reproduced=TrainedNet(
                    config=config.trained(
                        inputs, "dialogue_profile", options, seeds=(42,), lr=lr, **recipe
                    )
                ),
                clean=TrainedNet(
                    config=config.trained(
                        inputs,
                        "dialogue_profile",
                        options,
                        seeds=CLEAN_SEEDS,
                        lr=1e-3,
                        causal=True,
                        **recipe,
                    )
                ),
            )
        )
    if len(lines) > 1:
        both = Fused(models=tuple(line.name for line in lines))
        mean = Fused(models=both.models, rule="mean")
        note = "planned there, without figures"
        lines.append(Model(name=LATE, reproduced=mean, clean=both, note=note))
    return lines


PRESET = Preset(
    title="AvaMERG, seven emotions: voice and words, pictures and words, late fusion",
    source="https://github.com/AbdulaAlShyed-2212592042/empathetic-detection",
    dataset="avamerg",
    data="the folder AvaMERG with its JSON lists and, below it, the media",
    task="emotion",
    metrics=METRICS,
    why=(
        "Its nets read annotations (scenario, cause, goal) that were written with the label known and often "
        "name it; here they are no input.",
        "Its weights are drawn anew after BERT is loaded, so that BERT's own are lost, and six of its "
        "layers are then frozen as noise.",
        "It reads one second of each utterance, and at test time looks for sound in another folder than in "
        "training: its 0.83 may be of words and annotations alone.",
        "Its 0.32 of pictures and words lies below the 0.51 of always saying sad.",
        "It is cut by conversation; avatars are the same on both sides of its split and of ours.",
        "It judges a conversation by its last turn; here every utterance of the speaker is judged, and where "
        "the whole dialogue is read, the listener's replies are too.",
    ),
    columns={
        "reproduced": "the two nets, focal loss, AdamW and learning rates on frozen features, the whole "
        "dialogue read, seed 42; late fusion is the mean.",
        "clean": "the same nets, no utterance reads a later one, a learning rate that suits frozen "
        "features, three seeds averaged; late fusion is the default of `affuse ensemble`.",
    },
    steps=steps,
    models=models,
)

"""The zoo: one paper a file.

Every net is ``Net(config, *, dims, outputs)`` with ``forward(batch) -> Output`` and
``explain(batch) -> dict``; `dims` maps each modality to its feature width, `outputs` each task to its
number of logits. `axis` says whether `time` in its batches runs inside a clip or over the utterances of
a dialogue. Configurations that other work has published are functions in ``PRESETS`` of a net's file.
"""

import dataclasses
import importlib
import typing
from collections.abc import Mapping
from typing import Any

from fusion.batch import Axis
from fusion.nets._options import checked, names_typed, near

__all__ = [
    "NETS",
    "UNTRAINED",
    "is_convex",
    "names_typed",
    "net_axis",
    "net_class",
    "net_config",
]

NETS: dict[str, str] = {
    "bottleneck": "BottleneckFusion",
    "concat_mlp": "ConcatMLP",
    "dialogue_profile": "DialogueProfile",
    "ef_lstm": "EarlyFusionLSTM",
    "finetune": "FineTune",
    "fourier": "Fourier",
    "gated": "GatedFusion",
    "graph_mfn": "GraphMemoryFusion",
    "lf_dnn": "LateFusionDNN",
    "linear": "Linear",
    "lmf": "LowRankFusion",
    "lstm": "UnimodalLSTM",
    "m2fnet": "M2FNet",
    "mfn": "MemoryFusion",
    "misa": "MISA",
    "mult": "MulT",
    "sdt": "SDT",
    "self_mm": "SelfMM",
    "tfn": "TensorFusion",
}
"""Net name (= file name) -> class name in that file."""

UNTRAINED: dict[str, tuple[str, str]] = {
    "pretrained_answer": ("_pretrained_answer", "PretrainedAnswer")
}
"""Nets that nobody trains or searches over: name on a card -> file and class."""


def net_class(name: str) -> Any:
    """The class of a net; its `Config` and `axis` are attributes of it.

    Raises:
        ValueError: no such net.
    """
    if name not in NETS and name not in UNTRAINED:
        known = ", ".join(NETS)
        raise ValueError(f"there is no net {name!r}{near(name, NETS)} (known: {known})")
    file, kind = UNTRAINED.get(name) or (name, NETS[name])
    return getattr(importlib.import_module(f"fusion.nets.{file}"), kind)


def net_axis(name: str) -> Axis:
    """Which sequence axis a net takes."""
    axis: Axis = net_class(name).axis
    return axis


def is_convex(name: str) -> bool:
    """Whether a net is solved and not trained by steps."""
    convex: bool = net_class(name).convex
    return convex


def net_config(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """A net's config from plain values, as a command line, a YAML file or a search space gives them.

    ``hidden.text`` sets one entry of a field that maps names to numbers (the others keep the field's
    default); ``preset`` names an entry of the file's PRESETS to start from. JSON lists become tuples, and
    whole numbers fractions where the field is one.

    Raises:
        ValueError: no such net, preset, field or value; the message names the nearest one.
    """
    module = importlib.import_module(net_class(name).__module__)
    options = dict(options or {})
    presets: Mapping[str, Any] = getattr(module, "PRESETS", {})
    preset = options.pop("preset", None)
    if preset is not None and preset not in presets:
        raise ValueError(f"{name} has no preset {preset!r}; known: {', '.join(presets) or 'none'}")
    base = presets[preset]() if preset is not None else net_class(name).Config()
    known = [field.name for field in dataclasses.fields(base)]
    values: dict[str, Any] = {}
    for key, value in options.items():
        field, _, entry = key.partition(".")
        if field not in known:
            known_ones = f"{near(field, known)} (known: {', '.join(known)})"
            raise ValueError(f"{name} has no option {field!r}{known_ones}")
        if not entry:
            values[field] = value
            continue
        current = values.get(field, getattr(base, field))
        start = dict(current) if isinstance(current, Mapping) else {"*": current}
        values[field] = {**start, entry: value}
    hints = typing.get_type_hints(type(base))
    given = {key: checked(value, hints[key], f"{name} {key}") for key, value in values.items()}
    return dataclasses.replace(base, **given)

"""The search space of tune: fields of train's config by dotted path, checked before the first trial.

    net: [lmf, gated]                      one of a list
    inputs: [[voice], [voice, face]]
    lr: {log: [1e-4, 1e-2]}                a number, logarithmic
    modality_dropout: {float: [0, 0.4]}
    lmf.rank: {int: [1, 8]}                an option of one net, asked for only where that net is drawn
    pool: mean_std                         fixed

A path that begins with a net's name goes into `net_options` of that net; all others are fields of
`affuse train`.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from cluster import settings
from cluster.errors import ConfigError
from fusion.nets import NETS, net_class, net_config
from jobs.catalog.branches import OWNER, states_of

C = TypeVar("C")
RANGES = ("float", "int", "log")

BASELINE = "linear"
"""The net that every search begins with, for each set of inputs: what the others must beat."""

OF_INPUTS = ("causal", "normalise", "pca", "pool", "scale", "share", "views")
"""Fields that say what a net reads."""

FIRST_NETS = ("concat_mlp", "gated", "lmf")
"""What is searched where the space names no net: quick ones that take any set of inputs, and need no order
of the steps of a clip."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "bottleneck": {"dropout": {"float": [0.1, 0.5]}},
    "concat_mlp": {
        "hidden": [64, 128, 256],
        "layers": [0, 1, 2],
        "dropout": {"float": [0.2, 0.7]},
    },
    "ef_lstm": {"hidden": [64, 128, 256], "layers": {"int": [1, 4]}, "dropout": [0.2, 0.5]},
    "gated": {
        "hidden": [64, 128, 256],
        "norm": ["layer", "none"],
        "dropout": {"float": [0.2, 0.8]},
        "modality_dropout": [0.0, 0.1, 0.3],
    },
    "graph_mfn": {"memory_width": [64, 128, 300], "node": [20, 64, 128], "head": [64, 128]},
    "lf_dnn": {"hidden": [32, 64, 128], "post_fusion": [32, 64, 128], "dropout": [0.2, 0.3, 0.5]},
    "lmf": {
        "rank": {"int": [3, 6]},
        "hidden": [32, 64, 128],
        "dropout": {"float": [0.2, 0.6]},
    },
    "lstm": {"hidden": [32, 64, 128], "dropout": [0.2, 0.5]},
    "mfn": {"memory": [64, 128, 256, 400], "attention": [32, 64, 128], "head": [64, 128]},
    "misa": {"dropout": {"float": [0.1, 0.5]}},
    "mult": {"dropout": {"float": [0.0, 0.3]}},
    "tfn": {"hidden": [8, 16, 32], "post_fusion": [32, 64, 128], "dropout": [0.2, 0.3, 0.5]},
}
"""Ranges of published searches by net; options that a net does not have are left out."""


class Drawer(Protocol):
    """What a trial of Optuna offers."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of a list."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One path and what may stand there."""

    path: str
    kind: Literal["choice", "float", "int", "log"]
    options: tuple[Any, ...]
    """The choices, or the two bounds."""

    @property
    def net(self) -> str | None:
        """The net whose option it is."""
        head, dot, _ = self.path.partition(".")
        return head if dot and head in NETS else None

    def draw(self, drawer: Drawer) -> Any:
        """A value, drawn by Optuna (which knows plain values only: lists travel as JSON)."""
        if self.kind == "choice":
            if len(self.options) == 1:
                return self.options[0]
            texts = [json.dumps(option) for option in self.options]
            return json.loads(drawer.suggest_categorical(self.path, texts))
        low, high = self.options
        if self.kind == "int":
            return drawer.suggest_int(self.path, int(low), int(high))
        return drawer.suggest_float(self.path, float(low), float(high), log=self.kind == "log")

    @property
    def is_open(self) -> bool:
        """Whether there is anything to choose."""
        return len(self.options) > 1

    def allows(self, value: Any) -> bool:
        """Whether a value may stand there."""
        if self.kind == "choice":
            return value in self.options
        low, high = self.options
        number = isinstance(value, int if self.kind == "int" else int | float)
        return number and not isinstance(value, bool) and low <= value <= high

    def as_drawn(self, value: Any) -> Any:
        """A value as `draw` asks Optuna for it."""
        return json.dumps(value) if self.kind == "choice" else value

    @property
    def samples(self) -> tuple[Any, ...]:
        """Values to check the space with: every choice, or both bounds."""
        return self.options


@dataclass(frozen=True, kw_only=True)
class Space:
    """Everything that is searched; the net first, because the rest may depend on it."""

    dimensions: tuple[Dimension, ...]

    def draw(self, drawer: Drawer, net: str) -> dict[str, Any]:
        """Values by path; options of nets that were not drawn are not asked for.

        Args:
            drawer: a trial of Optuna.
            net: the net where the space does not choose one.
        """
        values: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.net is None or dimension.net == values.get("net", net):
                values[dimension.path] = dimension.draw(drawer)
        return values

    def baseline(self, inputs: Sequence[str]) -> dict[str, Any]:
        """Values of the baseline on some inputs; of what a net reads the first choice."""
        first = {
            dimension.path: dimension.options[0]
            for dimension in self.dimensions
            if dimension.kind == "choice" and dimension.path.partition(".")[0] in OF_INPUTS
        }
        return {"net": BASELINE, "inputs": list(inputs), **first}

    @property
    def options_of_nets(self) -> list[tuple[str, Any]]:
        """Options that are searched for one net alone, without its name, and each of their values."""
        return [
            (dimension.path.partition(".")[2], value)
            for dimension in self.dimensions
            if dimension.net is not None
            for value in dimension.samples
        ]

    def values_of(self, path: str, fixed: Any) -> list[Any]:
        """All values a field may take; `fixed` where it is not searched."""
        for dimension in self.dimensions:
            if dimension.path == path:
                return list(dimension.options)
        return [fixed]


def read_space(values: Mapping[str, Any], base: Any) -> Space:
    """Parse and check a space against the config it varies.

    Args:
        values: path -> list, range or fixed value; ``preset: true`` adds the published ranges of its nets.
        base: the config whose fields it names.

    Raises:
        ConfigError: an unknown field or option (naming the nearest), a bad range, a value of a wrong type.
    """
    given = dict(values)
    preset = bool(given.pop("preset", False))
    dimensions = [_dimension(path, item) for path, item in given.items()]
    nets = next((list(d.options) for d in dimensions if d.path == "net"), [base.net])
    sets = next((d.options for d in dimensions if d.path == "inputs"), [base.inputs])
    if OWNER in nets or any(states_of(name) != name for some in sets for name in some):
        raise ConfigError(
            f"a search trains no encoders: type affuse train --net {OWNER}, and fuse that run with the "
            "search's by affuse ensemble --runs"
        )
    if preset:
        dimensions += [d for d in preset_dimensions(nets) if d.path not in given]
    dimensions.sort(key=lambda dimension: dimension.path != "net")
    for dimension in dimensions:
        if dimension.net is not None and dimension.net not in nets:
            raise ConfigError(
                f"space: {dimension.path!r} is an option of {dimension.net!r}, which is not among "
                f"the nets {nets}"
            )
        for value in dimension.samples:
            with_values(base, {"net": dimension.net or base.net, dimension.path: value})
    return Space(dimensions=tuple(dimensions))


def default_space(base: Any, kinds: Sequence[str]) -> dict[str, Any]:
    """What is searched where no file says it: nets, subsets of the inputs, and how they are trained.

    Args:
        base: train's config.
        kinds: of its tasks.
    """
    smoothing = {"label_smoothing": [0.0, 0.1]} if "classification" in kinds else {}
    nets = list(FIRST_NETS) if base.net == "concat_mlp" else [base.net]
    # Reduced once, where every trial would otherwise read all steps of all clips in every epoch.
    pool = (
        {"pool": ["mean", "mean_std"]} if base.pool == "none" and {*nets} <= {*FIRST_NETS} else {}
    )
    return {
        "preset": True,
        "net": nets,
        "inputs": subsets(base.inputs),
        "lr": {"log": [1e-4, 2e-3]},
        "weight_decay": {"log": [1e-5, 1e-1]},
        "batch_size": [32, 64],
        **smoothing,
        **pool,
    }


def subsets(inputs: Sequence[str]) -> list[list[str]]:
    """Every non-empty choice of up to four inputs; of more: each, every pair, and all."""
    count = len(inputs)
    sizes = range(1, count + 1) if count <= 4 else (1, 2, count)
    return [list(some) for size in sizes for some in itertools.combinations(inputs, size)]


def preset_dimensions(nets: Sequence[str]) -> list[Dimension]:
    """The published ranges of some nets, as far as the nets have these options."""
    found = []
    for net in nets:
        known = {field.name for field in dataclasses.fields(net_class(net).Config)}
        for name, item in PRESETS.get(net, {}).items():
            if name in known:
                found.append(_dimension(f"{net}.{name}", item))
    return found


def with_values(base: C, values: Mapping[str, Any]) -> C:
    """A config with the values of a trial; options of its own net only.

    Raises:
        ConfigError: an unknown field or option, or a value of a wrong type.
    """
    mapping = settings.to_mapping(base)
    net = values.get("net", mapping["net"])
    if net not in NETS:
        raise ConfigError(f"space: there is no net {net!r}; {settings.nearest(str(net), [*NETS])}")
    # Options of another net than the one they were given for would be refused.
    options = dict(mapping["net_options"]) if net == mapping["net"] else {}
    known = [field.name for field in dataclasses.fields(base)]  # type: ignore[arg-type]
    for path, value in values.items():
        head, dot, rest = path.partition(".")
        if dot and head in NETS:
            if head == net:
                options[rest] = value
            continue
        if head not in known:
            raise ConfigError(
                f"space: unknown field {head!r} in {path!r}; {settings.nearest(head, [*known, *NETS])}"
            )
        if head == "net_options":
            raise ConfigError(
                f"space: {path!r}: name the net in its place, {net}.{rest or 'OPTION'}"
            )
        if dot:
            mapping[head] = {**mapping[head], rest: value}
        else:
            mapping[head] = value
    try:
        net_config(net, options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"space: {error}") from error
    mapping["net_options"] = options
    return settings.from_mapping(type(base), mapping, where="space")


def _dimension(path: str, item: Any) -> Dimension:
    if isinstance(item, list):
        if not item:
            raise ConfigError(f"space: {path!r} has no choices")
        return Dimension(path=path, kind="choice", options=tuple(item))
    if not isinstance(item, Mapping):
        return Dimension(path=path, kind="choice", options=(item,))
    kinds = [name for name in item if name in RANGES]
    if len(item) != 1 or not kinds:
        raise ConfigError(
            f"space: {path!r} is {dict(item)}; expected a list, a value, or one of "
            "{int: [1, 8]}, {float: [0, 0.5]}, {log: [1e-4, 1e-2]}"
        )
    kind, bounds = kinds[0], item[kinds[0]]
    numbers = isinstance(bounds, list) and len(bounds) == 2
    if not numbers or not all(isinstance(n, int | float) for n in bounds) or bounds[0] >= bounds[1]:
        raise ConfigError(f"space: {path!r}: {kind} takes two rising numbers, came {bounds!r}")
    if kind == "log" and bounds[0] <= 0:
        raise ConfigError(f"space: {path!r}: log takes numbers above zero, came {bounds!r}")
    if kind == "int" and any(isinstance(n, float) for n in bounds):
        raise ConfigError(f"space: {path!r}: int takes whole numbers, came {bounds!r}")
    bounds = bounds if kind == "int" else [float(n) for n in bounds]
    return Dimension(path=path, kind=kind, options=tuple(bounds))

"""A trained net as two documents: weights (safetensors) and a card (JSON). Nothing in them executes.

The card says all that is needed to build the net again and to feed it: the net's name and config, its tasks,
the width of each input and which table it came from, how clips were pooled and normalised. The scaler that
was fitted on its training part is among the weights, and so are the units of its regressions.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output
from fusion.nets import net_class, net_config
from fusion.scaling import Scaler, Units
from fusion.tasks import Task

CARD_VERSION = 1

Pool = Literal["none", "mean", "mean_std"]


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """How stored features become the input of a net: the same in training, evaluation and scoring.

    What loads a training set and the card of the net that was trained on it both have these fields, and the
    card takes them over as a whole: a choice that is added here reaches every path.
    """

    pool: Pool = "none"
    """Reduction of a clip's steps to one, for inputs that have several."""

    normalise: str = "none"
    """speaker: mean and spread of each speaker's own unlabelled clips are removed; speaker:K: those of K of
    their clips. Transductive."""

    causal: bool = False
    """A dialogue net may not read later utterances."""


def feeding_fields(how: Feeding) -> dict[str, Any]:
    """The fields of `Feeding` of a request or a card, for the constructor of another one."""
    return {item.name: getattr(how, item.name) for item in dataclasses.fields(Feeding)}


@dataclass(frozen=True, kw_only=True)
class Card(Feeding):
    """What a net is and how its input is made."""

    net: str
    config: Mapping[str, Any]
    """Fields of the net's Config."""

    tasks: Mapping[str, Task]
    dims: Mapping[str, int]
    """Input -> feature width, as fed to the scaler."""

    pca: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Input -> the feature table it came from (any JSON value; the jobs' business)."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """Anything else worth keeping: run, fold, seed, best epoch, manifest."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {name: _plain(value) for name, value in vars(self).items()}
        return {"affuse.net": CARD_VERSION, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Card":
        """The card of a document.

        Raises:
            ValueError: not a card, one of another version, or one that lacks a field.
        """
        if values.get("affuse.net") != CARD_VERSION:
            raise ValueError(
                f"expected the card of a net, version {CARD_VERSION}; came keys {sorted(values)}"
            )
        known = {item.name for item in dataclasses.fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        absent = {"net", "config", "tasks", "dims"} - set(given)
        if absent:
            raise ValueError(f"the card of a net lacks {sorted(absent)}")
        given["tasks"] = {name: Task.from_json(task) for name, task in given["tasks"].items()}
        return cls(**given)


class Predictor(nn.Module):
    """A net behind its scaler: takes features as they are stored, and answers in the units of the targets.

    Args:
        scaler: of what the net reads.
        net: whose answers to regressions are scaled as its targets were.
        regressions: names of the tasks that are regressions.
    """

    def __init__(self, scaler: Scaler, net: nn.Module, regressions: Iterable[str] = ()) -> None:
        super().__init__()
        self.scaler = scaler
        self.net = net
        self.units = Units(regressions)

    @property
    def axis(self) -> str:
        """Which sequence axis the net takes."""
        return str(self.net.axis)

    @property
    def given(self) -> frozenset[str]:
        """Names in its state that pretrained weights give."""
        return frozenset(f"net.{name}" for name in getattr(self.net, "given", ()))

    def forward(self, batch: Batch) -> Output:
        """Logits of unscaled features."""
        output = self.net(self.scaler(batch))
        assert isinstance(output, Output)
        return replace(output, logits=self.units.unscaled(output.logits))


def build(card: Card, branches: Mapping[str, nn.Module] | None = None) -> Predictor:
    """A fresh predictor for a card, weights drawn from torch's current seed.

    Args:
        card: of the net.
        branches: input -> the pretrained model that reads it, for a net that owns encoders.

    Raises:
        ValueError: an unknown net or option, naming the nearest one.
    """
    scaler = Scaler(card.dims, card.pca)
    config = net_config(card.net, card.config)
    outputs = {name: task.outputs for name, task in card.tasks.items()}
    owned = {"branches": branches} if branches else {}
    net = net_class(card.net)(config, dims=scaler.out_dims, outputs=outputs, **owned)
    regressions = [name for name, task in card.tasks.items() if task.kind == "regression"]
    return Predictor(scaler, net, regressions)


def to_bytes(predictor: Predictor) -> bytes:
    """Scaler and net as one safetensors document; of pretrained weights only what was changed."""
    tensors = {name: value.contiguous().cpu() for name, value in own_state(predictor).items()}
    return bytes(safetensors.torch.save(_unshared(tensors)))


def from_bytes(
    content: bytes, card: Card, branches: Mapping[str, nn.Module] | None = None
) -> Predictor:
    """The predictor of a card with its weights, in eval mode.

    Args:
        content: as `to_bytes` made it.
        card: of the net.
        branches: input -> the pretrained model it started from, for a net that owns encoders.

    Raises:
        ValueError: weights that do not fit the card.
    """
    predictor = build(card, branches)
    try:
        load_own_state(predictor, safetensors.torch.load(content))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"the weights do not fit the card of net {card.net!r}: {error}") from error
    return predictor.eval()


def _plain(value: Any) -> Any:
    if isinstance(value, Task):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors refuses tied weights; each name gets its own copy."""
    seen: set[int] = set()
    result = {}
    for name, value in tensors.items():
        pointer = value.data_ptr()
        result[name] = value.clone() if pointer in seen and value.numel() else value
        seen.add(pointer)
    return result


def own_state(predictor: Predictor) -> dict[str, Tensor]:
    """Its state without what pretrained weights give."""
    given = predictor.given
    return {name: value for name, value in predictor.state_dict().items() if name not in given}


def load_own_state(predictor: Predictor, state: Mapping[str, Tensor]) -> None:
    """Put back what `own_state` gave; what pretrained weights give stays as it is.

    A state of an earlier version has no units: its net learnt the targets as they are.

    Raises:
        RuntimeError: a name is missing, or one too many.
    """
    given = predictor.given
    kept = {name: value for name, value in predictor.state_dict().items() if name in given}
    units = {f"units.{name}": value for name, value in predictor.units.unfitted.items()}
    predictor.load_state_dict({**kept, **units, **state})


def state_copy(predictor: Predictor) -> dict[str, Tensor]:
    """A copy of its own state that further training does not touch."""
    with torch.no_grad():
        return {name: value.detach().clone() for name, value in own_state(predictor).items()}

"""What several nets share: reading a batch, heads, masked recurrence, subnets of one modality.

Shapes: batch, time, feature, hidden, outputs.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fusion.batch import Axis, Batch, Output, Sequence
from fusion.nets._memory import lstm_states

Widths = int | Mapping[str, int]
"""One width for every modality, or one a name, with ``*`` for all that are not named."""

Range = tuple[float, float]

OWN_RECURRENCE_FROM = 64
"""Hidden width from which, on a CPU, our own loop over steps beats the library's LSTM (by a quarter in
forward and backward at 128); below it the library's fused steps win."""


def width_of(widths: Widths, name: str) -> int:
    """The width that a modality gets.

    Raises:
        ValueError: neither the name nor ``*`` is given.
    """
    if isinstance(widths, int):
        return widths
    if name not in widths and "*" not in widths:
        raise ValueError(
            f"no width for {name!r} among {dict(widths)}; add it, or '*' for all others"
        )
    return widths[name] if name in widths else widths["*"]


def names_of(text: str) -> tuple[str, ...]:
    """Comma-separated modality names of a config field."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def module_dict(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Modules by modality or task, in sorted order.

    Raises:
        ValueError: a name that torch cannot store (it holds a dot or is a method of a module).
    """
    try:
        return nn.ModuleDict(dict(sorted(modules.items())))
    except KeyError as error:
        raise ValueError(
            f"one of {sorted(modules)} cannot name a module ({error}); rename that modality or task"
        ) from error


class Net(nn.Module):
    """What every net has: its modalities, its tasks, reading a batch, and one way to look inside."""

    axis: ClassVar[Axis] = "clip"

    def __init__(self, dims: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        super().__init__()
        if not dims or not outputs:
            raise ValueError(
                f"a net needs at least one modality and one task; came dims {dict(dims)}, "
                f"outputs {dict(outputs)}"
            )
        self.dims = dict(sorted(dims.items()))
        self.outputs = dict(sorted(outputs.items()))

    def forward(self, batch: Batch) -> Output:
        """Logits of every task, and in training the auxiliary losses of the paper."""
        raise NotImplementedError

    def read(self, batch: Batch) -> dict[str, Sequence]:
        """The net's modalities in sorted order; what is masked is zero, whatever it held.

        Raises:
            ValueError: another axis, a modality that is not there, or another feature width.
        """
        if batch.axis != self.axis:
            raise ValueError(f"came a {batch.axis} batch; {type(self).__name__} takes {self.axis}")
        absent = [name for name in self.dims if name not in batch.inputs]
        if absent:
            raise ValueError(
                f"the batch has {list(batch.modalities)}, the net also needs {absent}; "
                "give what is missing as a mask of zeros"
            )
        dtype = next(self.parameters()).dtype
        sequences = {}
        for name, dim in self.dims.items():
            values, mask = batch.inputs[name].values, batch.inputs[name].mask
            if values.shape[2] != dim:
                raise ValueError(
                    f"{name} has {values.shape[2]} features, the net was made for {dim}"
                )
            values = values.masked_fill(~mask.unsqueeze(-1), 0.0)
            sequences[name] = Sequence(values.to(dtype), mask)
        return sequences

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """By how much each logit falls when a modality is taken away: ``without/<modality>/<task>``."""
        full = self(batch).logits
        changes = {}
        for name in self.dims:
            hidden = Sequence(batch.inputs[name].values, torch.zeros_like(batch.inputs[name].mask))
            logits = self(replace(batch, inputs={**batch.inputs, name: hidden})).logits
            for task in self.outputs:
                changes[f"without/{name}/{task}"] = full[task] - logits[task]
        return changes


class Heads(nn.Module):
    """One linear layer a task. `squash` bounds the tasks with a single output by a sigmoid."""

    def __init__(
        self,
        width: int,
        outputs: Mapping[str, int],
        *,
        squash: Range | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.squash = squash
        self.task = module_dict(
            {task: nn.Linear(width, size, bias=bias) for task, size in outputs.items()}
        )

    def forward(self, x: Float[Tensor, "*rows hidden"]) -> dict[str, Tensor]:
        return {task: squashed(head(x), self.squash) for task, head in self.task.items()}


def squashed(logits: Float[Tensor, "*rows outputs"], bounds: Range | None) -> Tensor:
    """A single output between two bounds; anything else as it came."""
    if bounds is None or logits.shape[-1] != 1:
        return logits
    return bounds[0] + (bounds[1] - bounds[0]) * torch.sigmoid(logits)


def step_at(
    values: Float[Tensor, "batch time feature"], index: Int[Tensor, " batch"]
) -> Float[Tensor, "batch feature"]:
    """One step of each row."""
    return values.take_along_dim(index[:, None, None], 1).squeeze(1)


def last_step(mask: Bool[Tensor, "batch time"]) -> Int[Tensor, " batch"]:
    """Position of the last real step; 0 where there is none."""
    steps = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, steps, 0).amax(1)


def last_real(sequence: Sequence) -> Float[Tensor, "batch feature"]:
    """Values of the last real step; zero where there is none."""
    return step_at(sequence.values, last_step(sequence.mask)) * sequence.present.unsqueeze(-1)


def first_real(sequence: Sequence) -> Float[Tensor, "batch feature"]:
    """Values of the first real step; zero where there is none."""
    first = sequence.mask.int().argmax(1)
    return step_at(sequence.values, first) * sequence.present.unsqueeze(-1)


def without_holes(mask: Bool[Tensor, "batch time"]) -> Int[Tensor, "batch time"] | None:
    """The order of steps that puts the real ones of each row first; None if they are there already."""
    if not bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        return None
    return torch.argsort(mask.int(), dim=1, descending=True, stable=True)


def hold(
    states: Float[Tensor, "batch time feature"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time feature"]:
    """At each step the state of the last real step up to it; zero before the first."""
    if bool(mask.all()):
        return states
    steps = torch.arange(mask.shape[1], device=mask.device)
    index = torch.where(mask, steps, -1).cummax(1).values.unsqueeze(-1)
    return states.take_along_dim(index.clamp(min=0), 1) * (index >= 0)


class Recurrent(nn.Module):
    """A stack of LSTM layers that reads the real steps only, as if the others had been cut out."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden, self.bidirectional = hidden, bidirectional
        self.width = hidden * (2 if bidirectional else 1)
        self.layers = nn.ModuleList(
            nn.LSTM(
                width if layer == 0 else self.width,
                hidden,
                batch_first=True,
                bidirectional=bidirectional,
            )
            for layer in range(layers)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequence: Sequence, *, causal: bool = False) -> Sequence:
        """States at the real steps, zero elsewhere; `causal` silences the backward direction."""
        x, mask = sequence.values, sequence.mask
        lengths = mask.sum(1)
        longest = max(1, int(lengths.max()))
        order = without_holes(mask)
        if order is not None:
            x = x.take_along_dim(order.unsqueeze(-1), 1)
        x = x[:, :longest]
        ragged = self.bidirectional and int(lengths.min()) < longest
        for number, layer in enumerate(self.layers):
            x = self.dropout(x) if number else x
            if x.device.type == "cpu" and self.hidden >= OWN_RECURRENCE_FROM:
                x = self._on_cpu(cast(nn.LSTM, layer), x, lengths)
            else:
                x = self._ragged(layer, x, lengths) if ragged else layer(x)[0]
            if causal and self.bidirectional:
                x = torch.cat([x[..., : self.hidden], torch.zeros_like(x[..., self.hidden :])], -1)
        if longest < mask.shape[1]:
            x = nn.functional.pad(x, (0, 0, 0, mask.shape[1] - longest))
        if order is not None:
            x = x.take_along_dim(torch.argsort(order, dim=1).unsqueeze(-1), 1)
        return Sequence(x.masked_fill(~mask.unsqueeze(-1), 0.0), mask)

    def ends(self, states: Sequence) -> Float[Tensor, "batch hidden"]:
        """State after the whole sequence: forward at the last real step, backward at the first."""
        forward = last_real(states)
        if not self.bidirectional:
            return forward
        return torch.cat([forward[:, : self.hidden], first_real(states)[:, self.hidden :]], -1)

    def _on_cpu(self, layer: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
        """One layer by our own recurrence."""
        forward = _one_way(layer, x, "")
        if not self.bidirectional:
            return forward
        # Each row is turned round within its own length.
        steps = torch.arange(x.shape[1], device=x.device)
        turned = lengths[:, None] - 1 - steps
        turned = torch.where(turned >= 0, turned, steps).unsqueeze(-1)
        backward = _one_way(layer, x.take_along_dim(turned, 1), "_reverse")
        return torch.cat([forward, backward.take_along_dim(turned, 1)], -1)

    @staticmethod
    def _ragged(layer: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
        # The backward direction must start at each row's own end. Rows without a step read one
        # zero step; their states are masked out afterwards.
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
        )
        states: Tensor = nn.utils.rnn.pad_packed_sequence(
            layer(packed)[0], batch_first=True, total_length=x.shape[1]
        )[0]
        return states


def _one_way(layer: nn.LSTM, x: Tensor, end: str) -> Tensor:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_ih, w_hh, b_ih, b_hh = (getattr(layer, f"{name}_l0{end}") for name in names)
    inputs = nn.functional.linear(x.transpose(0, 1), w_ih, b_ih + b_hh)
    return lstm_states(inputs, w_hh)[0].transpose(0, 1)


Readout = Literal["ends", "mean", "last_entry"]
"""`ends`: forward at the last step and backward at the first; `mean` over steps; `last_entry`: the
last direction of the last layer only, as several public implementations read it."""


class RecurrentTrunk(nn.Module):
    """LSTM, one vector of it, dropout, Linear, ReLU, dropout."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        layers: int,
        bidirectional: bool,
        dropout: float,
        readout: Readout,
    ) -> None:
        super().__init__()
        self.readout = readout
        self.lstm = Recurrent(
            width, hidden, layers=layers, bidirectional=bidirectional, dropout=dropout
        )
        self.linear = nn.Linear(hidden if readout == "last_entry" else self.lstm.width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequence: Sequence) -> Float[Tensor, "batch hidden"]:
        states = self.lstm(sequence)
        z = states.mean() if self.readout == "mean" else self.lstm.ends(states)
        if self.readout == "last_entry":
            z = z[:, -self.lstm.hidden :]
        h: Tensor = self.dropout(torch.relu(self.linear(self.dropout(z))))
        return h


class TimeNorm(nn.Module):
    """Batch norm with the step as channel: ties a net to one length. For parity only."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(steps)

    def forward(self, values: Float[Tensor, "batch time feature"]) -> Tensor:
        steps, length = self.norm.num_features, values.shape[1]
        if length > steps:
            raise ValueError(f"came {length} steps; a norm over time was made for {steps}")
        padded = nn.functional.pad(values, (0, 0, 0, steps - length))
        normed: Tensor = self.norm(padded)[:, :length]
        return normed


class Subnet(nn.Module):
    """One vector of one modality: LSTM and Linear, or mean over time and three ReLU layers.

    A missing modality gives zeros. `norm` is over the features of the mean: `layer` for each row by
    itself, `batch` as in the public implementations.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        recurrent_out: int | None,
        norm: Literal["layer", "batch"],
        dropout: float,
    ) -> None:
        super().__init__()
        self.width = recurrent_out or hidden
        self.dropout = nn.Dropout(dropout)
        self.lstm = Recurrent(dim, hidden) if recurrent_out else None
        if recurrent_out:
            self.linear = nn.Linear(hidden, recurrent_out)
        else:
            self.norm = nn.LayerNorm(dim) if norm == "layer" else nn.BatchNorm1d(dim)
            self.layers = nn.ModuleList(
                nn.Linear(dim if layer == 0 else hidden, hidden) for layer in range(3)
            )

    def forward(self, sequence: Sequence) -> Float[Tensor, "batch hidden"]:
        if self.lstm is not None:
            z: Tensor = self.linear(self.dropout(self.lstm.ends(self.lstm(sequence))))
        else:
            z = self.dropout(self.norm(sequence.mean()))
            for layer in self.layers:
                z = torch.relu(layer(z))
        vector: Tensor = z * sequence.present.unsqueeze(-1)
        return vector

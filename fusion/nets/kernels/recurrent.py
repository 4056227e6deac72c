"""LSTMs that read the real steps of a sequence only.

Shapes: batch, time, feature, hidden.
"""

from collections.abc import Iterable
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fusion.batch import Steps
from fusion.nets._layers import first_real, last_real
from fusion.nets.kernels.compiled import steps_for
from fusion.nets.kernels.lstm import Layer, lstm_states, states_of_all

LONG = 300
"""Steps from which, on a CPU, our own loop over them beats the library's LSTM in forward and backward."""

WIDE = 64
"""Hidden width from which it does so even where its steps are not compiled."""


def own_recurrence(x: Float[Tensor, "batch time feature"], hidden: int) -> bool:
    """Whether an LSTM of this width had better read these steps by our own loop."""
    on_cpu = x.device.type == "cpu" and x.shape[1] >= LONG
    return on_cpu and (hidden >= WIDE or steps_for(x) is not None)


def without_holes(mask: Bool[Tensor, "batch time"]) -> Int[Tensor, "batch time"] | None:
    """The order of steps that puts the real ones of each row first; None if they are there already."""
    if not bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        return None
    return torch.argsort(mask.int(), dim=1, descending=True, stable=True)


def real_first(sequence: Steps) -> Float[Tensor, "time batch feature"]:
    """The real steps of each row in front, what has no meaning behind them."""
    x, order = sequence.values, without_holes(sequence.mask)
    if order is not None:
        x = x.take_along_dim(order.unsqueeze(-1), 1)
    return x.transpose(0, 1)


def held(
    states: Float[Tensor, "state batch hidden"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "state batch hidden"]:
    """From the state after n real steps (n from 0 on) that of every step, and before the first.

    A step that is not real keeps the state before it.
    """
    if bool(mask.all()):
        return states
    count = nn.functional.pad(mask.cumsum(1).t(), (0, 0, 1, 0))
    return states.take_along_dim(count.unsqueeze(-1), 0)


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

    def forward(self, sequence: Steps, *, causal: bool = False) -> Steps:
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
            if own_recurrence(x, self.hidden):
                x = self._on_cpu(cast(nn.LSTM, layer), x, lengths)
            else:
                x = by_torch(layer, x, lengths if ragged else None)
            if causal and self.bidirectional:
                x = torch.cat([x[..., : self.hidden], torch.zeros_like(x[..., self.hidden :])], -1)
        if bool(mask.all()):
            return Steps(x, mask)
        if longest < mask.shape[1]:
            x = nn.functional.pad(x, (0, 0, 0, mask.shape[1] - longest))
        if order is not None:
            x = x.take_along_dim(torch.argsort(order, dim=1).unsqueeze(-1), 1)
        return Steps(x.masked_fill(~mask.unsqueeze(-1), 0.0), mask)

    def ends(self, states: Steps) -> Float[Tensor, "batch hidden"]:
        """State after the whole sequence: forward at the last real step, backward at the first."""
        forward = last_real(states)
        if not self.bidirectional:
            return forward
        return torch.cat([forward[:, : self.hidden], first_real(states)[:, self.hidden :]], -1)

    def _on_cpu(self, layer: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
        """One layer by our own recurrence."""
        x = x.transpose(0, 1)
        forward = lstm_states(x, *_weights(layer, ""))[0][1:].transpose(0, 1)
        if not self.bidirectional:
            return forward
        weights = _weights(layer, "_reverse")
        if int(lengths.min()) == len(x):
            back = lstm_states(x.flip(0), *weights)[0][1:].flip(0)
        else:
            # Each row is turned round within its own length.
            steps = torch.arange(len(x), device=x.device)[:, None]
            turned = lengths[None] - 1 - steps
            turned = torch.where(turned >= 0, turned, steps).unsqueeze(-1)
            back = lstm_states(x.take_along_dim(turned, 0), *weights)[0][1:]
            back = back.take_along_dim(turned, 0)
        return torch.cat([forward, back.transpose(0, 1)], -1)


def by_torch(
    layer: nn.Module, x: Float[Tensor, "batch time feature"], lengths: Tensor | None = None
) -> Float[Tensor, "batch time hidden"]:
    """States of one layer by torch's recurrence; in single precision on CPUs, which need not have another.

    Args:
        layer: an LSTM, batch first.
        x: its steps.
        lengths: real steps of each row, where the backward direction has to start at each row's own end.
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return by_torch(layer, x.float(), lengths)
    if lengths is None:
        whole: Tensor = layer(x)[0]
        return whole
    # Rows without a step read one zero step; their states are masked out afterwards.
    packed = nn.utils.rnn.pack_padded_sequence(
        x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
    )
    states: Tensor = nn.utils.rnn.pad_packed_sequence(
        layer(packed)[0], batch_first=True, total_length=x.shape[1]
    )[0]
    return states


def states_beside(
    lstms: Iterable[Recurrent], sequences: Iterable[Steps]
) -> list[Float[Tensor, "state batch hidden"]]:
    """States, from the zeros before the first step on, of LSTMs of one layer that read one time axis.

    A step that a sequence lacks keeps the state before it.
    """
    layers = [cast(nn.LSTM, lstm.layers[0]) for lstm in lstms]
    sequences = list(sequences)
    inputs = [real_first(sequence) for sequence in sequences]
    if all(
        own_recurrence(s.values, lstm.hidden_size)
        for s, lstm in zip(sequences, layers, strict=True)
    ):
        own = [Layer(x, *_weights(lstm, "")) for lstm, x in zip(layers, inputs, strict=True)]
        states = [h for h, _ in states_of_all(own)]
    else:
        found = (by_torch(lstm, x.transpose(0, 1)) for lstm, x in zip(layers, inputs, strict=True))
        states = [nn.functional.pad(h.transpose(0, 1), (0, 0, 0, 0, 1, 0)) for h in found]
    return [held(h, s.mask) for h, s in zip(states, sequences, strict=True)]


def _weights(layer: nn.LSTM, end: str) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the inputs, weights of the states, and the sum of both biases."""
    w_ih, w_hh, b_ih, b_hh = (
        cast(Tensor, getattr(layer, f"{name}_l0{end}"))
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return w_ih, w_hh, b_ih + b_hh


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

    def forward(self, sequence: Steps) -> Float[Tensor, "batch hidden"]:
        states = self.lstm(sequence)
        z = states.mean() if self.readout == "mean" else self.lstm.ends(states)
        if self.readout == "last_entry":
            z = z[:, -self.lstm.hidden :]
        h: Tensor = self.dropout(torch.relu(self.linear(self.dropout(z))))
        return h

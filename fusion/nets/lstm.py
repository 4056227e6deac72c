"""LSTM over one modality: the honest single-modality baseline.

    h_t = LSTM(norm(x_t), h_{t-1});   logits = W relu(V h_end)

Hochreiter & Schmidhuber, Neural Computation 1997, https://doi.org/10.1162/neco.1997.9.8.1735. Differs from
the public implementations of this baseline in two ways that are options: features are normalised per step
instead of per time position (`norm="time"` ties a net to one length), and both directions are read at
their true ends (`readout="last_entry"` keeps the backward half only).

A1, A2 and A3 are the text, audio and image models of the influencer-empathy study: 624 steps.

Shapes: batch, time, feature, hidden, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from fusion.batch import Batch, Output, Steps
from fusion.nets._layers import Heads, Net, Range, TimeNorm
from fusion.nets.kernels.recurrent import Readout, RecurrentTrunk


class UnimodalLSTM(Net):
    """One modality, one LSTM."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Depth and width of the LSTM."""

        hidden: int = 64
        """Width of one direction."""

        layers: int = 1
        bidirectional: bool = True
        dropout: float = 0.2
        readout: Readout = "ends"
        norm: Literal["feature", "time", "none"] = "feature"
        steps: int = 0
        """Length of every clip; only for norm="time"."""

        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        if len(dims) != 1:
            raise ValueError(
                f"lstm reads one modality, came {sorted(dims)}; choose one, or take ef_lstm"
            )
        self.name, dim = next(iter(self.dims.items()))
        self.norm: nn.Module = nn.Identity()
        if config.norm == "feature":
            self.norm = nn.LayerNorm(dim)
        elif config.norm == "time":
            self.norm = TimeNorm(config.steps)
        self.trunk = RecurrentTrunk(
            dim,
            config.hidden,
            layers=config.layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout,
            readout=config.readout,
        )
        self.heads = Heads(config.hidden, outputs, squash=config.squash)

    def forward(self, batch: Batch) -> Output:
        sequence = self.read(batch)[self.name]
        normed = Steps(self.norm(sequence.values), sequence.mask)
        return Output(self.heads(self.trunk(normed)))


def _study(hidden: int, layers: int, dropout: float) -> UnimodalLSTM.Config:
    return UnimodalLSTM.Config(
        hidden=hidden,
        layers=layers,
        dropout=dropout,
        readout="last_entry",
        norm="time",
        steps=624,
    )


PRESETS = {
    "A1": lambda: _study(8, 2, 0.2),
    "A2": lambda: _study(16, 4, 0.3),
    "A3": lambda: _study(32, 2, 0.2),
}
"""Models of the influencer-empathy study: text, audio, image."""

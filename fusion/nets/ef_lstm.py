"""Early fusion: all modalities are joined at every step and read by one LSTM.

    x_t = [norm(x_t^1); ...; norm(x_t^M)];   h_t = LSTM(x_t, h_{t-1});   logits = W relu(V h_end)

Baseline of Zadeh et al., EMNLP 2017, https://arxiv.org/abs/1707.07250, as in the public benchmark
implementations. Differs from them: each modality is normalised over its own features (`norm="time"` is
theirs: a batch norm with the step as channel over the joined features), a step that a modality lacks is
zero, both directions are read at their true ends (`readout="last_entry"` is theirs), and modalities of
different lengths are put on one time axis (`align`).

Shapes: batch, time, feature, hidden, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fusion.batch import Batch, Output, Steps
from fusion.nets._align import Align, align, any_real
from fusion.nets._layers import Heads, Net, Range, TimeNorm, module_dict
from fusion.nets.kernels.recurrent import Readout, RecurrentTrunk


class EarlyFusionLSTM(Net):
    """One LSTM over the joined features."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Depth and width of the LSTM."""

        hidden: int = 128
        """Width of one direction."""

        layers: int = 1
        bidirectional: bool = False
        dropout: float = 0.2
        readout: Readout = "ends"
        norm: Literal["feature", "time", "none"] = "feature"
        steps: int = 0
        """Length of every clip; only for norm="time"."""

        align: Align = "area"
        timeline: str = "text"
        """The modality whose steps the others follow."""

        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        self.norm = module_dict(
            {
                name: nn.LayerNorm(dim) if config.norm == "feature" else nn.Identity()
                for name, dim in self.dims.items()
            }
        )
        self.time_norm = TimeNorm(config.steps) if config.norm == "time" else nn.Identity()
        self.trunk = RecurrentTrunk(
            sum(self.dims.values()),
            config.hidden,
            layers=config.layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout,
            readout=config.readout,
        )
        self.heads = Heads(config.hidden, outputs, squash=config.squash)

    def forward(self, batch: Batch) -> Output:
        aligned = align(self.read(batch), self.config.align, self.config.timeline)
        values = torch.cat(
            [
                self.norm[name](sequence.values).masked_fill(~sequence.mask.unsqueeze(-1), 0.0)
                for name, sequence in aligned.items()
            ],
            -1,
        )
        joined = Steps(self.time_norm(values), any_real(aligned))
        return Output(self.heads(self.trunk(joined)))


def _study(hidden: int, layers: int, dropout: float) -> EarlyFusionLSTM.Config:
    return EarlyFusionLSTM.Config(
        hidden=hidden,
        layers=layers,
        bidirectional=True,
        dropout=dropout,
        readout="last_entry",
        norm="time",
        steps=624,
    )


PRESETS = {
    "A4": lambda: _study(16, 4, 0.2),
    "A5": lambda: _study(32, 3, 0.5),
    "A6": lambda: _study(128, 3, 0.3),
    "A7": lambda: _study(16, 4, 0.4),
}
"""Models of the influencer-empathy study: text + audio, text + image, audio + image, all three."""

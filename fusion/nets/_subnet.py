"""The subnets of the tensor-fusion family: one vector of one modality.

Shapes: batch, time, feature, hidden.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.batch import Steps
from fusion.nets.kernels.recurrent import Recurrent


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

    def forward(self, sequence: Steps) -> Float[Tensor, "batch hidden"]:
        if self.lstm is not None:
            z: Tensor = self.linear(self.dropout(self.lstm.ends(self.lstm(sequence))))
        else:
            z = self.dropout(self.norm(sequence.mean()))
            for layer in self.layers:
                z = torch.relu(layer(z))
        vector: Tensor = z * sequence.present.unsqueeze(-1)
        return vector

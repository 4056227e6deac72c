"""Low-rank fusion: tensor fusion at a cost that grows linearly with the number of modalities.

    h = sum_r w_r prod_m ( W_m^(r) [1; z_m] ) + b

The weight of a tensor-fusion layer is a sum of rank-one terms, so the outer product is never needed.
Learns the XOR of two modalities. Liu et al., ACL 2018, https://arxiv.org/abs/1806.00064. h is the logits.

Differs from the paper: any number of modalities; the weights w_r of the terms are learned, as in the
authors' code, and are trained here (public trainers leave them and b out of their optimiser);
`learned_ranks=False` fixes them at one. A missing modality contributes its constant only.

Shapes: batch, time, feature, hidden, rank, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.batch import Batch, Output
from fusion.nets._layers import Net, Range, Widths, module_dict, names_of, squashed, width_of
from fusion.nets._subnet import Subnet


class LowRankFusion(Net):
    """Sum of rank-one products over modalities."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Rank and sizes."""

        rank: int = 4
        hidden: Widths = field(default_factory=lambda: {"text": 128, "*": 32})
        """Width of each modality's subnet."""

        recurrent: str = "text"
        """Modalities, comma-separated, that are read by an LSTM; the others by their mean over time."""

        recurrent_out: Widths = 64
        """Width of the vector of a modality that is read by an LSTM."""

        learned_ranks: bool = True
        dropout: float = 0.2
        norm: Literal["layer", "batch"] = "layer"
        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        self.squash = config.squash
        recurrent = names_of(config.recurrent)
        subnets = {
            name: Subnet(
                dim,
                width_of(config.hidden, name),
                recurrent_out=width_of(config.recurrent_out, name) if name in recurrent else None,
                norm=config.norm,
                dropout=config.dropout,
            )
            for name, dim in self.dims.items()
        }
        self.subnet = module_dict(subnets)
        total = sum(self.outputs.values())
        factors = {}
        for name, subnet in subnets.items():
            factor = torch.empty(config.rank, subnet.width + 1, total)
            factors[name] = nn.Parameter(nn.init.xavier_normal_(factor))
        self.factor = nn.ParameterDict(factors)
        weights = torch.ones(1, config.rank)
        if config.learned_ranks:
            self.rank_weights = nn.Parameter(nn.init.xavier_normal_(weights))
        else:
            self.register_buffer("rank_weights", weights)
        self.bias = nn.Parameter(torch.zeros(total))

    def terms(self, batch: Batch) -> Float[Tensor, "batch rank outputs"]:
        """The product over modalities of each rank-one term."""
        product: Tensor | None = None
        for name, sequence in self.read(batch).items():
            z = self.subnet[name](sequence)
            factor = self.factor[name]
            # [1; z] W without the concatenation: the first row of a factor is its constant.
            part = factor[:, 0] + torch.einsum("bi,rio->bro", z, factor[:, 1:])
            product = part if product is None else product * part
        assert product is not None
        return product

    def forward(self, batch: Batch) -> Output:
        h = torch.einsum("r,bro->bo", self.rank_weights[0], self.terms(batch)) + self.bias
        parts = torch.split(h, list(self.outputs.values()), -1)
        return Output(
            {
                task: squashed(part, self.squash)
                for task, part in zip(self.outputs, parts, strict=True)
            }
        )


PRESETS = {
    "A9": lambda: LowRankFusion.Config(
        rank=5,
        hidden={"text": 256, "audio": 32, "*": 256},
        recurrent_out=128,
        dropout=0.4,
        norm="batch",
    ),
}
"""Model of the influencer-empathy study: all three modalities."""

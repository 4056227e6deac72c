"""Embeddings of the profiles of speaker and listener.

Shapes: batch, time (utterances), feature.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusion.batch import Batch
from fusion.nets._layers import module_dict


class ProfileEmbedding(nn.Module):
    """Codes of a profile, of a dialogue or of each utterance, as one vector an utterance."""

    def __init__(self, fields: Mapping[str, int], width: int) -> None:
        """Take the fields and their numbers of codes, and the width of one embedding."""
        super().__init__()
        self.fields = dict(sorted(fields.items()))
        self.width = len(self.fields) * width
        sizes: dict[str, int] = {}
        for name, size in self.fields.items():
            table = self._table(name)
            sizes[table] = max(size, sizes.get(table, 0))
        self.embed = module_dict({t: nn.Embedding(size + 1, width) for t, size in sizes.items()})

    def forward(self, batch: Batch) -> Tensor:
        assert batch.steps is not None
        parts = []
        for name, size in self.fields.items():
            codes = batch.profile.get(name)
            if codes is None:
                codes = torch.zeros_like(batch.steps, dtype=torch.long)
            elif codes.ndim == 1:
                codes = codes[:, None].expand(batch.steps.shape)
            codes = codes.masked_fill((codes < 0) | (codes > size), 0)
            parts.append(self.embed[self._table(name)](codes))
        if not parts:
            return torch.zeros(*batch.steps.shape, 0, device=batch.steps.device)
        return torch.cat(parts, -1)

    @staticmethod
    def _table(name: str) -> str:
        side, _, rest = name.partition("_")
        return rest if side in ("speaker", "listener") and rest and rest != "id" else name

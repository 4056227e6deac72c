"""SDT: transformers within and between modalities over a dialogue, two levels of gates, self-distillation.

    H_{m<-n} = transformer(Q = X_m, K = V = X_n) for all m, n;   X_m has position and speaker added
    H_m = W [ H_{m<-n} o sigmoid(U H_{m<-n}) for all n ]                          (unimodal gates)
    H = sum_m softmax_m(V_m H_m) o H_m;   logits = W relu(H)                      (multimodal gates)
    losses: each modality's own head learns the label, and the softened logits of the whole

Ma et al., IEEE TMM 2023, https://arxiv.org/abs/2310.20494. With utterance features only, the best figures on
IEMOCAP and MELD for its size.

Differs from the paper: masks (an utterance or modality may be missing), a causal form, any modalities; the
teacher's logits are held fixed; regression and multi-label tasks distil by squared error and binary KL.

`explain`: `gates` [batch time modality], the multimodal gates averaged over the hidden units.

Shapes: batch, time (utterances), feature, modality, hidden, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output
from fusion.nets._attention import TransformerLayer, allowed_keys, heads_for, sinusoids
from fusion.nets._auxiliary import distance_to_teacher, side_loss
from fusion.nets._layers import Heads, Net, Range, module_dict


class SDT(Net):
    """Intra- and inter-modal transformers with hierarchical gates."""

    axis = "dialogue"
    reads_targets = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Depth, width and the weights of the side losses."""

        hidden: int = 256
        heads: int = 8
        layers: int = 1
        feedforward: int = 512
        dropout: float = 0.5
        speakers: int = 9
        """Speakers of a dialogue that have an embedding of their own; later ones share the last."""

        students: float = 1.0
        """Weight of each modality's own label loss."""

        distillation: float = 1.0
        temperature: float = 1.0
        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        width, names = config.hidden, list(self.dims)
        self.embed = module_dict({n: nn.Linear(dim, width) for n, dim in self.dims.items()})
        self.speaker = nn.Embedding(config.speakers + 1, width)
        pairs = [f"{m}<-{n}" for m in names for n in names]
        self.pair = module_dict(
            {
                pair: nn.ModuleList(
                    TransformerLayer(
                        width, heads_for(width, config.heads), config.feedforward, config.dropout
                    )
                    for _ in range(config.layers)
                )
                for pair in pairs
            }
        )
        self.gate = module_dict({pair: nn.Linear(width, width, bias=False) for pair in pairs})
        self.join = module_dict({n: nn.Linear(len(names) * width, width) for n in names})
        self.vote = module_dict({n: nn.Linear(width, width, bias=False) for n in names})
        self.dropout = nn.Dropout(config.dropout)
        self.heads = Heads(width, outputs, squash=config.squash)
        self.student = module_dict({n: Heads(width, outputs, squash=config.squash) for n in names})

    def forward(self, batch: Batch) -> Output:
        h, gates, masks = self._encoded(batch)
        fused = (gates * h).sum(2)
        logits = self.heads(self.dropout(torch.relu(fused)))
        return Output(logits, self._losses(batch, h, masks, logits) if self.training else {})

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """How much each modality counts at each utterance, beside what it changes in the logits."""
        _, gates, _ = self._encoded(batch)
        return {"gates": gates.mean(-1), **super().explain(batch)}

    def _encoded(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """H and its gates [batch time modality hidden], and the masks [batch time modality]."""
        sequences = self.read(batch)
        x, masks = {}, {}
        for name, sequence in sequences.items():
            values = self.embed[name](sequence.values)
            values = values + sinusoids(values.shape[1], values.shape[2], values)
            if batch.speaker is not None:
                codes = (batch.speaker + 1).clamp(0, self.config.speakers)
                values = values + self.speaker(codes)
            x[name] = values * sequence.mask.unsqueeze(-1)
            masks[name] = sequence.mask
        parts: dict[str, list[Tensor]] = {name: [] for name in x}
        for pair, layers in self.pair.items():
            target, source = pair.split("<-")
            h, key = x[target], x[source]
            allowed = allowed_keys(masks[source], causal=batch.causal)
            for layer in cast(nn.ModuleList, layers):
                h = layer(h, allowed, None if target == source else key)
            parts[target].append(h * torch.sigmoid(self.gate[pair](h)))
        h = torch.stack([self.join[n](torch.cat(p, -1)) for n, p in parts.items()], 2)
        real = torch.stack(list(masks.values()), 2)
        votes = torch.stack([self.vote[n](h[:, :, m]) for m, n in enumerate(parts)], 2)
        low = torch.finfo(votes.dtype).min
        votes = votes.masked_fill(~real.unsqueeze(-1), low)
        return h, torch.softmax(votes, 2) * real.unsqueeze(-1), real

    def _losses(
        self, batch: Batch, h: Tensor, masks: Tensor, logits: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        losses = {}
        for m, name in enumerate(self.dims):
            rows = masks[:, :, m]
            for task, own in self.student[name](self.dropout(torch.relu(h[:, :, m]))).items():
                target = batch.targets.get(task)
                exclusive = target is not None and not target.is_floating_point()
                losses[f"{task}/{name}"] = self.config.students * side_loss(batch, task, own, rows)
                losses[f"{task}/{name}/teacher"] = self.config.distillation * distance_to_teacher(
                    own, logits[task], exclusive, rows, self.config.temperature
                )
        return losses

"""MISA: every modality in two codes, one that all share and one of its own.

    u_m = LN(relu(W_m utterance_m));   private p_m = sigmoid(P_m u_m);   shared s_m = sigmoid(S u_m)
    logits = head(transformer over the tokens p_1 .. p_M, s_1 .. s_M)
    losses: difference (p_m and s_m, p_m and p_n orthogonal), similarity (moments of s_m alike),
            reconstruction (R_m (p_m + s_m) ~ u_m)

Hazarika et al., ACM MM 2020, https://arxiv.org/abs/2005.03545. The utterance vector of the modalities in
`pooled` is the mean of their steps, of the others the four end states of two bidirectional LSTMs.

Differs from the public code: missing modalities are no tokens and stay out of every loss; each modality reads
its own length (there, audio and video were cut to the length of the text); what never reached a loss there (a
shared-or-private classifier, an unused norm) is left out. With `adversarial` the similarity is a
discriminator behind a reversed gradient instead of moments.

`explain`: `shared` and `private` [batch modality hidden].

Shapes: batch, time, feature, hidden, modality, outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.batch import Batch, Output, Steps
from fusion.nets._attention import TransformerLayer
from fusion.nets._codes import moment_distance, orthogonality, reversed_gradient
from fusion.nets._layers import Heads, Net, Range, module_dict, names_of
from fusion.nets.kernels.recurrent import Recurrent


class MISA(Net):
    """Modality-invariant and modality-specific codes."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Width, and the weights of the losses."""

        hidden: int = 128
        pooled: str = "text"
        """Modalities, comma-separated, whose utterance vector is the mean of their steps."""

        heads: int = 2
        feedforward: int = 2048
        dropout: float = 0.2
        difference: float = 0.1
        similarity: float = 0.3
        reconstruction: float = 1.0
        moments: int = 5
        """Highest central moment that the similarity compares."""

        adversarial: bool = False
        reversal: float = 0.8
        """Weight of the reversed gradient."""

        squash: Range | None = None
        """Bounds of a single output, by a sigmoid."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        width, pooled = config.hidden, names_of(config.pooled)
        self.utterance = module_dict(
            {n: nn.Identity() if n in pooled else TwoLSTMs(dim) for n, dim in self.dims.items()}
        )
        sizes = {n: dim if n in pooled else 4 * dim for n, dim in self.dims.items()}
        self.project = module_dict(
            {
                n: nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.LayerNorm(width))
                for n, size in sizes.items()
            }
        )
        self.private = module_dict({n: nn.Linear(width, width) for n in self.dims})
        self.shared = nn.Linear(width, width)
        self.rebuild = module_dict({n: nn.Linear(width, width) for n in self.dims})
        self.transformer = TransformerLayer(
            width, config.heads, config.feedforward, dropout=config.dropout
        )
        tokens = 2 * len(self.dims)
        self.fuse = nn.Sequential(
            nn.Linear(tokens * width, tokens // 2 * width), nn.Dropout(config.dropout), nn.ReLU()
        )
        self.heads = Heads(tokens // 2 * width, outputs, squash=config.squash)
        if config.adversarial:
            self.discriminator = nn.Sequential(
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Linear(width, len(self.dims)),
            )

    def codes(self, batch: Batch) -> dict[str, Float[Tensor, "batch modality hidden"]]:
        """`original`, `private`, `shared` and `rebuilt` vectors, and who is `present` [.. .. 1]."""
        original, private, rebuilt, present = [], [], [], []
        for name, sequence in self.read(batch).items():
            module = self.utterance[name]
            u = sequence.mean() if isinstance(module, nn.Identity) else module(sequence)
            original.append(self.project[name](u))
            private.append(torch.sigmoid(self.private[name](original[-1])))
            present.append(sequence.present[:, None].to(u.dtype))
        shared = torch.sigmoid(self.shared(torch.stack(original, 1)))
        for m, name in enumerate(self.dims):
            rebuilt.append(self.rebuild[name](private[m] + shared[:, m]))
        return {
            "original": torch.stack(original, 1),
            "private": torch.stack(private, 1),
            "shared": shared,
            "rebuilt": torch.stack(rebuilt, 1),
            "present": torch.stack(present, 1),
        }

    def forward(self, batch: Batch) -> Output:
        codes = self.codes(batch)
        there = codes["present"].repeat(1, 2, 1)
        tokens = torch.cat([codes["private"], codes["shared"]], 1) * there
        mixed = self.transformer(tokens, there.squeeze(-1).bool().unsqueeze(1)) * there
        logits = self.heads(self.fuse(mixed.flatten(1)))
        return Output(logits, self._losses(codes) if self.training else {})

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """The two codes of every modality, beside what each modality changes in the logits."""
        codes = self.codes(batch)
        shown = {key: codes[key] * codes["present"] for key in ("shared", "private")}
        return {**shown, **super().explain(batch)}

    def discriminate(self, shared: Tensor) -> Tensor:
        """Which modality a shared code came from; its gradient is reversed."""
        logits: Tensor = self.discriminator(reversed_gradient(shared, self.config.reversal))
        return logits

    def _losses(self, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        here = codes["present"].squeeze(-1).bool()
        private, shared = codes["private"], codes["shared"]
        zero = private.sum() * 0.0
        difference, similarity, pairs = zero, zero, 0
        for m in range(len(self.dims)):
            rows = here[:, m]
            difference = difference + orthogonality(private[rows, m], shared[rows, m])
        for m, n in combinations(range(len(self.dims)), 2):
            both = here[:, m] & here[:, n]
            difference = difference + orthogonality(private[both, m], private[both, n])
            if not self.config.adversarial:
                x, y = shared[both, m], shared[both, n]
                similarity = similarity + moment_distance(x, y, self.config.moments)
                pairs += 1
        similarity = similarity / max(1, pairs)
        if self.config.adversarial:
            labels = torch.arange(len(self.dims), device=here.device).expand(here.shape)
            logits = self.discriminate(shared[here])
            loss = nn.functional.cross_entropy(logits, labels[here], reduction="sum")
            similarity = loss / max(1, int(here.sum()))
        error = (codes["rebuilt"] - codes["original"]).square() * codes["present"]
        rebuilt = error.sum() / (codes["present"].sum().clamp(min=1) * error.shape[-1])
        return {
            "difference": self.config.difference * difference,
            "similarity": self.config.similarity * similarity,
            "reconstruction": self.config.reconstruction * rebuilt,
        }


class TwoLSTMs(nn.Module):
    """The end states of two bidirectional LSTMs with a norm between, all of the width of the input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = Recurrent(dim, dim, bidirectional=True)
        self.norm = nn.LayerNorm(2 * dim)
        self.second = Recurrent(2 * dim, dim, bidirectional=True)

    def forward(self, sequence: Steps) -> Tensor:
        states = self.first(sequence)
        normed = self.norm(states.values).masked_fill(~states.mask.unsqueeze(-1), 0.0)
        deeper = self.second(Steps(normed, states.mask))
        one, two = self.first.ends(states), self.second.ends(deeper)
        half = one.shape[1] // 2
        # Forward states of both, then backward states of both.
        return torch.cat([one[:, :half], two[:, :half], one[:, half:], two[:, half:]], -1)

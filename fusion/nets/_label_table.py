"""The labels that Self-MM makes for its unimodal heads.

Shapes: row (of the training set), feature.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

FUSION = "fusion"
"""Name of the joined vector among the modalities."""


class LabelTable(nn.Module):
    """Generated labels of every training row, and the features that the centres are means of."""

    seen: Tensor

    def __init__(self, widths: Mapping[str, int], bound: float) -> None:
        super().__init__()
        self.names, self.bound = sorted(widths), bound
        self.register_buffer("seen", torch.zeros(1, dtype=torch.long))
        for name in self.names:
            self.register_buffer(f"label_{name}", torch.zeros(1))
            # Features are not saved: after a restart the centres fill up again within an epoch.
            feature = torch.zeros(1, widths[name])
            self.register_buffer(f"feature_{name}", feature, persistent=False)
            self.register_buffer(f"stored_{name}", torch.zeros(1).bool(), persistent=False)

    @torch.no_grad()
    def update(
        self,
        index: Tensor,
        target: Tensor,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Labels of these rows from this pass on, and the weights of their losses."""
        own = index
        there = {n: present.get(n, torch.ones_like(index, dtype=torch.bool)) for n in self.names}
        index, target = gathered(index), gathered(target.float())
        values = {n: gathered(features[n].float()) for n in self.names}
        there = {n: gathered(there[n]) for n in self.names}
        self._grow(int(index.max()) + 1 if len(index) else 0)
        n = self.seen[index] + 1
        fresh = n == 1
        for name in self.names:
            label = self._of("label", name)
            label[index[fresh]] = target[fresh]
        ratios = {name: self._ratio(name, values[name]) for name in self.names}
        fused = ratios.pop(FUSION)
        for name, ratio in ratios.items():
            if fused is None or ratio is None:
                continue
            new = 0.5 * ratio / (fused + 1e-8) * target + 0.5 * (target + ratio - fused)
            new = new.clamp(-self.bound, self.bound)
            label = self._of("label", name)
            moved = (n - 1) / (n + 1) * label[index] + 2 / (n + 1) * new
            rows = ~fresh & there[name]
            label[index[rows]] = moved[rows]
        for name in self.names:
            rows = index[there[name]]
            self._of("feature", name)[rows] = values[name][there[name]]
            self._of("stored", name)[rows] = True
        self.seen[index] = n
        labels = {name: self._of("label", name)[own] for name in self.names}
        first = (self.seen[own] == 1).float()
        weights = {
            name: torch.maximum(torch.tanh((labels[name] - labels[FUSION]).abs()), first)
            for name in self.names
        }
        return labels, weights

    def centre(self, name: str, side: int) -> Tensor | None:
        """Mean feature of the rows whose label has this sign; None if there are none."""
        rows = self._of("stored", name) & (self._of("label", name) * side > 0)
        return self._of("feature", name)[rows].mean(0) if bool(rows.any()) else None

    def _ratio(self, name: str, features: Tensor) -> Tensor | None:
        positive, negative = self.centre(name, 1), self.centre(name, -1)
        if positive is None or negative is None:
            return None
        far, near = (features - negative).norm(dim=1), (features - positive).norm(dim=1)
        ratio: Tensor = (far - near) / (near + 1e-8)
        return ratio

    def _of(self, what: str, name: str) -> Tensor:
        buffer: Tensor = getattr(self, f"{what}_{name}")
        return buffer

    def _grow(self, rows: int) -> None:
        more = rows - len(self.seen)
        if more <= 0:
            return
        # Doubling keeps the number of copies small.
        more = max(more, len(self.seen))
        for name, buffer in list(self.named_buffers()):
            setattr(self, name, torch.cat([buffer, buffer.new_zeros(more, *buffer.shape[1:])]))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}seen")
        if saved is not None:
            for name, buffer in list(self.named_buffers()):
                setattr(self, name, buffer.new_zeros(len(saved), *buffer.shape[1:]))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes of a distributed run, of any number each; else as they are."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    world = distributed.get_world_size()
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world)]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded.contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

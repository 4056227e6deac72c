"""Self-MM: a head for each modality that learns labels made by the net itself.

    logits = head_f([u_1; ...; u_M]);   y_m^ = head_m(u_m)
    label_m from the positions of a row's features between the centres of the positive and negative rows:
    r = (d_neg - d_pos) / d_pos;   new = 1/2 r_m / r_f y + 1/2 (y + r_m - r_f);   momentum 2 / (n + 1)
    loss_m = mean tanh|label_m - y| |y_m^ - label_m|,   n the number of times the row was seen

Yu et al., AAAI 2021, https://arxiv.org/abs/2102.04830. The table of labels and features is indexed by
`batch.index`; it grows with the rows that it meets, and processes of a distributed run share what they see.

Differs from the public code: missing modalities stay out of centres and losses; a row's first pass, which has
no label of its own yet, trains the heads on the multimodal label with weight one; tasks that are not
regression train the heads on the true label throughout. `pool="first"` (the first token) is the public
choice for text, here the mean of the steps.

Shapes: batch, time, feature, hidden, row (of the training set), outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, distributed, nn

from fusion.batch import Batch, Output, Sequence
from fusion.nets._auxiliary import side_loss
from fusion.nets._layers import Heads, Net, Widths, module_dict, names_of, width_of
from fusion.nets._recurrent import Recurrent

FUSION = "fusion"


class SelfMM(Net):
    """Multimodal head and unimodal heads on generated labels."""

    reads_targets = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Widths, and how labels are made."""

        pooled: str = "text"
        """Modalities, comma-separated, that are pooled over their steps; the others pass an LSTM."""

        pool: Literal["mean", "first"] = "mean"
        hidden: Widths = field(default_factory=lambda: {"audio": 16, "*": 32})
        """Width of the LSTM of a modality."""

        out: Widths = field(default_factory=lambda: {"audio": 16, "*": 32})
        """Width of its vector."""

        post_fusion: int = 128
        post: Widths = 32
        """Inner width of the multimodal head, and of each unimodal one."""

        dropout: float = 0.1
        bound: float = 3.0
        """Generated labels stay within +- this; the range of the task."""

        unimodal: float = 1.0
        """Weight of the losses of the unimodal heads."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        if FUSION in self.dims:
            raise ValueError(f"{FUSION!r} is the name of the joined vector; rename that modality")
        self.config = config
        pooled = names_of(config.pooled)
        recurrent = {n: dim for n, dim in self.dims.items() if n not in pooled}
        hidden = {n: width_of(config.hidden, n) for n in recurrent}
        self.lstm = module_dict({n: Recurrent(dim, hidden[n]) for n, dim in recurrent.items()})
        out = {n: width_of(config.out, n) for n in recurrent}
        self.project = module_dict({n: nn.Linear(hidden[n], out[n]) for n in recurrent})
        widths = {n: out.get(n, dim) for n, dim in self.dims.items()}
        posts = {n: width_of(config.post, n) for n in self.dims} | {FUSION: config.post_fusion}
        inputs = widths | {FUSION: sum(widths.values())}
        self.dropout = nn.Dropout(config.dropout)
        self.first = module_dict({n: nn.Linear(inputs[n], posts[n]) for n in posts})
        self.second = module_dict({n: nn.Linear(posts[n], posts[n]) for n in posts})
        self.third = module_dict({n: Heads(posts[n], outputs) for n in posts})
        single = [task for task, size in self.outputs.items() if size == 1]
        self.table = module_dict({task: LabelTable(posts, config.bound) for task in single})

    def run(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """Features and logits by task, of every modality and of ``fusion``."""
        vectors = {}
        for name, sequence in self.read(batch).items():
            vectors[name] = self._vector(name, sequence) * sequence.present.unsqueeze(-1)
        vectors[FUSION] = torch.cat(list(vectors.values()), -1)
        features = {n: torch.relu(self.first[n](self.dropout(v))) for n, v in vectors.items()}
        logits = {n: self.third[n](torch.relu(self.second[n](f))) for n, f in features.items()}
        return features, logits

    def forward(self, batch: Batch) -> Output:
        features, logits = self.run(batch)
        losses = {}
        if self.training and batch.targets:
            for task in self.outputs:
                for name, loss in self._losses(batch, task, features, logits).items():
                    losses[f"{task}/{name}"] = self.config.unimodal * loss
        return Output(logits[FUSION], losses)

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """What each modality says by itself, beside what it changes in the logits."""
        _, logits = self.run(batch)
        alone = {f"alone/{n}/{t}": v for n in self.dims for t, v in logits[n].items()}
        return {**alone, **super().explain(batch)}

    def _vector(self, name: str, sequence: Sequence) -> Tensor:
        if name in self.lstm:
            lstm = cast(Recurrent, self.lstm[name])
            vector: Tensor = self.project[name](self.dropout(lstm.ends(lstm(sequence))))
            return vector
        return sequence.mean() if self.config.pool == "mean" else sequence.values[:, 0]

    def _losses(
        self,
        batch: Batch,
        task: str,
        features: Mapping[str, Tensor],
        logits: Mapping[str, Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        present = {n: batch.inputs[n].present for n in self.dims}
        target = batch.targets.get(task)
        made = target is not None and target.is_floating_point() and target.ndim == 1
        if task not in self.table or not made or batch.index is None:
            return {n: side_loss(batch, task, logits[n][task], present[n]) for n in self.dims}
        assert target is not None
        known = batch.target_masks.get(task, torch.ones_like(target, dtype=torch.bool))
        labels, weights = cast(LabelTable, self.table[task]).update(
            batch.index[known],
            target[known],
            {n: f[known] for n, f in features.items()},
            {n: p[known] for n, p in present.items()},
        )
        losses = {}
        for name in self.dims:
            error = (logits[name][task].squeeze(-1)[known] - labels[name]).abs()
            weight = weights[name] * present[name][known]
            losses[name] = (error * weight).sum() / present[name][known].sum().clamp(min=1)
        return losses


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

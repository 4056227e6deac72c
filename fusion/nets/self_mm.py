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
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fusion.batch import Batch, Output, Steps
from fusion.nets._auxiliary import side_loss
from fusion.nets._label_table import FUSION, LabelTable
from fusion.nets._layers import Heads, Net, Widths, module_dict, names_of, width_of
from fusion.nets.kernels.recurrent import Recurrent


class SelfMM(Net):
    """Multimodal head and unimodal heads on generated labels."""

    reads_targets = True
    reads_sign = True  # it tells the rows apart

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

    def _vector(self, name: str, sequence: Steps) -> Tensor:
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

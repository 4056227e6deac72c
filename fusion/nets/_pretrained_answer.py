"""What a pretrained model says itself, in the classes of a task: nothing is trained.

    a class    p_k = (joined outputs / outputs) x (join p)_k / sum_k (join p)_k; not joined: 1 / outputs
    a label    p_k = (join p)_k; not joined: 1 / 2
    a value    low + (high - low) x (v - least) / (most - least)

with p the mean over the steps of the model's probabilities. What is not joined is not said to be unlikely: a
model that knows no "calm" has no opinion of it.

Shapes: batch, time, feature, outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fusion.batch import Batch, Output
from fusion.nets._layers import Net
from fusion.tasks import Kind

FLOOR = 1e-4
"""No class is said to be less likely than this: such numbers of a model that has not seen these clips mean
nothing, and their logarithms would outvote all others."""


class PretrainedAnswer(Net):
    """Reads one input, a column of answers, for one task."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How the model's own classes are those of the task."""

        kind: Kind = "classification"
        join: tuple[Sequence[float], ...] = ()
        """[output feature]: share of each of the model's classes that counts for an output."""

        bounds: tuple[float, ...] = (0.0, 1.0, 0.0, 1.0)
        """Of a value: least and most as the model says it, then as the task has it."""

    def __init__(
        self, config: Config, *, dims: Mapping[str, int], outputs: Mapping[str, int]
    ) -> None:
        super().__init__(dims, outputs)
        if len(self.dims) != 1 or len(self.outputs) != 1:
            raise ValueError(f"expected one input and one task; came {self.dims} and {outputs}")
        self.config = config
        (self.input, width), (self.task, count) = *self.dims.items(), *self.outputs.items()
        join = torch.tensor(config.join, dtype=torch.float64).reshape(len(config.join), -1)
        if config.kind != "regression" and join.shape != (count, width):
            raise ValueError(f"join is {tuple(join.shape)}; expected {(count, width)}")
        self.join: Tensor
        self.register_buffer("join", join, persistent=False)

    def forward(self, batch: Batch) -> Output:
        said = self.read(batch)[self.input].mean().double()
        make = {
            "classification": self._classes,
            "multilabel": self._labels,
            "regression": self._value,
        }
        return Output({self.task: make[self.config.kind](said).float()})

    def _classes(self, said: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch outputs"]:
        known = self.join.any(1)
        joined = (said @ self.join.T + FLOOR) * known
        shares = joined / joined.sum(1, keepdim=True) * known.double().mean()
        return torch.where(known, shares, 1 / len(known)).log()

    def _labels(self, said: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch outputs"]:
        joined = (said @ self.join.T).clamp(max=1)
        return torch.where(self.join.any(1), torch.logit(joined, FLOOR), 0.0)

    def _value(self, said: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch outputs"]:
        least, most, low, high = self.config.bounds
        return low + (high - low) * (said - least) / (most - least)

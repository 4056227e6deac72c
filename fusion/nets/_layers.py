"""Helpers of several nets: reading a batch, heads, single steps of a sequence.

Shapes: batch, time, feature, hidden, outputs.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fusion.batch import Axis, Batch, Output, Steps

Widths = int | Mapping[str, int]
"""One width for every modality, or one a name, with ``*`` for all that are not named."""

Range = tuple[float, float]


def width_of(widths: Widths, name: str) -> int:
    """The width that a modality gets.

    Raises:
        ValueError: neither the name nor ``*`` is given.
    """
    if isinstance(widths, int):
        return widths
    if name not in widths and "*" not in widths:
        raise ValueError(
            f"no width for {name!r} among {dict(widths)}; add it, or '*' for all others"
        )
    return widths[name] if name in widths else widths["*"]


def names_of(text: str) -> tuple[str, ...]:
    """Comma-separated modality names of a config field."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def module_dict(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Modules by modality or task, in sorted order.

    Raises:
        ValueError: a name that torch cannot store (it holds a dot or is a method of a module).
    """
    try:
        return nn.ModuleDict(dict(sorted(modules.items())))
    except KeyError as error:
        raise ValueError(
            f"one of {sorted(modules)} cannot name a module ({error}); rename that modality or task"
        ) from error


class Net(nn.Module):
    """What every net has: its modalities, its tasks, reading a batch, and one way to look inside."""

    axis: ClassVar[Axis] = "clip"
    reads_targets: bool = False
    """Whether its auxiliary losses are held against the targets of the rows it sees."""

    reads_sign: bool = False
    """Whether its auxiliary losses give the sign of a target a meaning."""

    convex: ClassVar[bool] = False
    """Whether it is solved and not trained by steps: no epochs, and the same net for every seed."""

    owns_encoders: bool = False
    """Whether some of its inputs are those of a pretrained model, which no scaling or noise may touch."""

    def __init__(self, dims: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        super().__init__()
        if not dims or not outputs:
            raise ValueError(
                f"a net needs at least one modality and one task; came dims {dict(dims)}, "
                f"outputs {dict(outputs)}"
            )
        self.dims = dict(sorted(dims.items()))
        self.outputs = dict(sorted(outputs.items()))

    def forward(self, batch: Batch) -> Output:
        """Logits of every task, and in training the auxiliary losses of the paper."""
        raise NotImplementedError

    @property
    def raw_targets(self) -> bool:
        """Whether it has to learn targets as they are: their sign has a meaning, or answers are bounded."""
        return self.reads_sign or any(getattr(part, "squash", None) for part in self.modules())

    @property
    def given(self) -> frozenset[str]:
        """Names in its state that are those of pretrained weights, and not stored with the net."""
        return frozenset()

    def rate_of(self, parameter: str) -> float:
        """Factor on the learning rate of a parameter, by its name."""
        return 1.0

    def read(self, batch: Batch) -> dict[str, Steps]:
        """The net's modalities in sorted order; what is masked is zero, whatever it held.

        Raises:
            ValueError: another axis, a modality that is not there, or another feature width.
        """
        if batch.axis != self.axis:
            raise ValueError(f"came a {batch.axis} batch; {type(self).__name__} takes {self.axis}")
        absent = [name for name in self.dims if name not in batch.inputs]
        if absent:
            raise ValueError(
                f"the batch has {list(batch.modalities)}, the net also needs {absent}; "
                "give what is missing as a mask of zeros"
            )
        dtype = next(self.parameters(), torch.zeros(0)).dtype
        sequences = {}
        for name, dim in self.dims.items():
            values, mask = batch.inputs[name].values, batch.inputs[name].mask
            if values.shape[2] != dim:
                raise ValueError(
                    f"{name} has {values.shape[2]} features, the net was made for {dim}"
                )
            if not bool(mask.all()):
                values = values.masked_fill(~mask.unsqueeze(-1), 0.0)
            sequences[name] = Steps(values.to(dtype), mask)
        return sequences

    @torch.no_grad()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """By how much each logit falls when a modality is taken away: ``without/<modality>/<task>``."""
        full = self(batch).logits
        changes = {}
        for name in self.dims:
            hidden = Steps(batch.inputs[name].values, torch.zeros_like(batch.inputs[name].mask))
            logits = self(replace(batch, inputs={**batch.inputs, name: hidden})).logits
            for task in self.outputs:
                changes[f"without/{name}/{task}"] = full[task] - logits[task]
        return changes


class Heads(nn.Module):
    """One linear layer a task. `squash` bounds the tasks with a single output by a sigmoid."""

    def __init__(
        self,
        width: int,
        outputs: Mapping[str, int],
        *,
        squash: Range | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.squash = squash
        self.task = module_dict(
            {task: nn.Linear(width, size, bias=bias) for task, size in outputs.items()}
        )

    def forward(self, x: Float[Tensor, "*rows hidden"]) -> dict[str, Tensor]:
        return {task: squashed(head(x), self.squash) for task, head in self.task.items()}


def squashed(logits: Float[Tensor, "*rows outputs"], bounds: Range | None) -> Tensor:
    """A single output between two bounds; anything else as it came."""
    if bounds is None or logits.shape[-1] != 1:
        return logits
    return bounds[0] + (bounds[1] - bounds[0]) * torch.sigmoid(logits)


def step_at(
    values: Float[Tensor, "batch time feature"], index: Int[Tensor, " batch"]
) -> Float[Tensor, "batch feature"]:
    """One step of each row."""
    return values.take_along_dim(index[:, None, None], 1).squeeze(1)


def state_at(
    states: Float[Tensor, "time batch feature"], index: Int[Tensor, " batch"]
) -> Float[Tensor, "batch feature"]:
    """One step of each row, of states with time first."""
    return states[index, torch.arange(len(index), device=index.device)]


def last_step(mask: Bool[Tensor, "batch time"]) -> Int[Tensor, " batch"]:
    """Position of the last real step; 0 where there is none."""
    steps = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, steps, 0).amax(1)


def last_real(sequence: Steps) -> Float[Tensor, "batch feature"]:
    """Values of the last real step; zero where there is none."""
    return step_at(sequence.values, last_step(sequence.mask)) * sequence.present.unsqueeze(-1)


def first_real(sequence: Steps) -> Float[Tensor, "batch feature"]:
    """Values of the first real step; zero where there is none."""
    first = sequence.mask.int().argmax(1)
    return step_at(sequence.values, first) * sequence.present.unsqueeze(-1)


class TimeNorm(nn.Module):
    """Batch norm with the step as channel: ties a net to one length. For parity only."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(steps)

    def forward(self, values: Float[Tensor, "batch time feature"]) -> Tensor:
        steps, length = self.norm.num_features, values.shape[1]
        if length > steps:
            raise ValueError(f"came {length} steps; a norm over time was made for {steps}")
        padded = nn.functional.pad(values, (0, 0, 0, steps - length))
        normed: Tensor = self.norm(padded)[:, :length]
        return normed

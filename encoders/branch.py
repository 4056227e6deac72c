"""A pretrained model as a branch of a net that trains it: from published inputs to states, with gradients.

What a net has to know of any transformer: its width, its blocks from bottom to top, and at which level of
it a parameter lies (`EncoderBranch.level`). The wrappers that encode are not used here: they run without
gradients and cut long clips; a branch takes the steps that `publish=inputs` stored.

Shapes: batch, time, feature.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Join = Callable[[Sequence[Tensor]], Tensor]


def last(levels: Sequence[Tensor]) -> Tensor:
    """The states of the last block."""
    return levels[-1]


class EncoderBranch(nn.Module):
    """A model and its levels: 0 is all that lies below the blocks, 1 to `depth` are the blocks.

    Args:
        model: as `transformers` builds it.
        dim: width of its states.
        depth: number of its blocks.
        lists: names of its lists of blocks, bottom to top; none: it has one of `depth`, which is found.
        blocks: names of its blocks, bottom to top, where they stand in no list.
        top: names of its parts above the blocks, which count to the last one.
        unused: names of its parts that the states do not depend on.
    """

    has_levels: bool = True
    """Whether its blocks give states of one width at the same steps, which a head may read together."""

    def __init__(
        self,
        model: nn.Module,
        *,
        dim: int,
        depth: int,
        lists: tuple[str, ...] = (),
        blocks: tuple[str, ...] = (),
        top: tuple[str, ...] = (),
        unused: tuple[str, ...] = ("pooler",),
    ) -> None:
        super().__init__()
        self.model = model
        self.dim, self.depth = dim, depth
        named = blocks or tuple(
            f"{name}.{index}"
            for name in lists or (_blocks_of(model, depth),)
            for index, _ in model.get_submodule(name).named_children()
        )
        self._blocks = tuple(f"model.{name}." for name in named)
        self._top = tuple(f"model.{name}." for name in top)
        self._unused = tuple(f"model.{name}" for name in unused)

    def train(self, mode: bool = True) -> "EncoderBranch":
        """Training or evaluation; statistics that a model keeps (batch norm) stay those of its pretraining.

        They come from the pretrained weights again, and differ from worker to worker.
        """
        super().train(mode)
        for module in self.modules():
            if getattr(module, "running_mean", None) is not None:
                module.eval()
        return self

    @property
    def blocks(self) -> list[nn.Module]:
        """Its blocks, bottom to top."""
        return [self.get_submodule(name[:-1]) for name in self._blocks]

    def level(self, parameter: str) -> int | None:
        """Where a parameter lies, by its name here; None: nothing depends on it."""
        if parameter.startswith(self._unused):
            return None
        for below, name in enumerate(self._blocks):
            if parameter.startswith(name):
                return below + 1
        return self.depth if parameter.startswith(self._top) else 0

    def forward(
        self,
        values: Float[Tensor, "batch time feature"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch steps width"], Bool[Tensor, "batch steps"]]:
        """States, and which of them are real; what the mask hides changes nothing.

        Args:
            values: what the model is given.
            mask: its real steps.
            join: makes the states of the embedding's and of every block's, each [batch time dim].
        """
        raise NotImplementedError


def attended(mask: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
    """The mask, with one step open in rows that have none: attention over nothing is not a number."""
    first = torch.zeros_like(mask)
    first[:, 0] = ~mask.any(1)
    return mask | first


def _blocks_of(model: nn.Module, depth: int) -> str:
    """Name of the list of blocks inside a model."""
    found: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no list of {depth} blocks; it cannot be trained inside a net"
        )
    return min(found, key=_nesting)


def _nesting(name: str) -> int:
    return name.count(".")

"""Fine-tuning: pretrained encoders as branches of a net of the zoo, trained with it.

    z_m = E_m(x_m)   for the inputs that were published as a model's own inputs (token ids, sound, pictures)
    z_m = x_m        for all others: features of frozen encoders
    logits = head(z)

`head` is any net of the zoo that reads clips. A branch reaches the net from outside (`Branch`: width, blocks,
level of each parameter), so that nothing of a model library is imported here. Its lower blocks may be frozen,
as in the system that trains the upper 6 of BERT's 12 (`freeze`); learning rates fall from the head (1) over
the last block (`encoder_rate`) by `layer_decay` a block (ULMFiT: Howard & Ruder 2018,
https://arxiv.org/abs/1801.06146); `lora` trains low-rank updates in place of the weights. The head reads the
last block, a learned mean of all (`layers=sum`), as is usual for speech (SUPERB: Yang et al. 2021,
https://arxiv.org/abs/2105.01051), or all side by side.

`head=linear` is solved on what the encoders give before they are trained, and trained with them from there:
a random head spoils good states before it has learnt anything (Kumar et al. 2022,
https://arxiv.org/abs/2202.10054). It reads mean and standard deviation of the steps.

Parameters that are not trained are not stored: `given` names them, and they come from the pretrained weights
again.

Shapes: batch, time, feature.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fusion.batch import Batch, Output, Steps, split_rows
from fusion.nets import NETS, net_class, net_config
from fusion.nets._adapters import adapt, recompute
from fusion.nets._layers import Net, Widths, module_dict, width_of
from fusion.nets._levels import Layers, Levels, Vector
from fusion.nets._options import near

STEPS_AT_ONCE = 16_384
"""Rows times steps that are read at a time where nothing is trained."""

VALUES_AT_ONCE = 2**24
"""And their values: a hundred pictures of 224 px."""

STATES_AT_ONCE = 2**26
"""And the values of the states that the head reads of them: 256 MB."""


@runtime_checkable
class Branch(Protocol):
    """A pretrained model, as a net has to know it; an `nn.Module`."""

    dim: int
    depth: int
    has_levels: bool
    """Whether its blocks give states of one width at the same steps."""

    @property
    def blocks(self) -> list[nn.Module]:
        """Bottom to top."""

    def level(self, parameter: str) -> int | None:
        """0 below the blocks, 1 to `depth` in them; None: nothing depends on it."""

    def __call__(
        self,
        values: Float[Tensor, "batch time feature"],
        mask: Bool[Tensor, "batch time"],
        join: Callable[[Sequence[Tensor]], Tensor],
    ) -> tuple[Float[Tensor, "batch steps width"], Bool[Tensor, "batch steps"]]:
        """What is made of the states of the embedding and of all blocks, and which steps are real."""


class FineTune(Net):
    """Encoders and a fusion net, trained together.

    Args:
        config: what is trained, and how fast.
        dims: feature width of each input.
        outputs: logits of each task.
        branches: input -> the model that reads it; the others go to the head as they come.

    Raises:
        ValueError: a head that cannot take the states, more frozen blocks than there are, levels that
            cannot stand together, or low-rank updates where nothing is linear.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which part of the encoders is trained, and the net on top of them."""

        head: str = "concat_mlp"
        """Net of the zoo on top; linear: solved before anything is trained."""

        head_options: Mapping[str, int | float | str | bool] = field(default_factory=dict)
        """Options of that net: head_options.hidden=64."""

        freeze: Widths = 0
        """Frozen blocks of each encoder from below, with all that lies under them; 0: all is trained."""

        lora: int = 0
        """Rank of low-rank updates, trained in place of the weights of unfrozen blocks; 0: none."""

        encoder_rate: float = 0.03
        """Factor on the learning rate for the last block of encoders."""

        layer_decay: float = 1.0
        """Factor on the learning rate from a block to the one below it (0..1]."""

        layers: Layers = "last"
        """States that the head reads: of the last block, a learned mean of all, or all side by side."""

        dropout: float = 0.3
        """Share of the states that a linear head is not shown in training [0..1)."""

        dropout_inside: bool = True
        """Dropout inside the encoders, as they were pretrained with."""

        recompute: bool = False
        """Run blocks once more for their gradients, which saves memory (gradient checkpointing)."""

        def __post_init__(self) -> None:
            if self.encoder_rate <= 0 or not 0 < self.layer_decay <= 1:
                raise ValueError(
                    "expected encoder_rate > 0 and layer_decay in (0, 1]; came "
                    f"{self.encoder_rate}, {self.layer_decay}"
                )
            kind = net_class(self.head)
            if not _may_be_head(kind):
                known = ", ".join(name for name in NETS if _may_be_head(net_class(name)))
                raise ValueError(f"head {self.head!r}: expected a net of clips on top: {known}")
            net_config(self.head, self.head_options)

    def __init__(
        self,
        config: Config,
        *,
        dims: Mapping[str, int],
        outputs: Mapping[str, int],
        branches: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(dims, outputs)
        self.config = config
        kind = net_class(config.head)
        owned = module_dict(branches or {})
        _check_named(config.freeze, list(owned))
        levels = {
            name: _levels(name, cast(Branch, branch), config.layers)
            for name, branch in owned.items()
        }
        widths = {name: cast(Branch, owned[name]).dim * levels[name].factor for name in levels}
        self.widths = dict(widths)
        vectors = {name: Vector(width, config.dropout) for name, width in widths.items()}
        if kind.convex:
            widths = {name: 2 * width for name, width in widths.items()}
        options = net_config(config.head, config.head_options)
        # The head comes first: the rate of its parameters is the one that is shown.
        self.head = kind(options, dims={**dims, **widths}, outputs=outputs)
        self.vectors = module_dict(vectors if kind.convex else {})
        self.levels = module_dict(levels)
        self.branches = owned
        self.reads_targets = self.head.reads_targets
        self.reads_sign = self.head.reads_sign
        self.owns_encoders = bool(branches)
        for name in owned:
            self._prepare(name)
        if config.lora and owned and not any(p.requires_grad for p in self.branches.parameters()):
            raise ValueError(
                f"lora={config.lora}: freeze leaves no block to update; freeze fewer, or leave lora out"
            )

    @property
    def begins_solved(self) -> bool:
        """Whether its head is solved before anything is trained."""
        return bool(self.head.convex)

    def forward(self, batch: Batch) -> Output:
        if torch.is_grad_enabled() or self.training:
            return self._said(batch)
        # A row says the same among others; all states at once may be larger than the memory.
        said = [self._said(piece).logits for piece in self.pieces(batch)]
        return Output(logits={task: torch.cat([each[task] for each in said]) for task in said[0]})

    def pieces(self, batch: Batch) -> list[Batch]:
        """The batch a few rows at a time, as many as are read at once where nothing is trained."""
        most = len(batch)
        for name in self.branches:
            time, width = batch.inputs[name].values.shape[1:]
            bounds = VALUES_AT_ONCE // width, STATES_AT_ONCE // self.widths[name]
            most = min(most, min(STEPS_AT_ONCE, *bounds) // time)
        return split_rows(batch, max(1, most))

    def _said(self, batch: Batch) -> Output:
        sequences = self.states(batch)
        for name, vector in self.vectors.items():
            sequences[name] = vector(sequences[name])
        if batch.mixing is not None:
            sequences = {name: batch.mixing(steps) for name, steps in sequences.items()}
        for name, vector in self.vectors.items():
            sequences[name] = cast(Vector, vector).hidden(sequences[name])
        output: Output = self.head(replace(batch, inputs=sequences))
        return output

    def states(self, batch: Batch) -> dict[str, Steps]:
        """What the head is made to read: states of the encoders, and the other inputs as they come."""
        sequences: dict[str, Steps] = self.read(batch)
        for name, branch in self.branches.items():
            # As they came: half a precision would not hold a token's id.
            steps, join = batch.inputs[name], self.levels[name]
            sequences[name] = Steps(*branch(steps.values, steps.mask, join))
        return sequences

    def train(self, mode: bool = True) -> "FineTune":
        """Training or evaluation; encoders without dropout stay as they are in evaluation."""
        super().train(mode)
        self.branches.train(mode and self.config.dropout_inside)
        return self

    @property
    def given(self) -> frozenset[str]:
        """Names in the state that the pretrained weights give: all of the branches that is not trained."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        inside = (name for name in self.state_dict() if name.startswith("branches."))
        return frozenset(inside) - trained

    def rate_of(self, parameter: str) -> float:
        """Factor on the learning rate of a parameter, by its name."""
        place, _, rest = parameter.partition(".")
        if place != "branches":
            return 1.0
        name, _, inside = rest.partition(".")
        branch = self._branch(name)
        level = branch.level(inside)
        below = branch.depth - (0 if level is None else level)
        return float(self.config.encoder_rate * self.config.layer_decay**below)

    def _prepare(self, name: str) -> None:
        """Freeze what is not trained, and give the rest of a branch its updates."""
        branch, rank = self._branch(name), self.config.lora
        frozen = width_of(self.config.freeze, name)
        if not 0 <= frozen <= branch.depth:
            raise ValueError(
                f"freeze of {name}: expected 0 to its {branch.depth} blocks, came {frozen}"
            )
        if rank > branch.dim:
            raise ValueError(
                f"lora of {name}: expected a rank of at most its {branch.dim} features, came {rank}; "
                "all of its weights train without lora"
            )
        for inside, parameter in self.branches[name].named_parameters():
            level = branch.level(inside)
            trained = level is not None and (frozen == 0 or level > frozen) and not rank
            # What a model itself keeps as it is (positions that are sines) stays so.
            parameter.requires_grad_(trained and parameter.requires_grad)
        blocks = branch.blocks[frozen:]
        adapted = sum(adapt(block, rank) for block in blocks) if rank else 0
        if rank and blocks and not adapted:
            raise ValueError(
                f"lora={rank}: the model that reads {name} has no linear layer in its blocks; "
                "leave lora out, freeze=N trains the upper blocks alone"
            )
        if self.config.recompute:
            for block in blocks:
                recompute(block)

    def _branch(self, name: str) -> Branch:
        return cast(Branch, self.branches[name])


def _may_be_head(kind: type[Net]) -> bool:
    """Whether a net can stand on top of encoders."""
    return kind.axis == FineTune.axis and kind is not FineTune


def _levels(name: str, branch: Branch, layers: Layers) -> Levels:
    """What a head is made to read of a model.

    Raises:
        ValueError: several levels of a model whose blocks give states of unlike shapes.
    """
    if layers != "last" and not branch.has_levels:
        raise ValueError(
            f"layers={layers}: the blocks of the model that reads {name} give states of unlike shapes; "
            "expected layers=last"
        )
    return Levels(layers, branch.depth)


def _check_named(freeze: Widths, owned: list[str]) -> None:
    """Refuse blocks of an input that no encoder is trained on."""
    named = [] if isinstance(freeze, int) else [name for name in freeze if name != "*"]
    unknown = [name for name in named if name not in owned]
    if unknown:
        raise ValueError(
            f"freeze.{unknown[0]}: expected an input whose encoder is trained, of "
            f"{', '.join(sorted(owned)) or 'none'}{near(unknown[0], owned)}"
        )

"""EfficientNet with the parameter names that its published checkpoints have; sizes are read off them.

A strided convolution, seven stages of inverted residuals with squeeze and excitation, a wide pointwise
convolution, the mean over the picture. Batch norm has eps 1e-3; padding is TensorFlow's SAME, which puts the
odd pixel behind the picture. Tan and Le 2019, https://arxiv.org/abs/1905.11946.

Shapes: batch, channels, height, width.
"""

from collections.abc import Mapping
from itertools import count

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Of the first block of each stage; those of the others are 1."""

CLASSIFIERS = ("classifier.", "classifier.0.")
"""Beginnings of the names of the last layer's parameters, as it was saved."""


class EfficientNet(nn.Module):
    """From pictures to features and outputs.

    Args:
        states: parameters, of which the shapes count.

    Raises:
        KeyError: one of them is not there.
    """

    def __init__(self, states: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.conv_stem = _Same(states["conv_stem.weight"], 2)
        self.bn1 = _norm(self.conv_stem.out_channels)
        self.blocks = nn.Sequential(
            *(_stage(states, f"blocks.{i}.", stride) for i, stride in enumerate(STRIDES))
        )
        self.conv_head = _Same(states["conv_head.weight"])
        self.bn2 = _norm(self.conv_head.out_channels)
        self.classifier = nn.Linear(self.dim, len(states["classifier.bias"]))

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.conv_head.out_channels

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch outputs"]]:
        """Features, and outputs of the last layer."""
        x = self.blocks(F.silu(self.bn1(self.conv_stem(x))))
        features = F.silu(self.bn2(self.conv_head(x))).mean((2, 3))
        return features, self.classifier(features)


class _Same(nn.Conv2d):
    """A convolution whose padding is SAME at any size of picture."""

    def __init__(
        self, weight: Tensor, stride: int = 1, *, depthwise: bool = False, bias: bool = False
    ) -> None:
        outs, ins, size, _ = weight.shape
        groups = outs if depthwise else 1
        super().__init__(ins * groups, outs, size, stride, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        more = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
        pads = [half for each in reversed(more) for half in (each // 2, each - each // 2)]
        return super().forward(F.pad(x, pads))


class _Squeeze(nn.Module):
    """Each channel scaled by what the mean picture says of it."""

    def __init__(self, reduce: Tensor, expand: Tensor) -> None:
        super().__init__()
        self.conv_reduce, self.conv_expand = (_Same(w, bias=True) for w in (reduce, expand))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        scaled: Tensor = x * self.conv_expand(F.silu(self.conv_reduce(mean))).sigmoid()
        return scaled


class _Block(nn.Module):
    """Widened where it has a first pointwise convolution, filtered channel by channel, made narrow again."""

    def __init__(self, states: Mapping[str, Tensor], name: str, stride: int) -> None:
        super().__init__()
        self.conv_dw = _Same(states[f"{name}conv_dw.weight"], stride, depthwise=True)
        reduce, expand = (states[f"{name}se.conv_{part}.weight"] for part in ("reduce", "expand"))
        self.se = _Squeeze(reduce, expand)
        self.widens = f"{name}conv_pwl.weight" in states
        self.conv_pw = _Same(states[f"{name}conv_pw.weight"])
        inside = self.conv_dw.out_channels
        self.bn1, last = _norm(inside), self.conv_pw
        if self.widens:
            self.conv_pwl = last = _Same(states[f"{name}conv_pwl.weight"])
            self.bn2, self.bn3 = _norm(inside), _norm(last.out_channels)
        else:
            self.bn2 = _norm(last.out_channels)
        ins = self.conv_pw.in_channels if self.widens else inside
        self.adds = stride == 1 and ins == last.out_channels

    def forward(self, x: Tensor) -> Tensor:
        if self.widens:
            y = F.silu(self.bn1(self.conv_pw(x)))
            y = self.se(F.silu(self.bn2(self.conv_dw(y))))
            y = self.bn3(self.conv_pwl(y))
        else:
            y = self.se(F.silu(self.bn1(self.conv_dw(x))))
            y = self.bn2(self.conv_pw(y))
        both: Tensor = x + y if self.adds else y
        return both


def _stage(states: Mapping[str, Tensor], name: str, stride: int) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for index in count():
        inside = f"{name}{index}."
        if index and f"{inside}conv_dw.weight" not in states:
            return nn.Sequential(*blocks)
        blocks.append(_Block(states, inside, 1 if index else stride))
    raise AssertionError("it counts on")


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)

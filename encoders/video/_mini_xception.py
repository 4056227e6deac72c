"""Mini-XCEPTION, rebuilt in torch from the Keras file it is published as.

Arriaga, Valdenegro-Toro and Ploeger 2017, https://arxiv.org/abs/1710.07557: 58 thousand parameters,
trained on FER-2013; grey faces of 64 x 64, scaled to [-1, 1]. Convolutions without bias, batch norm with
eps 1e-3, and TensorFlow's SAME padding, which puts the odd pixel behind the picture.

Shapes: batch, channels, height, width.
"""

from itertools import pairwise
from pathlib import Path

import h5py
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NUM_CLASSES = 7
SIDE_PX = 64
WIDTHS = (16, 32, 64, 128)


class Separable(nn.Module):
    """Depthwise 3 x 3, then pointwise 1 x 1."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(ins, ins, 3, padding=1, groups=ins, bias=False)
        self.pointwise = nn.Conv2d(ins, outs, 1, bias=False)

    def forward(self, x: Float[Tensor, "batch ins height width"]) -> Tensor:
        """[batch outs height width]."""
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


class Block(nn.Module):
    """Two separable convolutions, halved, beside a strided shortcut."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.first, self.second = Separable(ins, outs), Separable(outs, outs)
        self.shortcut = nn.Conv2d(ins, outs, 1, stride=2, bias=False)
        self.norm_shortcut, self.norm_first, self.norm_second = (
            nn.BatchNorm2d(outs, eps=1e-3) for _ in range(3)
        )

    def forward(self, x: Float[Tensor, "batch ins height width"]) -> Tensor:
        """[batch outs height/2 width/2]."""
        y = F.relu(self.norm_first(self.first(x)))
        y = self.norm_second(self.second(y))
        height, width = y.shape[2:]
        after = [max((-(-size // 2) - 1) * 2 + 3 - size, 0) for size in (width, height)]
        pads = [half for size in after for half in (size // 2, size - size // 2)]
        y = F.max_pool2d(F.pad(y, pads, value=-torch.inf), 3, stride=2)
        shortcut: Tensor = self.norm_shortcut(self.shortcut(x))
        return y + shortcut


class MiniXception(nn.Module):
    """Expression of a face: 128 features and 7 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem1, self.stem2 = (nn.Conv2d(ins, 8, 3, bias=False) for ins in (1, 8))
        self.norm1, self.norm2 = (nn.BatchNorm2d(8, eps=1e-3) for _ in range(2))
        widths = (8, *WIDTHS)
        self.blocks = nn.ModuleList(Block(ins, outs) for ins, outs in pairwise(widths))
        self.head = nn.Conv2d(WIDTHS[-1], NUM_CLASSES, 3, padding=1)

    def forward(self, faces: Float[Tensor, "batch 1 64 64"]) -> tuple[Tensor, Tensor]:
        """Features [batch 128] (mean over the last map) and logits [batch 7]."""
        x = F.relu(self.norm1(self.stem1(faces)))
        x = F.relu(self.norm2(self.stem2(x)))
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3)), self.head(x).mean((2, 3))

    @classmethod
    def from_keras(cls, path: Path) -> "MiniXception":
        """Read the weights of the published hdf5 file; nothing in it is run."""
        net = cls().eval()
        with h5py.File(path, "r") as file:
            layers = file["model_weights"]

            def read(layer: str, name: str) -> Tensor:
                return torch.from_numpy(layers[layer][f"{layer}_1"][f"{name}:0"][()]).float()

            def convolution(target: nn.Conv2d, layer: str, name: str = "kernel") -> None:
                order = (2, 3, 0, 1) if name == "depthwise_kernel" else (3, 2, 0, 1)
                target.weight.data.copy_(read(layer, name).permute(order))

            def norm(target: nn.BatchNorm2d, number: int) -> None:
                layer = f"batch_normalization_{number}"
                target.weight.data.copy_(read(layer, "gamma"))
                target.bias.data.copy_(read(layer, "beta"))
                assert target.running_mean is not None
                assert target.running_var is not None
                target.running_mean.copy_(read(layer, "moving_mean"))
                target.running_var.copy_(read(layer, "moving_variance"))

            convolution(net.stem1, "conv2d_1")
            convolution(net.stem2, "conv2d_2")
            norm(net.norm1, 1)
            norm(net.norm2, 2)
            for index, block in enumerate(net.blocks):
                assert isinstance(block, Block)
                for offset, separable in ((1, block.first), (2, block.second)):
                    layer = f"separable_conv2d_{2 * index + offset}"
                    convolution(separable.depthwise, layer, "depthwise_kernel")
                    convolution(separable.pointwise, layer, "pointwise_kernel")
                convolution(block.shortcut, f"conv2d_{index + 3}")
                # Keras numbered the shortcut's norm before the two of the main path.
                norm(block.norm_shortcut, 3 * index + 3)
                norm(block.norm_first, 3 * index + 4)
                norm(block.norm_second, 3 * index + 5)
            convolution(net.head, "conv2d_7")
            assert net.head.bias is not None
            net.head.bias.data.copy_(read("conv2d_7", "bias"))
        return net

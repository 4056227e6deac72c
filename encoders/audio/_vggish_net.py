"""The network and the front end of VGGish; see `encoders/audio/vggish.py`."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cluster.errors import WeightsError

WIDTHS = (64, 128, 256, 256, 512, 512)
_POOLED = (0, 1, 3, 5)
"""Convolutions that are followed by 2 x 2 max pooling."""

_FFT = 512


class VggishNet(nn.Module):
    """Six convolutions and three dense layers, every one followed by ReLU.

    Args:
        widths: channels of the convolutions.
        dense: widths of the dense layers.
        grid: time and band steps of the last map.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = WIDTHS,
        dense: tuple[int, ...] = (4096, 4096, 128),
        grid: tuple[int, int] = (6, 4),
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (ins, outs) in enumerate(zip((1, *widths), widths, strict=False)):
            layers += [nn.Conv2d(ins, outs, 3, padding=1), nn.ReLU()]
            if index in _POOLED:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        flat = widths[-1] * grid[0] * grid[1]
        heads: list[nn.Module] = []
        for wide_in, wide_out in zip((flat, *dense), dense, strict=False):
            heads += [nn.Linear(wide_in, wide_out), nn.ReLU()]
        self.embeddings = nn.Sequential(*heads)

    def forward(self, patches: Float[Tensor, "batch 1 time band"]) -> Float[Tensor, "batch dim"]:
        """Embeddings; the map is flattened as time, band, channel."""
        flat = self.features(patches).permute(0, 2, 3, 1).flatten(1)
        out: Tensor = self.embeddings(flat)
        return out

    def time_mean(
        self, patches: Float[Tensor, "batch 1 time band"]
    ) -> Float[Tensor, "batch width"]:
        """The last map averaged over time, channel-major."""
        mean: Tensor = self.features(patches).mean(2).flatten(1)
        return mean


def load_net(path: Path) -> VggishNet:
    """The network of a checkpoint.

    Raises:
        WeightsError: parameters that it needs are not there.
    """
    net = VggishNet()
    missing, _ = net.load_state_dict(load_parameters(path), strict=False)
    if missing:
        raise WeightsError(
            f"{path} lacks {', '.join(missing[:3])}; "
            "expected a checkpoint with the names of torchvggish"
        )
    return net


def load_parameters(path: Path) -> dict[str, Tensor]:
    """Parameters of a safetensors file, or of a torch file of which only tensors are read."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def patches_of(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "patches 96 64"]:
    """One patch at least: what is under 0.96 s is followed by silence."""
    more = max(0, 95 * 160 + 400 - len(samples))  # one patch of frames takes 95 hops and a window
    return patches(np.pad(samples, (0, more)))


def patches(
    samples: Float[np.ndarray, " samples"], *, rate_hz: int = 16000
) -> Float[np.ndarray, "patches 96 64"]:
    """Whole blocks of 96 log-mel frames; the rest is dropped."""
    frames = log_mel(samples, rate_hz=rate_hz)
    count = len(frames) // 96
    return frames[: count * 96].reshape(count, 96, frames.shape[1])


def log_mel(
    samples: Float[np.ndarray, " samples"],
    *,
    rate_hz: int = 16000,
    window: int = 400,
    hop: int = 160,
    bands: int = 64,
    low_hz: float = 125.0,
    high_hz: float = 7500.0,
) -> Float[np.ndarray, "frames bands"]:
    """Natural log of (mel + 0.01) of magnitude spectra; no padding, so 1 s gives 98 frames."""
    if len(samples) < window:
        return np.zeros((0, bands))
    view = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    magnitude = np.abs(np.fft.rfft(view * hann, _FFT, axis=1))
    filters = _mel_filters(bands, rate_hz, low_hz, high_hz)
    logs: np.ndarray = np.log(magnitude @ filters + 0.01)
    return logs


def _mel_filters(bands: int, rate_hz: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Triangles linear in HTK mel, not normalised, nothing at 0 Hz [bins bands]."""
    mel = 1127 * np.log1p(np.linspace(0, rate_hz / 2, _FFT // 2 + 1) / 700)[:, None]
    edges = np.linspace(1127 * np.log1p(low_hz / 700), 1127 * np.log1p(high_hz / 700), bands + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    filters: np.ndarray = np.maximum(
        0, np.minimum((mel - low) / (centre - low), (high - mel) / (high - centre))
    )
    filters[0] = 0
    return filters

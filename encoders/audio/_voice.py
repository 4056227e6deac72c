"""Voice activity detection: the Silero network, rebuilt in torch from its safetensors file.

A chunk of 512 samples, with the 64 before it, becomes a magnitude spectrum, four convolutions and one step of
an LSTM: one probability every 32 ms. Silero Team, https://github.com/snakers4/silero-vad, MIT.

Shapes: batch, chunks.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

RATE_HZ = 16000
CHUNK = 512
_CONTEXT, _REFLECTED, _BINS = 64, 64, 129

_ON, _OFF = 0.5, 0.35
"""Speech begins above the one and ends below the other."""

_MIN_SPEECH_S, _MIN_SILENCE_S, _MARGIN_S = 0.1, 0.1, 0.1


class VoiceActivity(nn.Module):
    """Probability of speech every 32 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * _BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(_BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.final_conv = nn.Conv1d(128, 1, 1)

    @classmethod
    def load(cls, path: Path) -> "VoiceActivity":
        """Read the published weights; the LSTM cell's become those of a one-layer LSTM."""
        from safetensors.torch import load_file

        renamed = {}
        for name, value in load_file(path).items():
            head, _, leaf = name.partition(".")
            renamed[f"lstm.{leaf}_l0" if head == "lstm_cell" else name] = value
        net = cls().eval()
        net.load_state_dict(renamed)
        return net

    def forward(self, chunks: Float[Tensor, "chunks samples"]) -> Float[Tensor, " chunks"]:
        """Probabilities of the successive chunks of one recording, each with 64 samples before it."""
        x = F.pad(chunks[:, None], (0, _REFLECTED), mode="reflect")
        x = self.stft_conv(x)
        x = (x[:, :_BINS].square() + x[:, _BINS:].square()).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = convolution(x).relu()
        hidden, _ = self.lstm(x.transpose(0, 2).transpose(1, 2))
        out = self.final_conv(hidden.relu().transpose(1, 2))
        return torch.sigmoid(out)[0, 0]

    @torch.inference_mode()
    def probabilities(
        self, samples: Float32[np.ndarray, " samples"]
    ) -> Float32[np.ndarray, " chunks"]:
        """One number for each 32 ms begun."""
        if len(samples) == 0:
            return np.zeros(0, np.float32)
        device = self.stft_conv.weight.device
        whole = -(-len(samples) // CHUNK) * CHUNK
        sound = F.pad(torch.from_numpy(samples), (_CONTEXT, whole - len(samples)))
        chunks = sound.unfold(0, CHUNK + _CONTEXT, CHUNK).to(device)
        result: np.ndarray = self(chunks).cpu().numpy()
        return result


def speech_spans(
    probabilities: Sequence[float] | Float32[np.ndarray, " chunks"],
) -> list[tuple[float, float]]:
    """Stretches of speech [s], with a margin, short pauses bridged and clicks dropped.

    >>> speech_spans([0.0] * 10 + [0.9] * 10 + [0.0] * 10)
    [(0.22, 0.74)]
    """
    step = CHUNK / RATE_HZ
    spans: list[tuple[float, float]] = []
    start: float | None = None
    silent_since: float | None = None
    for index, probability in enumerate(
        [*probabilities, *[0.0] * (round(_MIN_SILENCE_S / step) + 2)]
    ):
        time = index * step
        if probability >= _ON:
            start = time if start is None else start
            silent_since = None
        elif start is not None and probability < _OFF:
            silent_since = time if silent_since is None else silent_since
            if time - silent_since >= _MIN_SILENCE_S:
                if silent_since - start >= _MIN_SPEECH_S:
                    spans.append((start, silent_since))
                start = silent_since = None
    return _with_margin(spans, len(probabilities) * step)


def _with_margin(spans: list[tuple[float, float]], end_s: float) -> list[tuple[float, float]]:
    wide: list[tuple[float, float]] = []
    for start, end in spans:
        start, end = max(0.0, start - _MARGIN_S), min(end_s, end + _MARGIN_S)
        if wide and start <= wide[-1][1]:
            start = wide.pop()[0]
        wide.append((round(start, 4), round(end, 4)))
    return wide


def windows_of(spans: Sequence[tuple[float, float]], longest_s: float) -> list[tuple[float, float]]:
    """Spans joined into windows of at most `longest_s`, cut in pauses where there are any.

    >>> windows_of([(0.0, 10.0), (12.0, 25.0), (26.0, 40.0)], 30.0)
    [(0.0, 25.0), (26.0, 40.0)]
    """
    windows: list[tuple[float, float]] = []
    for start, end in spans:
        while end - start > longest_s:
            windows.append((start, start + longest_s))
            start += longest_s
        if windows and end - windows[-1][0] <= longest_s:
            windows[-1] = (windows[-1][0], end)
        else:
            windows.append((start, end))
    return windows

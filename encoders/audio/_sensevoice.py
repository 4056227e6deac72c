"""SenseVoice small from its published folder: frames, states, and what it says of emotion and events.

A frame every 10 ms, eighty mel bands as Kaldi makes them with a Hamming window; seven frames side by side
every 60 ms, shifted and scaled as `am.mvn` says. Longer sound is cut into windows of 30 s.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from cluster.errors import WeightsError
from encoders.audio._sensevoice_net import EMOTION, EVENT, QUERIES, SPOKEN, SenseVoiceNet
from encoders.audio._sensevoice_tokens import SentencePieces
from encoders.audio._speech import windows_of
from encoders.audio._w2v_bert import BANDS, RATE_HZ, log_mel
from encoders.audio.sensevoice import EMOTIONS, EVENTS, LANGUAGES, TOKENS_OF
from encoders.batching import (
    arithmetic,
    buckets,
    check_shape,
    model_folder,
    nothing,
    stacked,
    steps,
    use_threads,
)
from encoders.checkpoints import file_of, tensors_of
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded

JOINED, EVERY = 7, 6
"""Frames side by side in a step, and from one step to the next."""

FEATURE = JOINED * BANDS
"""Width of a step."""

HOP_S = 0.06
WINDOW = 30 * RATE_HZ
ASKED = (LANGUAGES["auto"], EMOTION, EVENT, SPOKEN)
"""What the queries of the encoder ask for."""


class FrontEnd:
    """From sound to what the net reads; of its folder it needs `am.mvn` alone."""

    def __init__(self, folder: Path) -> None:
        self._shift, self._scale = scaling_of(folder / "am.mvn", FEATURE)

    def frames(self, samples: np.ndarray) -> Float32[np.ndarray, "steps feature"]:
        """Scaled frames, seven side by side every 60 ms; the edges are repeated beyond both ends."""
        mel = log_mel(samples, "hamming")
        count, before = -(-len(mel) // EVERY), (JOINED - 1) // 2
        at = np.arange(count)[:, None] * EVERY + np.arange(JOINED) - before
        joined = mel[at.clip(0, len(mel) - 1)].reshape(count, -1)
        scaled: np.ndarray = ((joined + self._shift) * self._scale).astype(np.float32)
        return scaled


class SenseVoice:
    """The net, its scaling and its tokens; reads windows of sound."""

    def __init__(self, descriptor: Descriptor, path: Path, *, device: str, threads: int) -> None:
        use_threads(threads)
        folder = Path(model_folder(path))
        self.device, self.tokens = device, SentencePieces.of(folder)
        self.net = load_net(file_of(path)).eval().to(device)
        self._front = FrontEnd(folder)
        if len(self.tokens.pieces) != (outputs := self.net.ctc["ctc_lo"].out_features):
            raise WeightsError(
                f"{folder}: the weights have {outputs} tokens and the token file "
                f"{len(self.tokens.pieces)}; expected as many"
            )

    @torch.inference_mode()
    def read(
        self,
        windows: Sequence[Float32[np.ndarray, " _"]],
        asked: Sequence[int],
        layers: Sequence[int],
    ) -> list[list[Float32[Tensor, "_ dim"]]]:
        """Chosen states of each window, the four queries' places first.

        Args:
            windows: sound.
            asked: rows of the net's queries.
            layers: which states.
        """
        frames = [torch.from_numpy(self._front.frames(window)) for window in windows]
        found: dict[int, list[Tensor]] = {}
        for group in buckets([len(each) for each in frames], max_items=16, max_steps=2048):
            lengths = [len(frames[i]) for i in group]
            batch = torch.nn.utils.rnn.pad_sequence([frames[i] for i in group], batch_first=True)
            with arithmetic(self.device):
                states = self.net(batch.to(self.device), lengths, asked)
            for row, i in enumerate(group):
                size = QUERIES + lengths[row]
                found[i] = [states[layer][row, :size].float() for layer in layers]
        return [found[i] for i in range(len(windows))]


class SenseVoiceStates:
    """Wrapper of SenseVoice small as an encoder."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        self._model = SenseVoice(descriptor, weights["model"], device=device, threads=threads)
        self._descriptor = descriptor
        check_shape(descriptor, self._model.net.dim, self._model.net.depth)
        ids = self._model.tokens.ids_of
        self._emotions, self._events = (
            ids([TOKENS_OF[name] for name in names]) for names in (EMOTIONS, EVENTS)
        )

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """States of each clip; side columns: probabilities of emotions and events of the clip."""
        cuts = [windows_of(clip.waveforms[RATE_HZ], WINDOW) for clip in clips]
        layers = (*self._descriptor.layers, -1)
        windows = [each for cut in cuts for each in cut]
        states = iter(self._model.read(windows, ASKED, layers))
        return [
            self._encoded(clip, [next(states) for _ in cut])
            for clip, cut in zip(clips, cuts, strict=True)
        ]

    def _encoded(self, clip: Clip, parts: list[list[Tensor]]) -> Encoded:
        widths = self._descriptor.side
        if not parts:
            side = {name: np.zeros((1, width), np.float32) for name, width in widths.items()}
            return nothing(clip, self._descriptor.dim, side)
        kept = range(len(self._descriptor.layers))
        values = np.concatenate(
            [stacked([s[None, QUERIES:] for s in part], kept)[0] for part in parts]
        )
        start = starts_of(clip, [len(part[-1]) - QUERIES for part in parts])
        side = {name: np.tile(said, (len(values), 1)) for name, said in self._said(parts).items()}
        encoded = replace(steps(values, start, start + HOP_S), side=side)
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)

    @torch.inference_mode()
    def _said(self, parts: list[list[Tensor]]) -> dict[str, np.ndarray]:
        """The mean over windows, by their length, of what the queries' places say."""
        shares = torch.tensor([float(len(part[-1]) - QUERIES) for part in parts])
        heads = torch.stack([part[-1][:QUERIES] for part in parts])
        logits = self._model.net.logits(heads).cpu()
        found = {
            "emotion": logits[:, EMOTION, self._emotions].softmax(-1),
            "event": logits[:, EVENT, self._events].softmax(-1),
        }
        return {name: (shares @ each / shares.sum()).numpy() for name, each in found.items()}


def starts_of(clip: Clip, counts: Sequence[int]) -> Float[np.ndarray, " steps"]:
    """When the steps of a clip's windows begin, by how many each window has [s]."""
    starts = [number * WINDOW / RATE_HZ + np.arange(n) * HOP_S for number, n in enumerate(counts)]
    found: np.ndarray = clip.audio_start_s + np.concatenate(starts)
    return found


def scaling_of(file: Path, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of each band, out of Kaldi's text.

    Raises:
        WeightsError: it is not there or has others than `width` numbers.
    """
    try:
        blocks = re.findall(r"\[([^\]]*)\]", file.read_text(encoding="utf-8"))
        shift, scale = (
            np.array(block.split(), np.float64) for block in blocks if len(block.split()) == width
        )
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{file}: {error}; expected Kaldi's shift and scale, {width} numbers each"
        ) from error
    return shift, scale


def load_net(file: Path) -> SenseVoiceNet:
    """The net of a checkpoint.

    Raises:
        WeightsError: it is none of SenseVoice small.
    """
    states = {n: v.float() for n, v in tensors_of(file).items() if isinstance(v, Tensor)}
    try:
        net = SenseVoiceNet(states)
        net.load_state_dict(states, strict=True)
        if net.feature != FEATURE:
            raise ValueError(f"it reads {net.feature} numbers a step, expected {FEATURE}")
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{file} is no SenseVoice small: {' '.join(str(error).split())[:300]}; expected the checkpoint "
            "of FunAudioLLM/SenseVoiceSmall"
        ) from error
    return net

"""EmotiEffNet: an EfficientNet that was trained on faces, then on their emotions; one step a frame."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from cluster.errors import ConfigError, WeightsError
from encoders.batching import arithmetic, nothing, steps, use_threads
from encoders.checkpoints import file_of, tensors_of
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded, Frames
from encoders.video._efficientnet import CLASSIFIERS, EfficientNet
from encoders.video._face import FaceFinder, upright
from encoders.video._transformer import centre_square, face_finder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDE, WIDE_PX, PX = 1408, 260, 224
"""Width of the B2 and side of the pictures that it was trained on; that of the B0's."""

_BATCH = 16


class EmotiEffNet:
    """Wrapper of the EfficientNets of EmotiEffLib."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        use_threads(threads)
        policy = descriptor.frame_policy
        assert policy is not None
        self._policy, self._descriptor, self._device = policy, descriptor, device
        self._finder = face_finder(descriptor, weights, threads)
        self._net = load_net(descriptor, weights["model"]).eval().to(device)
        self._px = int(descriptor.options["px"]) or own_px(self._net)

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step a frame; side columns: probabilities of the emotions, and valence and arousal."""
        return [self._encode(clip, clip.frames[self._policy]) for clip in clips]

    def _encode(self, clip: Clip, frames: Frames) -> Encoded:
        count, pool = len(frames.pixels), str(self._descriptor.options["pool"])
        widths = self._descriptor.side
        side = {
            name: np.zeros((max(1, count), width), np.float32) for name, width in widths.items()
        }
        if not count:
            return nothing(clip, self._descriptor.dim, side)
        squares = [square_of(frame, self._finder, self._px) for frame in frames.pixels]
        seen = np.array([square is not None for square in squares])
        values = np.zeros((count, self._descriptor.width), np.float32)
        shown = [np.asarray(square) for square in squares if square is not None]
        said = [self._read(np.stack(shown[i : i + _BATCH])) for i in range(0, len(shown), _BATCH)]
        if said:
            values[seen] = np.concatenate([features for features, _ in said])
            for name, column in _columns(np.concatenate([each for _, each in said])).items():
                if name in side:
                    side[name][seen] = column
        ends = np.append(frames.times_s[1:], max(clip.duration_s, frames.times_s[-1]))
        found = replace(steps(values, frames.times_s, ends, valid=seen), side=side)
        return pooled(found, pool, clip.words)

    @torch.inference_mode()
    def _read(
        self, squares: UInt8[np.ndarray, "batch size size 3"]
    ) -> tuple[Float32[np.ndarray, "batch dim"], Float32[np.ndarray, "batch outputs"]]:
        mean, std = (torch.tensor(each, device=self._device)[:, None, None] for each in (MEAN, STD))
        pixels = torch.from_numpy(squares).to(self._device).movedim(-1, -3).float().div(255)
        with arithmetic(self._device):
            features, outputs = self._net((pixels - mean) / std)
        return features.float().cpu().numpy(), outputs.float().cpu().numpy()


def square_of(
    frame: UInt8[np.ndarray, "height width 3"], finder: FaceFinder | None, px: int
) -> Image.Image | None:
    """The upright face of a frame, or with no finder its centre; None: it shows no face."""
    picture = Image.fromarray(frame)
    if finder is None:
        return centre_square(picture, px)
    face = finder.find(frame)
    return None if face is None else upright(picture, face.centre, face.side, face.angle, px)


def _columns(outputs: Float32[np.ndarray, "batch outputs"]) -> dict[str, np.ndarray]:
    """Probabilities of eight emotions, then valence and arousal where there are ten outputs."""
    emotion = torch.from_numpy(outputs[:, :8]).softmax(1).numpy()
    return {"emotion": emotion, "valence": outputs[:, 8:9], "arousal": outputs[:, 9:10]}


def own_px(net: EfficientNet) -> int:
    """Side of the pictures that a net was trained on [px]."""
    return WIDE_PX if net.dim == WIDE else PX


def load_net(descriptor: Descriptor, path: Path) -> EfficientNet:
    """The net of a checkpoint, checked against the descriptor.

    Raises:
        WeightsError: it is none of EmotiEffLib.
        ConfigError: another width.
    """
    file = file_of(path)
    states = _named(tensors_of(file))
    try:
        net = EfficientNet(states)
        net.load_state_dict(states, strict=True)
        wanted = sum(descriptor.spec.side.values())
        if (outputs := net.classifier.out_features) != wanted:
            raise ValueError(f"it has {outputs} outputs, expected {wanted}")
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{file} is no {descriptor.name}: {' '.join(str(error).split())[:300]}; expected a model of "
            "EmotiEffLib: enet_b0_8_best_vgaf, enet_b0_8_best_afew or enet_b2_8 for emotieffnet, "
            "enet_b0_8_va_mtl for emotieffnet_va"
        ) from error
    if net.dim != descriptor.layer_dim:
        raise ConfigError(
            f"{descriptor.name}: the weights have width {net.dim}, expected {descriptor.layer_dim}; "
            f"type {descriptor.name}:weights=...,dim={net.dim}"
        )
    return net


def _named(states: Mapping[str, object]) -> dict[str, Tensor]:
    """Parameters by the net's names: the last layer may stand alone or in a list."""
    found = {name: value.float() for name, value in states.items() if isinstance(value, Tensor)}
    alone, listed = CLASSIFIERS
    return {
        alone + name.removeprefix(listed) if name.startswith(listed) else name: value
        for name, value in found.items()
        if not name.endswith("num_batches_tracked")
    }

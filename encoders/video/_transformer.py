"""Image transformers over sampled frames, and video transformers over runs of frames.

A frame is brought to the model's square: shorter side resized, centre cut out, mean and variance as the
model's preprocessor says. With `crop=face` the square is the upright face, and a frame without one says
nothing. Of an image transformer the class token is kept, of a video transformer the class token or, where
there is none, the mean over the patches.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image

from cluster.errors import ConfigError
from encoders.batching import (
    arithmetic,
    check_shape,
    model_folder,
    nothing,
    quiet,
    stacked,
    states_of,
    steps,
    use_threads,
)
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded, Frames
from encoders.video._face import FaceFinder, upright

_FACE_MARGIN = 1.3
"""Side of the face crop over the side of the detector's box."""

_BATCH = 16


class _Pictures:
    """From decoded frames to what a model of the hub takes."""

    def __init__(self, folder: Path, size: int, finder: FaceFinder | None) -> None:
        path = folder / "preprocessor_config.json"
        facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self._size = size
        self._finder = finder
        self._mean = np.array(facts.get("image_mean", [0.5] * 3), np.float32)
        self._std = np.array(facts.get("image_std", [0.5] * 3), np.float32)

    def of(self, frames: Frames) -> tuple[Float32[np.ndarray, "frames 3 size size"], np.ndarray]:
        """Scaled pictures, and which of them say something."""
        pictures = [self._square(frame) for frame in frames.pixels]
        valid = np.array([picture is not None for picture in pictures], bool)
        blank = np.zeros((self._size, self._size, 3), np.float32)
        scaled = np.stack([blank if p is None else self._scaled(p) for p in pictures])
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)), valid

    def _scaled(self, picture: Image.Image) -> np.ndarray:
        pixels = np.asarray(picture, np.float32) / 255
        scaled: np.ndarray = (pixels - self._mean) / self._std
        return scaled

    def _square(self, frame: UInt8[np.ndarray, "height width 3"]) -> Image.Image | None:
        if self._finder is None:
            return centre_square(Image.fromarray(frame), self._size)
        face = self._finder.find(frame)
        if face is None:
            return None
        side = face.side * _FACE_MARGIN
        return upright(Image.fromarray(frame), face.centre, side, face.angle, self._size)


class FrameTransformer:
    """Wrapper of an image transformer: one step a frame."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        self._model = load_vision(descriptor, weights["model"], device, threads)
        self._descriptor, self._device = descriptor, device
        size = int(self._model.config.image_size)
        finder = face_finder(descriptor, weights, threads)
        self._pictures = _Pictures(Path(model_folder(weights["model"])), size, finder)
        policy = descriptor.frame_policy
        assert policy is not None
        self._policy = policy

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """Class tokens of the frames of each clip; no frames give one step that is not valid."""
        return [self._encode(clip, clip.frames[self._policy]) for clip in clips]

    def _encode(self, clip: Clip, frames: Frames) -> Encoded:
        if len(frames.pixels) == 0:
            return nothing(clip, self._descriptor.dim)
        pictures, valid = self._pictures.of(frames)
        values = np.zeros((len(pictures), self._descriptor.width), np.float32)
        if valid.any():
            seen = pictures[valid]
            parts = [self._states(seen[i : i + _BATCH]) for i in range(0, len(seen), _BATCH)]
            values[valid] = np.concatenate(parts)
        ends = np.append(frames.times_s[1:], max(clip.duration_s, frames.times_s[-1]))
        encoded = steps(values, frames.times_s, ends, valid=valid)
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)

    @torch.inference_mode()
    def _states(self, pictures: Float32[np.ndarray, "batch 3 size size"]) -> np.ndarray:
        with arithmetic(self._device):
            result = self._model(
                torch.from_numpy(pictures).to(self._device), output_hidden_states=True
            )
        states = states_of(result)
        return stacked([state[:, :1] for state in states], self._descriptor.layers)[:, 0]


class ClipTransformer:
    """Wrapper of a video transformer: one step for every run of frames."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        self._model = load_vision(descriptor, weights["model"], device, threads)
        self._descriptor, self._device = descriptor, device
        config = self._model.config
        finder = face_finder(descriptor, weights, threads)
        folder = Path(model_folder(weights["model"]))
        self._pictures = _Pictures(folder, int(config.image_size), finder)
        policy = descriptor.frame_policy
        assert policy is not None
        if policy.count != config.num_frames or policy.kind == "fps":
            raise ConfigError(
                f"{descriptor.name}: the model reads {config.num_frames} frames at once; type "
                f"frames={config.num_frames} and policy=even or policy=windows"
            )
        self._policy = policy
        self._has_class_token = config.model_type != "videomae"

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step a run of frames; no frames give one step that is not valid."""
        return [self._encode(clip, clip.frames[self._policy]) for clip in clips]

    def _encode(self, clip: Clip, frames: Frames) -> Encoded:
        if len(frames.pixels) == 0:
            return nothing(clip, self._descriptor.dim)
        pictures, valid = self._pictures.of(frames)
        runs = list(runs_of(len(pictures), self._policy.count))
        values = np.concatenate([self._states(pictures[run][None]) for run in runs])
        start = frames.times_s[[run[0] for run in runs]]
        ends = np.append(start[1:], max(clip.duration_s, start[-1]))
        seen = np.array([valid[run].any() for run in runs])
        values[~seen] = 0
        encoded = steps(values, start, ends, valid=seen)
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)

    @torch.inference_mode()
    def _states(self, pictures: Float32[np.ndarray, "batch time 3 size size"]) -> np.ndarray:
        with arithmetic(self._device):
            result = self._model(
                torch.from_numpy(pictures).to(self._device), output_hidden_states=True
            )
        states = states_of(result)
        if self._has_class_token:
            states = [state[:, :1] for state in states]
        else:
            states = [state.mean(1, keepdim=True) for state in states]
        return stacked(states, self._descriptor.layers)[:, 0]


def runs_of(num_frames: int, count: int) -> Iterator[list[int]]:
    """Successive runs of `count` frames; the last one is filled up by its last frame.

    >>> list(runs_of(5, 4))
    [[0, 1, 2, 3], [4, 4, 4, 4]]
    """
    for first in range(0, num_frames, count):
        yield [min(first + i, num_frames - 1) for i in range(count)]


def centre_square(picture: Image.Image, size: int) -> Image.Image:
    """Shorter side resized to `size`, the centre cut out."""
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return resized.crop((left, top, left + size, top + size))


def face_finder(
    descriptor: Descriptor, weights: Mapping[str, Path], threads: int
) -> FaceFinder | None:
    """The finder where the option `crop` asks for faces.

    Raises:
        ConfigError: an unknown crop.
    """
    crop = descriptor.options["crop"]
    if crop not in ("none", "face"):
        raise ConfigError(f"{descriptor.name}: crop is none or face, not {crop!r}")
    if crop == "none":
        return None
    return FaceFinder(weights["detector"], weights["mesh"], threads=threads)


def load_vision(descriptor: Descriptor, path: Path, device: str, threads: int) -> Any:
    """The vision tower of a folder, checked against the descriptor."""
    from transformers import AutoConfig, AutoModel, CLIPVisionModel

    use_threads(threads)
    quiet()
    folder = model_folder(path)
    kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    loader = CLIPVisionModel if kind.startswith("clip") else AutoModel
    model = loader.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    check_shape(descriptor, model.config.hidden_size, model.config.num_hidden_layers)
    return model.eval().to(device)

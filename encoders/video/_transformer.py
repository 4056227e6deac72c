"""Image transformers over sampled frames, and video transformers over runs of frames.

A frame is brought to the model's square: shorter side resized, centre cut out, mean and variance as the
model's preprocessor says. With `crop=face` the square is the upright face, and a frame without one says
nothing. `_towers` says which token of the model is kept.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Shaped, UInt8
from PIL import Image

from cluster.errors import ConfigError
from encoders.batching import (
    arithmetic,
    model_folder,
    nothing,
    stacked,
    steps,
)
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded, FramePolicy, Frames
from encoders.video._face import FaceFinder, upright
from encoders.video._towers import Tower, load_tower

_FACE_MARGIN = 1.3
"""Side of the face crop over the side of the detector's box."""

_BATCH = 16

PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
"""Files that say mean and variance of a picture's colours."""


class Pictures:
    """From decoded frames to what a model of the hub takes."""

    def __init__(self, folder: Path, size: int, finder: FaceFinder | None) -> None:
        self._size, self._finder = size, finder
        self._colours = colours_of(folder)

    def of(self, frames: Frames) -> tuple[UInt8[np.ndarray, "frames size size 3"], np.ndarray]:
        """Squares, and which of them say something."""
        pictures = [self._square(frame) for frame in frames.pixels]
        valid = np.array([picture is not None for picture in pictures], bool)
        blank = np.zeros((self._size, self._size, 3), np.uint8)
        return np.stack([blank if p is None else np.asarray(p) for p in pictures]), valid

    def scaled(
        self,
        pictures: UInt8[np.ndarray, "*batch size size 3"],
        valid: Bool[np.ndarray, "*batch"],
        device: str,
    ) -> Float32[torch.Tensor, "*batch 3 size size"]:
        """As the model takes them, zeros where nothing is said.

        They travel to the device as bytes: scaling on one core would take longer than a GPU takes to encode.
        """
        pixels, said = (torch.from_numpy(each).to(device) for each in (pictures, valid))
        return scaled(pixels, said, self._colours.to(device))

    def _square(self, frame: UInt8[np.ndarray, "height width 3"]) -> Image.Image | None:
        if self._finder is None:
            return centre_square(Image.fromarray(frame), self._size)
        face = self._finder.find(frame)
        if face is None:
            return None
        side = face.side * _FACE_MARGIN
        return upright(Image.fromarray(frame), face.centre, side, face.angle, self._size)


def colours_of(folder: Path) -> Float32[torch.Tensor, "2 3 1 1"]:
    """Mean and spread of the colours that a model was trained on, as its preprocessor says."""
    there = (folder / name for name in PREPROCESSORS if (folder / name).exists())
    facts: dict[str, Any] = next((json.loads(path.read_text()) for path in there), {})
    both = [facts.get(f"image_{name}", [0.5] * 3) for name in ("mean", "std")]
    return torch.tensor(both, dtype=torch.float32)[..., None, None]


def scaled(
    pixels: Shaped[torch.Tensor, "*batch size size 3"],
    valid: Bool[torch.Tensor, "*batch"],
    colours: Float32[torch.Tensor, "2 3 1 1"],
) -> Float32[torch.Tensor, "*batch 3 size size"]:
    """Pictures as a model takes them, zeros where nothing is said."""
    mean, spread = colours
    found = pixels.movedim(-1, -3).to(
        torch.float32, memory_format=torch.contiguous_format, copy=True
    )
    found = found.div_(255).sub_(mean).div_(spread)
    found[~valid] = 0.0
    return found


class FrameTransformer:
    """Wrapper of an image transformer: one step a frame."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
        tower: Tower | None = None,
    ) -> None:
        self._tower = tower or load_tower(descriptor, weights["model"], device, threads)
        self._descriptor, self._device = descriptor, device
        finder = face_finder(descriptor, weights, threads)
        folder = Path(model_folder(weights["model"]))
        self._pictures = Pictures(folder, self._tower.size, finder)
        policy = descriptor.frame_policy
        assert policy is not None
        self._policy = policy

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step a frame of each clip; no frames give one step that is not valid."""
        return [self._encode(clip, clip.frames[self._policy]) for clip in clips]

    def _encode(self, clip: Clip, frames: Frames) -> Encoded:
        if len(frames.pixels) == 0:
            return nothing(clip, self._descriptor.dim)
        pictures, valid = self._pictures.of(frames)
        values = np.zeros((len(pictures), self._descriptor.width), np.float32)
        if valid.any():
            shown = np.flatnonzero(valid)
            batches = (shown[i : i + _BATCH] for i in range(0, len(shown), _BATCH))
            parts = [self._states(pictures[batch], valid[batch]) for batch in batches]
            values[valid] = np.concatenate(parts)
        ends = np.append(frames.times_s[1:], max(clip.duration_s, frames.times_s[-1]))
        encoded = steps(values, frames.times_s, ends, valid=valid)
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)

    def _states(self, pictures: np.ndarray, valid: np.ndarray) -> np.ndarray:
        given = self._pictures.scaled(pictures, valid, self._device)
        return states_of_pictures(self._tower, given, self._descriptor, self._device)


class ClipTransformer:
    """Wrapper of a video transformer: one step for every run of frames."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
        tower: Tower | None = None,
    ) -> None:
        self._tower = tower or load_tower(descriptor, weights["model"], device, threads)
        self._descriptor, self._device = descriptor, device
        finder = face_finder(descriptor, weights, threads)
        folder = Path(model_folder(weights["model"]))
        self._pictures = Pictures(folder, self._tower.size, finder)
        policy = descriptor.frame_policy
        assert policy is not None
        check_runs(self._tower, descriptor.name, policy)
        self._policy = policy

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step a run of frames; no frames give one step that is not valid."""
        return [self._encode(clip, clip.frames[self._policy]) for clip in clips]

    def _encode(self, clip: Clip, frames: Frames) -> Encoded:
        if len(frames.pixels) == 0:
            return nothing(clip, self._descriptor.dim)
        pictures, valid = self._pictures.of(frames)
        runs = list(runs_of(len(pictures), self._policy.count))
        parts = [self._states(pictures[run][None], valid[run][None]) for run in runs]
        values = np.concatenate(parts)
        start = frames.times_s[[run[0] for run in runs]]
        ends = np.append(start[1:], max(clip.duration_s, start[-1]))
        seen = np.array([valid[run].any() for run in runs])
        values[~seen] = 0
        encoded = steps(values, start, ends, valid=seen)
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)

    def _states(self, pictures: np.ndarray, valid: np.ndarray) -> np.ndarray:
        given = self._pictures.scaled(pictures, valid, self._device)
        return states_of_pictures(self._tower, given, self._descriptor, self._device)


def check_runs(tower: Tower, name: str, policy: FramePolicy) -> None:
    """Refuse a policy whose runs of frames a video transformer does not read.

    Raises:
        ConfigError: with what to type.
    """
    if not tower.reads(policy.count) or policy.kind == "fps":
        raise ConfigError(
            f"{name}: the model reads {tower.frames} frames at once; type "
            f"frames={tower.frames} and policy=even or policy=windows"
        )


@torch.inference_mode()
def states_of_pictures(
    tower: Tower,
    pictures: Float32[torch.Tensor, "batch *time 3 size size"],
    descriptor: Descriptor,
    device: str,
) -> Float32[np.ndarray, "batch width"]:
    """The chosen layers of each picture, or of each run of pictures, side by side."""
    with arithmetic(device):
        states = tower.states(pictures)
    return stacked([state[:, None] for state in states], descriptor.layers)[:, 0]


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
    """The finder where the option `crop` asks for faces."""
    if descriptor.options["crop"] == "none":
        return None
    return FaceFinder(weights["detector"], weights["mesh"], threads=threads)

"""The vision tower of any model folder: which class loads it, what it takes, and which token speaks for it.

Of a model with a class token that token is kept, of one without (SigLIP, VideoMAE, V-JEPA 2) the mean over
the patches. SigLIP 2 of variable resolution (NaFlex) takes patches in place of pixels; the square that every
model gets here is cut into them.
"""

import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from cluster.errors import ConfigError
from encoders.batching import check_shape, model_folder, quiet, states_of, use_threads
from encoders.spec import Descriptor

TOWERS = {
    "clip": "CLIPVisionModel",
    "metaclip_2": "MetaClip2VisionModel",
    "siglip": "SiglipVisionModel",
    "siglip2": "Siglip2VisionModel",
}
"""Models of pictures and sentences -> the class of the half that reads pictures."""

CLASS_TOKENS = ("cls_token", "class_embedding")
"""Last part of the name of the parameter that is the class token."""


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A model that reads pictures, or runs of pictures."""

    model: Any
    size: int
    """Side of the square that it reads [px]."""

    frames: int | None
    """Pictures that it was trained to read at once; None: one."""

    step: int
    """Number of pictures that it joins into one step of its own; 0: it reads `frames` and no other number."""

    takes: str
    """Name of the argument for the pictures."""

    has_class_token: bool
    has_predictor: bool = False
    """Whether it has a second half, which guesses hidden patches and is left out."""

    cut: int | None = None
    """Side of the patches that it takes in place of pictures [px]."""

    def reads(self, count: int) -> bool:
        """Whether it reads so many pictures at once."""
        return count == self.frames if not self.step else count > 0 and count % self.step == 0

    def states(self, pictures: Float32[Tensor, "batch *time 3 size size"]) -> list[Tensor]:
        """Embeddings and the output of every block, each [batch dim]."""
        given: dict[str, Any] = (
            {self.takes: pictures} if self.cut is None else patches(pictures, self.cut)
        )
        if self.has_predictor:
            given = {**given, "skip_predictor": True}
        result = self.model(**given, output_hidden_states=True)
        hidden = states_of(result)
        return [state[:, 0] if self.has_class_token else state.mean(1) for state in hidden]


def patches(pictures: Float32[Tensor, "batch 3 size size"], side: int) -> dict[str, Tensor]:
    """Pictures cut into patches, row by row, colours last, as NaFlex takes them."""
    batch, across = len(pictures), pictures.shape[-1] // side
    cells = pictures.reshape(batch, 3, across, side, across, side)
    values = cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, across * across, -1)
    return {
        "pixel_values": values,
        "pixel_attention_mask": torch.ones(values.shape[:2], dtype=torch.long).to(values.device),
        "spatial_shapes": torch.full((batch, 2), across).to(values.device),
    }


def load_tower(descriptor: Descriptor, path: Path, device: str, threads: int) -> Tower:
    """The vision tower of a folder, checked against the descriptor.

    Raises:
        ConfigError: another width or depth, or a size that it does not read.
    """
    import transformers

    use_threads(threads)
    quiet()
    folder = model_folder(path)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    kind = config.model_type.removesuffix("_vision_model")
    loader = getattr(transformers, TOWERS.get(kind, "AutoModel"))
    model = loader.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    check_shape(descriptor, model.config.hidden_size, model.config.num_hidden_layers)
    size = int(descriptor.options.get("px", 0))
    tower = _tower(model.eval().to(device), kind, size)
    if size:
        _try(tower, descriptor, device)
    return tower


def _tower(model: Any, kind: str, size: int) -> Tower:
    config = model.config
    frames = getattr(config, "num_frames", getattr(config, "frames_per_clip", None))
    takes = set(inspect.signature(model.forward).parameters)
    names = [name.rpartition(".")[2] for name, _ in model.named_parameters()]
    return Tower(
        model=model,
        size=size or own_size(config),
        frames=frames,
        # Positions of V-JEPA 2 are rotary: it reads any number of pictures that its tubelets divide.
        step=config.tubelet_size if kind == "vjepa2" else 0,
        takes=next(name for name in ("pixel_values_videos", "pixel_values") if name in takes),
        has_class_token=any(name in names for name in CLASS_TOKENS),
        has_predictor="skip_predictor" in takes,
        cut=config.patch_size if kind == "siglip2" else None,
    )


def own_size(config: Any) -> int:
    """Side of the square that a model was made for [px].

    Raises:
        ConfigError: its config says none, or a rectangle.
    """
    size = getattr(config, "image_size", getattr(config, "crop_size", None))
    if size is None and hasattr(config, "num_patches"):
        size = math.isqrt(config.num_patches) * config.patch_size
    sides = {size} if isinstance(size, int) else set(size or ())
    if len(sides) != 1:
        raise ConfigError(f"{config.model_type}: expected one side of its pictures, came {size}")
    return int(sides.pop())


def _try(tower: Tower, descriptor: Descriptor, device: str) -> None:
    """Refuse a size that is not the model's own and that its positions do not stretch to."""
    count = descriptor.frame_policy.count if tower.frames and descriptor.frame_policy else None
    shape = (1, *([count] if count else []), 3, tower.size, tower.size)
    try:
        with torch.inference_mode():
            tower.states(torch.zeros(shape, device=device))
    except (RuntimeError, ValueError) as error:
        own = own_size(tower.model.config)
        raise ConfigError(
            f"{descriptor.name}: the model does not read pictures of {tower.size} px ({error}); "
            f"type px={own}, or leave px out"
        ) from error

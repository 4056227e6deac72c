"""The wrapper that a vision model of the hub needs: of pictures, or of runs of pictures."""

from collections.abc import Mapping
from pathlib import Path

from encoders.spec import Descriptor
from encoders.video._towers import load_tower
from encoders.video._transformer import ClipTransformer, FrameTransformer


def hub_video(
    descriptor: Descriptor, weights: Mapping[str, Path], *, device: str = "cpu", threads: int = 1
) -> FrameTransformer | ClipTransformer:
    """What the model's config says it reads."""
    tower = load_tower(descriptor, weights["model"], device, threads)
    wrapper = FrameTransformer if tower.frames is None else ClipTransformer
    return wrapper(descriptor, weights, device=device, threads=threads, tower=tower)

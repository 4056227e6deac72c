"""Tensors out of the files in which models are published, of which nothing else is made and nothing run.

A torch file may name any class and any function. Here an empty object stands for each of them, so that the
file of a whole model gives its parameters by name without the library that it was saved with.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cluster.errors import WeightsError

FILES = ("model.safetensors", "model.pt")
"""Names of a checkpoint in its folder."""

DEEPEST = 24
"""Modules inside modules of a model that is believed."""


def file_of(path: Path) -> Path:
    """The checkpoint itself, given it or its folder.

    Raises:
        WeightsError: the folder holds none.
    """
    if path.is_file():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise WeightsError(f"{path} holds no checkpoint; expected {' or '.join(FILES)}")


def tensors_of(file: Path) -> Mapping[str, Any]:
    """The parameters of a file by name: safetensors, a dict in a torch file, or a whole model in one.

    Raises:
        WeightsError: it cannot be read so.
    """
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(file))
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
        with torch.serialization.safe_globals([(_Kept, name) for name in names]):
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise WeightsError(
            f"{file} cannot be read as tensors: {str(error).splitlines()[0]}; save its parameters as "
            "model.safetensors"
        ) from error
    if isinstance(loaded, _Kept):
        return _parameters(loaded)
    for key in ("state_dict", "model"):
        loaded = loaded.get(key, loaded) if isinstance(loaded, dict) else {}
    return loaded if isinstance(loaded, dict) else {}


class _Kept:
    """Stands for every object of a file that is no tensor; of a module it keeps what is inside it."""

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.inside = state if isinstance(state, dict) else {}


def _parameters(module: object, before: str = "", depth: int = 0) -> dict[str, Any]:
    """Parameters and buffers of a module that was not made, by the names that it would give them."""
    inside = getattr(module, "inside", {})
    found: dict[str, Any] = {}
    for kind in ("_parameters", "_buffers"):
        own = inside.get(kind)
        for name, value in (own if isinstance(own, dict) else {}).items():
            if isinstance(value, Tensor):
                found[f"{before}{name}"] = value.detach()
    children = inside.get("_modules")
    if depth < DEEPEST:
        for name, child in (children if isinstance(children, dict) else {}).items():
            found |= _parameters(child, f"{before}{name}.", depth + 1)
    return found

"""Helpers of all neural encoders: batches of like length, layers, arithmetic per device."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Shaped, UInt8
from torch import Tensor

from cluster.errors import ConfigError
from encoders.spec import Clip, Descriptor, Encoded


def buckets(
    lengths: Sequence[int], *, max_items: int = 32, max_steps: int = 8192, slack: float = 1.25
) -> list[list[int]]:
    """Indices grouped into batches of like length, shortest first; every index appears once.

    Args:
        lengths: steps of each item.
        max_items: items of a batch.
        max_steps: items times the longest length of a batch; one item may exceed it.
        slack: longest over shortest length of a batch; 1 gives batches of equal length.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        last = groups[-1] if groups else None
        if (
            last is not None
            and len(last) < max_items
            and lengths[index] * (len(last) + 1) <= max_steps
            and lengths[index] <= slack * max(1, lengths[last[0]])
        ):
            last.append(index)
        else:
            groups.append([index])
    return groups


def padded(
    items: Sequence[Shaped[Tensor, " _"]], length: int | None = None
) -> Shaped[Tensor, "batch longest"]:
    """Stack vectors of different length, zeros behind."""
    longest = max(len(item) for item in items) if length is None else length
    out = torch.zeros(len(items), longest, dtype=items[0].dtype)
    for row, item in zip(out, items, strict=True):
        row[: len(item)] = item
    return out


def key_bias(
    lengths: Sequence[int], longest: int, device: str, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch 1 1 longest"]:
    """Added to attention scores: 0 where an item has a step, the lowest number where it is padding."""
    mask = torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]
    bias = torch.zeros(len(lengths), 1, 1, longest, dtype=dtype)
    return bias.masked_fill_(mask[:, None, None], torch.finfo(dtype).min).to(device)


def stacked(
    states: Sequence[Float[Tensor, "batch time _"]], layers: Sequence[int]
) -> Float32[np.ndarray, "batch time width"]:
    """The chosen hidden states side by side, layer-major, on the CPU in float32."""
    chosen = torch.cat([states[layer].float() for layer in layers], dim=-1)
    return chosen.cpu().numpy()


def states_of(result: Any) -> list[Tensor]:
    """Embeddings and blocks of a `transformers` output; the last as the model ends, norm included."""
    return [*result.hidden_states[:-1], result.last_hidden_state]


_whole = contextvars.ContextVar("whole", default=False)
"""Whether products are in float32 on every device."""


def arithmetic(device: str) -> contextlib.AbstractContextManager[Any]:
    """float32 on a CPU; on a GPU products in float16, whose error is that of the stored type."""
    if device.startswith("cuda") and not _whole.get():
        return torch.autocast("cuda", dtype=torch.float16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def in_single_precision() -> Iterator[None]:
    """`arithmetic` is that of a CPU for as long as this lasts, in this thread."""
    before = _whole.set(True)
    try:
        yield
    finally:
        _whole.reset(before)


def within_range(
    encode: Callable[[Sequence[Clip]], Sequence[Encoded]],
) -> Callable[[Sequence[Clip]], list[Encoded]]:
    """The same on a GPU for models whose products leave the range of float16 (65504).

    Those that were trained in bfloat16 do so now and then; a clip of which something is not finite is
    encoded once more in single precision.
    """

    def encoded(clips: Sequence[Clip]) -> list[Encoded]:
        results = list(encode(clips))
        beyond = [i for i, each in enumerate(results) if not np.isfinite(each.values).all()]
        if beyond:
            with in_single_precision():
                again = encode([clips[i] for i in beyond])
            for i, each in zip(beyond, again, strict=True):
                results[i] = each
        return results

    return encoded


def use_threads(threads: int) -> None:
    """Set the threads of one wrapper's process."""
    torch.set_num_threads(threads)


def quiet() -> None:
    """No bar for each model that is loaded; a job has its own progress line."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def model_folder(path: Path) -> str:
    """Folder of a model of which `path` is one file, or the folder itself."""
    return str(path.parent if path.is_file() else path)


def check_shape(descriptor: Descriptor, dim: int, num_blocks: int) -> None:
    """Refuse weights of another size than the descriptor says.

    Raises:
        ConfigError: width or number of layers differ.
    """
    if (dim, num_blocks + 1) != (descriptor.layer_dim, descriptor.num_layers):
        raise ConfigError(
            f"{descriptor.name}: the weights have width {dim} and {num_blocks} blocks, expected "
            f"{descriptor.layer_dim} and {descriptor.num_layers - 1}; type "
            f"{descriptor.name}:weights=...,dim={dim},depth={num_blocks}"
        )


def nothing(clip: Clip, width: int, side: dict[str, np.ndarray] | None = None) -> Encoded:
    """One step over the whole clip that is not valid: wordless text, no samples, no frames."""
    return Encoded(
        values=np.zeros((1, width), np.float32),
        step_start_s=np.zeros(1),
        step_end_s=np.array([clip.duration_s]),
        valid=np.zeros(1, bool),
        side=side or {},
    )


def steps(
    values: Float32[np.ndarray, "steps dim"] | UInt8[np.ndarray, "steps dim"],
    start_s: Float[np.ndarray, " steps"],
    end_s: Float[np.ndarray, " steps"],
    *,
    valid: Bool[np.ndarray, " steps"] | None = None,
    partial: str | None = None,
) -> Encoded:
    """Steps that are all valid unless `valid` is given."""
    return Encoded(
        values=values,
        step_start_s=start_s,
        step_end_s=end_s,
        valid=np.ones(len(values), bool) if valid is None else valid,
        partial=partial,
    )

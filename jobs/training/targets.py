"""Task columns of the manifest as targets of a net."""

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster.errors import ConfigError
from fusion.tasks import Task


def encode_targets(column: pa.ChunkedArray, task: Task) -> tuple[Tensor, Tensor]:
    """A task column as (targets, known).

    Raises:
        ConfigError: a class that the task does not have, or a list of another length.
    """
    values = column.to_pylist()
    if task.kind == "regression":
        numbers = torch.tensor([float("nan") if v is None else float(v) for v in values])
        known = ~numbers.isnan()
        return torch.where(known, numbers, 0.0), known
    if task.kind == "classification":
        code = {name: index for index, name in enumerate(task.classes)}
        strange = {str(v) for v in values if v is not None and v not in code}
        if strange:
            raise ConfigError(f"classes {sorted(strange)} are none of {list(task.classes)}")
        known = torch.tensor([v is not None for v in values], dtype=torch.bool)
        return torch.tensor([0 if v is None else code[v] for v in values]), known
    width = len(task.classes)
    if any(v is not None and len(v) != width for v in values):
        raise ConfigError(f"a multi-label target has not {width} numbers: {list(task.classes)}")
    empty = [None] * width
    rows = [[float("nan") if x is None else float(x) for x in (v or empty)] for v in values]
    labels = torch.tensor(rows).reshape(len(values), width)
    return torch.where(labels.isnan(), 0.0, labels), ~labels.isnan()


def check_finite(name: str, target: Tensor, known: Tensor, clip_id: np.ndarray) -> None:
    """Refuse labels that no loss can be computed from.

    Raises:
        ConfigError: with their number and the first clip.
    """
    wrong = (known & ~target.isfinite()).reshape(len(clip_id), -1).any(1).numpy()
    if wrong.any():
        raise ConfigError(
            f"task {name!r}: the labels of {int(wrong.sum())} clips are not finite (first: clip "
            f"{clip_id[wrong][0]}); correct the label table and type: affuse prepare"
        )


LOST = 1e-3
"""Share of a target's standard deviation that rounding it to float32 may take."""


def check_exact(name: str, column: pa.ChunkedArray, target: Tensor, known: Tensor) -> None:
    """Refuse values that lie so far from zero that float32, in which nets compute, takes them for alike.

    Args:
        name: of the task.
        column: of the manifest.
        target: the same as `encode_targets` gives it.
        known: which of them are.

    Raises:
        ConfigError: with a constant to subtract.
    """
    exact = np.array(column.filter(pa.array(known.numpy())).to_pylist(), np.float64)
    if len(exact) < 2 or not np.isfinite(exact).all() or not np.ptp(exact):
        return
    off = np.abs(exact - target[known].numpy().astype(np.float64)).max()
    if off > LOST * exact.std():
        raise ConfigError(
            f"task {name!r}: its values lie from {exact.min():.10g} to {exact.max():.10g}, and float32, in "
            f"which nets compute, moves them by up to {off:.2g}; subtract a constant such as "
            f"{exact.mean():.3g} in the label table and type: affuse prepare"
        )

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

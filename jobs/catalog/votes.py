"""What raters chose of the clips of a dataset."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from fusion.metrics.raters import Votes
from fusion.tasks import Task
from jobs.catalog.manifest import read_dataset, read_manifest


def votes_on(root: str, clip_id: np.ndarray, name: str, task: Task) -> Votes | None:
    """The votes on some clips in their order; None where the dataset has none of the task."""
    if task.kind != "classification" or name not in read_dataset(root).votes:
        return None
    table = read_manifest(root, ["clip_id", "votes"])
    place = pc.index_in(pa.array(clip_id, pa.int64()), table["clip_id"].combine_chunks())
    lists = pc.struct_field(table["votes"].combine_chunks(), name).take(place)
    shares = pc.list_flatten(lists)
    numbers = pc.list_flatten(shares).to_numpy(zero_copy_only=False)
    return Votes(
        row=torch.tensor(pc.list_parent_indices(lists).to_numpy(), dtype=torch.int64),
        share=torch.tensor(numbers, dtype=torch.float64).reshape(-1, len(task.classes)),
        num_rows=len(clip_id),
    )


def distributions(root: str, clip_id: np.ndarray, tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """Task -> distribution of the choices, float32 [clip class], of the tasks that have any."""
    found = {name: votes_on(root, clip_id, name, task) for name, task in tasks.items()}
    return {name: v.distribution.float() for name, v in found.items() if v is not None}

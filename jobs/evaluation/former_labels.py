"""Whether clips were given other labels since runs were trained: predictions keep those of their training."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from fusion.tasks import Task
from jobs.catalog.manifest import read_manifest
from jobs.training.targets import encode_targets


def warn_of_former_labels(
    root: str, name: str, task: Task, clip_id: np.ndarray, target: Tensor
) -> int:
    """Say how many clips have another label in the dataset by now; returns their number.

    Args:
        root: of the dataset.
        name: of the task.
        task: what is predicted.
        clip_id: of the judged rows, each once.
        target: of these rows, as their runs kept it: [row] or [row label].
    """
    table = read_manifest(root, ["clip_id", name])
    table = table.filter(pc.is_in(table["clip_id"], pa.array(clip_id)))
    labels, known = encode_targets(table[name], task)
    now = torch.where(known, labels.float(), torch.nan).reshape(len(table), -1).numpy()
    _, kept, there = np.intersect1d(clip_id, table["clip_id"].to_numpy(), return_indices=True)
    then = target.float().reshape(len(clip_id), -1).numpy()[kept]
    same = (then == now[there]) | (np.isnan(then) & np.isnan(now[there]))
    count = int((~same.all(1)).sum())
    if count:
        print(
            f"warning: {count} of {len(clip_id)} clips have another {name} in the dataset than when what is "
            "judged was trained, and are judged by the former; type affuse train with another --run to train "
            "on those that are there now"
        )
    return count

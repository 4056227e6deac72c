"""What a large model says of all clips of a dataset, for a bundle that it is a member of.

It is asked as it was when the bundle was fused, as the bundle notes; every answer is kept under the root, so
that nobody is asked twice. Where the server does not answer, the clips that are left are ones that this
member does not answer: one line says so, and the same command asks for them again.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from cluster import storage
from cluster.console import readable
from cluster.errors import ServerError
from cluster.settings import from_mapping
from fusion.late.members import from_mean_space, to_mean_space
from fusion.tasks import Task
from jobs.asking.all_clips import answers_of
from jobs.asking.config import AskConfig
from jobs.asking.question import questions_of, scores_of
from jobs.catalog.manifest import read_manifest


def publish_told(
    root: str, server: str, way: Mapping[str, Any], name: str, task: Task, uri: str
) -> str:
    """Ask about every clip that has something to show, and write what was said.

    Args:
        root: of the dataset.
        server: base of its interface.
        way: how the model was asked when the bundle was fused.
        name: of the task.
        task: the task.
        uri: table to write: clip_id, and the scores of the task.

    Returns:
        Hash of the table: scores that were made with another one are made again.
    """
    config = from_mapping(
        AskConfig, {**way, "root": root, "server": server, "task": name, "max_failed_share": 1.0}
    )
    clips = np.sort(read_manifest(root, ["clip_id"])["clip_id"].to_numpy())
    said: dict[int, list[np.ndarray]] = {}
    try:
        answers_of(config, questions_of(name, task, config.question), clips, said, with_test=True)
    except ServerError as error:
        print(readable(f"{config.model}: {error}; the other clips are scored without it"))
    ids = np.array(sorted(said), np.int64)
    scores = np.array([scores_of(said[clip], task) for clip in ids.tolist()], np.float64)
    scores = scores.reshape(len(ids), task.outputs)
    same = from_mean_space(to_mean_space(scores, task.kind), task.kind)
    table = pa.table({"clip_id": ids, "scores": pa.array(same.tolist(), pa.list_(pa.float64()))})
    storage.publish_table(table, uri)
    print(f"{config.model}: {len(ids)} of {len(clips)} clips answered")
    return hashlib.sha256(ids.tobytes() + same.tobytes()).hexdigest()[:12]

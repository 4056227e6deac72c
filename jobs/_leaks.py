"""Do the features know the labels of the training split? Asked by `evaluate`, which may open the other one.

Published features and fine-tuned encoders may have been fitted to the labels of train. Whatever is then
chosen inside train looks wonderful and is worthless; the linear probe of `fusion.probe` shows it.
"""

from collections.abc import Sequence

import numpy as np
import torch

from fusion.batch import Task
from fusion.probe import LeakReport, Split, leak_probe
from fusion.statistics import Groups
from jobs._feeding import Request, load
from jobs._feeds import Store

FEWEST_GROUPS = 10
"""With fewer people in a split no gap is told from chance."""


def leak_reports(root: str, inputs: Sequence[str], name: str, task: Task) -> dict[str, LeakReport]:
    """The probe's answer for each input that both splits have; none where there is nothing to compare.

    Args:
        root: of the dataset; its test rows are loaded.
        inputs: feature tables.
        name: of the task.
        task: its kind; several labels a row are not probed.
    """
    if task.kind == "multilabel":
        return {}
    found = {}
    for folder in dict.fromkeys(inputs):
        train = pooled_split(root, folder, name, test=False)
        other = pooled_split(root, folder, name, test=True)
        if min(train.groups.count, other.groups.count) >= FEWEST_GROUPS:
            found[folder] = leak_probe(task.kind, train, other)
    return found


def pooled_split(root: str, folder: str, name: str, *, test: bool) -> Split:
    """Mean features, known targets and groups of the test split, or of the train split.

    A dataset without a train split offers all of its rows outside test.
    """
    request = Request(root=root, inputs=(folder,), tasks=(name,), pool="mean", test=test)
    data = load(request)
    clips = data.clips
    (store,) = data.feed.stores.values()
    kept = clips.known[name].numpy() & steps_of(store).numpy()
    if not test and (clips.split == "train").any():
        kept &= clips.split == "train"
    rows = torch.from_numpy(np.flatnonzero(kept))
    groups = [
        group or f"clip {clip}"
        for group, clip in zip(clips.group[kept], clips.clip_id[kept], strict=True)
    ]
    target = clips.targets[name][rows]
    return Split(
        features=store.gather(rows).values[:, 0],
        target=target.reshape(-1),
        groups=Groups.of(groups),
    )


def steps_of(store: Store) -> torch.Tensor:
    """Whether each clip has a valid step [clip]."""
    clip = torch.arange(len(store.lengths)).repeat_interleave(store.lengths)
    present = torch.zeros(len(store.lengths), dtype=torch.bool)
    present[clip[store.valid]] = True
    return present

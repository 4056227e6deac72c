"""Leak probes: features that predict train labels far better inside train than inside valid (or test).

Published features and fine-tuned encoders may have been fitted to the labels of train. Whatever is then
chosen inside train looks good and is worthless; the linear probe of `fusion.probe` shows it. Its report is
kept, so that each feature table is probed once:

Writes: <root>/leaks/<features>-<task>-<split>.json
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal

import numpy as np
import pyarrow.compute as pc
import torch

from cluster import storage
from fusion.probe import LeakReport, ProbedSplit, leak_probe
from fusion.statistics import Groups
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.branches import publishes_inputs
from jobs.catalog.features import resolve_features
from jobs.catalog.groups import group_names
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.training.loading import Request, load

Against = Literal["valid", "test"]

FEWEST_GROUPS = 10
"""With fewer groups in a split, no gap differs from chance."""

MOST_CLIPS = 4000
"""Largest number of clips of a split that are probed; whole groups at random."""


def warn_of_leaks(root: str, inputs: Sequence[str], names: Sequence[str]) -> None:
    """Print a warning for each input that leaks the labels of train: train against valid, test stays closed.

    Args:
        root: of the dataset; nothing is said where it has not both splits.
        inputs: feature tables, as typed.
        names: of the tasks; empty: all.
    """
    dataset = read_dataset(root)
    for name in names or dataset.tasks:
        task = dataset.tasks[name]
        for text, report in leak_reports(root, inputs, name, task, against="valid").items():
            if report.leaks:
                print(f"{text}, {name}, train against valid: {report.message}")


def leak_reports(
    root: str, inputs: Sequence[str], name: str, task: Task, *, against: Against
) -> dict[str, LeakReport]:
    """Report of the probe for each input that both splits have; none where there is nothing to compare.

    Args:
        root: of the dataset.
        inputs: feature tables.
        name: of the task.
        task: its kind; several labels a row are not probed.
        against: the split that train is compared with; only `evaluate` may say test.
    """
    if task.kind == "multilabel":
        return {}
    found = {}
    for text in dict.fromkeys(inputs):
        folder = resolve_features(root, text)
        if publishes_inputs(
            storage.read_json(layout.features_uri(root, folder, layout.DESCRIPTOR))
        ):
            continue  # the numbers of tokens say nothing to a linear probe
        report = _kept(root, folder, name, against)
        report = report or _probed(root, folder, name, task, against)
        if report is not None:
            found[text] = report
    return found


def known_leaks(root: str, runs: Sequence[str], name: str) -> dict[str, dict[str, LeakReport]]:
    """Kept reports on the inputs of some runs: split -> feature folder -> report; nothing is probed."""
    uris = [layout.run_uri(root, run, layout.SUMMARY) for run in runs]
    summaries = [storage.read_json(uri) for uri in uris if storage.exists(uri)]
    folders = [folder for summary in summaries for folder in summary.get("inputs", {}).values()]
    splits: tuple[Against, ...] = ("valid", "test")
    found = {
        against: {folder: _kept(root, folder, name, against) for folder in dict.fromkeys(folders)}
        for against in splits
    }
    return {
        against: {folder: report for folder, report in reports.items() if report is not None}
        for against, reports in found.items()
    }


def _probed(root: str, folder: str, name: str, task: Task, against: Against) -> LeakReport | None:
    """Probe one feature table; None where a split has too few groups."""
    clips = [drawn_clips(root, name, part) for part in ("train", against)]
    if min(map(len, clips)) < FEWEST_GROUPS:
        return None
    train, other = (
        pooled_split(root, folder, name, some, test=test)
        for some, test in zip(clips, (False, against == "test"), strict=True)
    )
    if min(train.groups.count, other.groups.count) < FEWEST_GROUPS:
        return None
    report = leak_probe(task.kind, train, other)
    facts = {"manifest": read_dataset(root).manifest_hash, **asdict(report)}
    storage.publish_json(facts, _uri(root, folder, name, against))
    return report


def _kept(root: str, folder: str, name: str, against: Against) -> LeakReport | None:
    """A report of the present manifest."""
    uri = _uri(root, folder, name, against)
    if not storage.exists(uri):
        return None
    facts: Mapping[str, object] = storage.read_json(uri)
    if facts["manifest"] != read_dataset(root).manifest_hash:
        return None
    return LeakReport(**{key: value for key, value in facts.items() if key != "manifest"})  # type: ignore[arg-type]


def _uri(root: str, folder: str, name: str, against: Against) -> str:
    return layout.leaks_uri(root, f"{folder}-{name}-{against}.json")


def drawn_clips(root: str, name: str, part: str) -> frozenset[int]:
    """Labelled clips of a split; of a large one whole groups at random, empty where there are too few.

    A dataset without a train split offers all of its rows outside test.
    """
    table = read_manifest(root, ["clip_id", "group", "split", name])
    table = table.filter(pc.is_valid(table[name]))
    split = np.array(table["split"].to_pylist(), object)
    kept = split == part
    if part == "train" and not kept.any() and (split == "test").any():
        kept = split != "test"
    clip_id = table["clip_id"].to_numpy()[kept]
    group = group_names(np.array(table["group"].to_pylist(), object)[kept], clip_id)
    people, sizes = np.unique(group, return_counts=True)
    if len(people) < FEWEST_GROUPS:
        return frozenset()
    order = np.random.default_rng(0).permutation(len(people))
    enough = int(np.searchsorted(sizes[order].cumsum(), MOST_CLIPS)) + 1
    chosen = np.isin(group, people[order[: max(enough, FEWEST_GROUPS)]])
    return frozenset(clip_id[chosen].tolist())


def pooled_split(
    root: str, folder: str, name: str, clips: frozenset[int], *, test: bool
) -> ProbedSplit:
    """Mean features, known targets and groups of some clips that have the input."""
    request = Request(
        root=root, inputs=(folder,), tasks=(name,), pool="mean", test=test, clips=clips
    )
    data = load(request)
    (store,) = data.feed.stores.values()
    kept = data.clips.known[name].numpy() & store.present.numpy()
    rows = torch.from_numpy(np.flatnonzero(kept))
    groups = group_names(data.clips.group[kept], data.clips.clip_id[kept]).tolist()
    target = data.clips.targets[name][rows]
    return ProbedSplit(
        features=store.gather(rows).values[:, 0],
        target=target.reshape(-1),
        groups=Groups.of(groups),
    )

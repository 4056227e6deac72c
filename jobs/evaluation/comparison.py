"""The sides of `compare`: held-out rows of runs and bundles, seed by seed, on common clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError
from cluster.tables import PREDICTIONS
from fusion.late.members import probabilities
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.bundles import bundle_facts
from jobs.catalog.judged_files import judged_file
from jobs.catalog.label_names import check_bundle
from jobs.catalog.predictions import as_target, held_out_rows, matrix, nothing_held_out


@dataclass(frozen=True, kw_only=True)
class ComparedSide:
    """One run or bundle on some clips."""

    name: str
    protocol: str
    n: int
    """Clips that it has a held-out answer for, whether or not the other sides do."""

    clip_id: np.ndarray
    """Ascending."""

    target: Tensor
    seeds: tuple[Tensor, ...]
    """Predictions as metrics take them, one tensor a seed."""


def runs_of(root: str, runs: Sequence[str], name: str, task: Task) -> list[ComparedSide]:
    """The runs' rows that no net trained on.

    Raises:
        ConfigError: raw and speaker-normalised runs in one table, or a run without a row of the task.
    """
    sides, normalised = [], {}
    for run in runs:
        table = held_out_rows(root, run, name)
        if not table.num_rows:
            raise nothing_held_out(root, [run], name)
        role = table["role"][0].as_py()
        facts = storage.read_json(layout.run_uri(root, run, layout.CONFIG))
        normalised[run] = facts.get("normalise", "none")
        folds = facts.get("folds")
        protocol = f"out of fold by {folds}" if role == "oof" else "valid split"
        if normalised[run] != "none":
            protocol += f", normalised by {normalised[run]} (transductive)"
        sides.append(side_of(run, protocol, table, task))
    if len(set(normalised.values())) > 1 and "none" in normalised.values():
        raise ConfigError(
            f"speaker-normalised runs are not compared with others; came: {normalised}"
        )
    return sides


def bundles_of(root: str, bundles: Sequence[str], name: str, task: Task) -> list[ComparedSide]:
    """The bundles' cross-fitted rows.

    Raises:
        NotPreparedError: a bundle has none, or its making was stopped.
        ConfigError: a bundle is of another task, or of other labels than the dataset has now.
    """
    sides = []
    for bundle in bundles:
        folder = layout.bundle_uri(root, bundle)
        uri = storage.join(folder, layout.PREDICTIONS)
        if not storage.exists(uri):
            known = ", ".join(layout.bundles_there(root)) or "none"
            raise NotPreparedError(f"no predictions of a bundle {bundle!r}; bundles: {known}")
        table = storage.read_table(judged_file(folder, layout.PREDICTIONS))
        check_bundle(root, bundle_facts(folder))
        PREDICTIONS.check(table.schema, where=uri)
        if set(table["task"].to_pylist()) != {name}:
            raise ConfigError(f"bundle {bundle!r} is not of the task {name!r}; give another --task")
        sides.append(side_of(bundle, "cross-fitted", table, task))
    return sides


def side_of(name: str, protocol: str, table: pa.Table, task: Task) -> ComparedSide:
    """Predictions by seed, on the clips that every seed has.

    Raises:
        ConfigError: it answers no clip.
    """
    table = table.filter(pc.is_valid(table["scores"])).sort_by("clip_id")
    if not table.num_rows:
        raise ConfigError(
            f"{name} answers no clip: its inputs are missing in all of them; type other names"
        )
    parts = {}
    for seed in sorted(set(table["seed"].to_pylist())):
        part = table.filter(pc.equal(table["seed"], seed))
        clip_id = part["clip_id"].to_numpy()
        scores = torch.tensor(matrix(part["scores"], task.outputs))
        if task.kind == "classification":
            scores = torch.log_softmax(scores, 1)
        width = task.outputs if task.kind == "multilabel" else 1
        target = matrix(part["target"], width).copy()
        parts[seed] = clip_id, probabilities(task.kind, scores), target
    shared = parts[min(parts)][0]
    for clip_id, _, _ in parts.values():
        shared = np.intersect1d(shared, clip_id)
    where = {seed: np.searchsorted(clip_id, shared) for seed, (clip_id, _, _) in parts.items()}
    first = min(parts)
    return ComparedSide(
        name=name,
        protocol=protocol,
        n=len(shared),
        clip_id=shared,
        target=as_target(parts[first][2][where[first]], task.kind),
        seeds=tuple(parts[seed][1][torch.from_numpy(at)] for seed, at in where.items()),
    )


def common(sides: Sequence[ComparedSide]) -> list[ComparedSide]:
    """All sides on the clips that every one of them has.

    Raises:
        ConfigError: there are none.
    """
    shared = sides[0].clip_id
    for side in sides:
        shared = np.intersect1d(shared, side.clip_id)
    if len(shared) == 0:
        raise ConfigError(
            f"{', '.join(side.name for side in sides)} have no held-out clip in common"
        )
    found = []
    for side in sides:
        at = torch.from_numpy(np.searchsorted(side.clip_id, shared))
        found.append(
            ComparedSide(
                name=side.name,
                protocol=side.protocol,
                n=side.n,
                clip_id=shared,
                target=side.target[at],
                seeds=tuple(seed[at] for seed in side.seeds),
            )
        )
    return found

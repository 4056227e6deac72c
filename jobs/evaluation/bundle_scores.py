"""What a bundle said of the rows that it was judged on: written as files, and read beside its members."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from cluster import storage
from cluster.tables import PREDICTIONS
from fusion.tasks import Task
from jobs.catalog import bundles, layout
from jobs.catalog.groups import groups_of
from jobs.catalog.judged_files import judged_file
from jobs.catalog.predictions import HeldOut, align, seeds_averaged
from jobs.evaluation.cross_fitting import Verdict
from jobs.evaluation.judging import folds_by_group
from jobs.evaluation.promises import Promised
from jobs.evaluation.results_table import Results, Role, from_facts
from jobs.evaluation.shipping import Gate
from jobs.interop.import_predictions import rows_of


@dataclass(frozen=True, kw_only=True)
class BundleSaid:
    """What a bundle is made of, and what it said of the rows that it was judged on."""

    runs: Sequence[str]
    """Runs that were named when it was fused."""

    members: Sequence[str]
    """Members of its own table: those that its plain fusions are of."""

    scores: Mapping[Role, Tensor]
    """Of its fusion and of what ships [row outputs]; a bundle of an earlier version knows only its fusion."""

    gate: Gate | None
    """What its fusion gained over the simplest answer; None for a bundle of an earlier version."""

    folds: np.ndarray
    """The folds that its table was cross-fitted on [row]."""


def with_bundle(
    root: str, held: HeldOut, bundle: str, name: str, task: Task
) -> tuple[HeldOut, BundleSaid]:
    """Members on the rows that a bundle was judged on, and what its fusion and what ships say there.

    Args:
        root: of the dataset.
        held: members of the bundle and others.
        bundle: its name.
        name: of the task.
        task: the task.

    Returns:
        The members, those of the bundle first and in its order, and what it said.

    Raises:
        NotPreparedError: clips that the present manifest does not know.
        ConfigError: rows of one fixed split are all of one group by now.
    """
    uri = layout.bundle_uri(root, bundle)
    files: dict[Role, str] = {"ensemble": layout.FUSED, "shipped": layout.PREDICTIONS}
    if not storage.exists(storage.join(uri, layout.FUSED)):
        files = {"ensemble": layout.PREDICTIONS}
    rows = rows_of(held)
    for role, file in files.items():
        table = storage.read_table(judged_file(uri, file))
        rows[f"bundle {role}"] = seeds_averaged(table.filter(pc.equal(table["task"], name)), task)
    both = align(rows, task)
    names = held.members.names
    config = bundles.read_bundle(root, bundle).get("config", {})
    imported = [PurePosixPath(file).stem for file in config.get("imported", ())]
    results = _results_of(uri)
    if results is None:
        members = [*config.get("runs", names), *imported]
    else:
        members = [row.name for row in results.rows if row.role == "member"]
    judged = [
        at for at, each in enumerate(both.members.names) if each in members or at >= len(names)
    ]
    both = both.rows(both.members.present[judged].any(0).numpy())
    in_its_order = [each for each in members if each in names]
    order = [*in_its_order, *(each for each in names if each not in members)]
    return both.only(order), BundleSaid(
        runs=config.get("runs", ()),
        members=members,
        scores={role: both.members.alone(len(names) + at) for at, role in enumerate(files)},
        gate=None if results is None else results.gate,
        folds=_folds_of(root, both, config),
    )


def _folds_of(root: str, held: HeldOut, config: Mapping[str, Any]) -> np.ndarray:
    """The folds of the runs; rows of one fixed split are cut as `ensemble` cut them, by the same codes."""
    groups = groups_of(root, held.clip_id)
    return folds_by_group(held.fold, groups, config.get("num_folds", 5), config.get("seed", 0))


def _results_of(uri: str) -> Results | None:
    """The table of a bundle; None for one of an earlier version."""
    if not storage.exists(storage.join(uri, layout.RESULTS)):
        return None
    return from_facts(storage.read_json(judged_file(uri, layout.RESULTS)))


def judged_contents(
    bundle: str,
    task: str,
    held: HeldOut,
    verdicts: Mapping[str, Verdict],
    results: Results,
    promised: Promised,
) -> dict[str, bytes]:
    """What the report needs: the cross-fitted predictions and the tables.

    Args:
        bundle: its name.
        task: its task.
        held: members on rows they did not train on.
        verdicts: name of a file -> what is said in it.
        results: of all.
        promised: of what ships.

    Returns:
        Name of a file in the folder of the bundle -> content.
    """
    rows = {
        file: storage.table_bytes(fused_predictions(bundle, task, held, verdict))
        for file, verdict in verdicts.items()
    }
    return {
        layout.RESULTS: storage.json_bytes(results.facts()),
        **rows,
        layout.COVERED: storage.table_bytes(promised.table(held.clip_id)),
    }


def fused_predictions(bundle: str, task: str, held: HeldOut, verdict: Verdict) -> pa.Table:
    """The cross-fitted verdict in the form of a run's predictions (role oof)."""
    target = held.target.double().reshape(len(held.clip_id), -1)
    known = ~verdict.scores.isnan().any(1)
    count = int(known.sum())
    return PREDICTIONS.conform(
        pa.table(
            {
                "clip_id": held.clip_id[known.numpy()],
                "run": [bundle] * count,
                "split": pa.nulls(count, pa.string()),
                "fold": held.fold[known.numpy()],
                "seed": [0] * count,
                "task": [task] * count,
                "target": target[known].tolist(),
                "role": ["oof"] * count,
                "scores": verdict.scores[known].tolist(),
            }
        )
    )

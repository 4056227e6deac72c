"""Predictions on disk: written by train, read by tune, ensemble, evaluate and report.

`<root>/runs/<run>/fold=K/seed=S/predictions.parquet` holds the rows of role train, valid and oof;
`test.parquet` beside it is written and read by `evaluate` alone. Late fusion sees only rows that a member
did not train on: `oof` where the run has folds, `valid` where it has a fixed split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError, SchemaError, TestSplitError
from cluster.tables import PREDICTIONS
from fusion.late.members import Members, from_mean_space, prior, to_mean_space
from fusion.tasks import Kind, Task
from jobs.catalog import layout
from jobs.catalog.label_names import check_run


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The same rows of several members, none of which trained on them."""

    clip_id: np.ndarray
    """int64 [row], ascending."""

    fold: np.ndarray
    """int64 [row]; all zero for a fixed split."""

    target: Tensor
    """Class index [row], labels [row label] with NaN for unknown, or values [row]."""

    members: Members
    group: np.ndarray | None = None
    """int64 [row]: code of each row's group; None: every row stands for itself."""

    def rows(self, index: np.ndarray) -> "HeldOut":
        """Some of the rows (an index or a boolean mask)."""
        picked = torch.as_tensor(index)
        return HeldOut(
            clip_id=self.clip_id[index],
            fold=self.fold[index],
            target=self.target[picked],
            members=self.members.rows(picked),
            group=None if self.group is None else self.group[index],
        )

    def only(self, names: Sequence[str]) -> "HeldOut":
        """Some of the members."""
        return HeldOut(
            clip_id=self.clip_id,
            fold=self.fold,
            target=self.target,
            members=self.members.only(names),
            group=self.group,
        )


def predictions_uri(root: str, run: str, fold: int, seed: int, *, name: str = "predictions") -> str:
    """Place of the rows of one fold and seed."""
    return layout.part_uri(root, run, fold, seed, f"{name}.parquet")


def write_predictions(root: str, run: str, fold: int, seed: int, table: pa.Table) -> str:
    """Publish rows of role train, valid and oof; returns where.

    Raises:
        TestSplitError: there are rows of role test among them.
    """
    if "test" in table["role"].to_pylist():
        raise TestSplitError(f"run {run!r}: rows of role test; only `affuse evaluate` makes them")
    uri = predictions_uri(root, run, fold, seed)
    storage.publish_table(PREDICTIONS.conform(table), uri)
    return uri


def read_predictions(
    root: str,
    run: str,
    *,
    roles: Sequence[str] = ("train", "valid", "oof"),
    name: str = "predictions",
) -> pa.Table:
    """All folds and seeds of one run.

    Raises:
        NotPreparedError: the run has no predictions, naming the runs that do.
        TestSplitError: role test was asked for without naming the test file.
    """
    if "test" in roles and name != "test":
        raise TestSplitError("rows of role test stand in files that only `affuse evaluate` opens")
    parts = []
    for fold, seed in folds_and_seeds(root, run):
        uri = predictions_uri(root, run, fold, seed, name=name)
        if storage.exists(uri):
            table = storage.read_table(uri)
            PREDICTIONS.check(table.schema, where=uri)
            check_finite(table, uri)
            parts.append(table.filter(pc.is_in(table["role"], pa.array(list(roles)))))
    if not parts:
        known = ", ".join(layout.runs_there(root)) or "none"
        raise NotPreparedError(
            f"run {run!r} has no {name} under {root}/runs (runs there: {known}); type: affuse train"
        )
    return pa.concat_tables(parts)


def check_finite(table: pa.Table, uri: str) -> None:
    """Refuse scores that no figure can be made of.

    Raises:
        SchemaError: NaN or an infinity among them.
    """
    values = table["scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if count := int((~np.isfinite(values.astype(np.float64))).sum()):
        raise SchemaError(
            f"{uri}: {count} of {len(values)} scores are NaN or infinite, the net ran away; train it again "
            "under another --run, with a lower --lr"
        )


def folds_and_seeds(root: str, run: str) -> list[tuple[int, int]]:
    """The (fold, seed) pairs of a run that have a folder."""
    base = layout.run_uri(root, run)
    return [
        (int(fold.removeprefix("fold=")), int(seed.removeprefix("seed=")))
        for fold in storage.names(base)
        if fold.startswith("fold=")
        for seed in storage.names(storage.join(base, fold))
        if seed.startswith("seed=")
    ]


def held_out(root: str, runs: Sequence[str], name: str, task: Task) -> HeldOut:
    """The runs' predictions on rows that none of them trained on, aligned by clip.

    Seeds are averaged first (as probabilities), so that a member is a configuration. A clip that a run says
    nothing about is absent for that member.

    Raises:
        ConfigError: none of the runs says anything of the task.
        SchemaError: scores are not finite, or the runs put a clip into different folds or give it
            different targets.
    """
    tables = {run: held_out_rows(root, run, name) for run in runs}
    if not any(table.num_rows for table in tables.values()):
        raise nothing_held_out(root, runs, name)
    rows = {run: seeds_averaged(table, task) for run, table in tables.items()}
    if not any(len(member.clip_id) for member in rows.values()):
        raise ConfigError(
            f"{', '.join(runs)} answer none of their held-out rows of {name!r}: their inputs are missing "
            "in all of them; type other --runs"
        )
    return align(rows, task)


def held_out_rows(root: str, run: str, name: str) -> pa.Table:
    """The predictions of one run for a task on rows that it did not train on: `oof`, else `valid`.

    Raises:
        ConfigError: the dataset has other labels by now.
    """
    check_run(root, run)
    table = read_predictions(root, run, roles=("valid", "oof"))
    table = table.filter(pc.equal(table["task"], name))
    role = "oof" if "oof" in set(table["role"].to_pylist()) else "valid"
    return table.filter(pc.equal(table["role"], role))


def nothing_held_out(root: str, runs: Sequence[str], name: str) -> ConfigError:
    """Error for runs without a held-out row of a task, with the tasks that they have."""
    tables = [read_predictions(root, run, roles=("valid", "oof")) for run in runs]
    known = sorted({task for table in tables for task in table["task"].to_pylist()})
    return ConfigError(
        f"{', '.join(runs)} have no held-out rows of {name!r} (tasks that they have: "
        f"{', '.join(known) or 'none'}); type another --task, or other --runs"
    )


@dataclass(frozen=True, kw_only=True)
class MemberRows:
    """One member's scores (as `Members` wants them) by clip."""

    clip_id: np.ndarray
    fold: np.ndarray
    target: np.ndarray
    """[row width], width 1 but for multi-label."""

    scores: np.ndarray
    """[row outputs]."""


def seeds_averaged(table: pa.Table, task: Task) -> MemberRows:
    """Mean over the seeds of each clip: of probabilities, or of values for a regression."""
    table = table.filter(pc.is_valid(table["scores"])).sort_by("clip_id")
    clip_id = table["clip_id"].to_numpy()
    scores = matrix(table["scores"], task.outputs)
    target = matrix(table["target"], task.outputs if task.kind == "multilabel" else 1)
    unique, first, inverse = np.unique(clip_id, return_index=True, return_inverse=True)
    total = np.zeros((len(unique), scores.shape[1]))
    np.add.at(total, inverse, to_mean_space(scores, task.kind))
    mean = total / np.bincount(inverse)[:, None]
    return MemberRows(
        clip_id=unique,
        fold=table["fold"].to_numpy()[first],
        target=target[first],
        scores=from_mean_space(mean, task.kind),
    )


def with_priors(table: pa.Table, task: Task) -> pa.Table:
    """Rows of one task, all with scores: a clip without any input gets the prior of its fold.

    The prior is that of the fold's rows of role train. Without this the figures of a run would be of fewer
    rows than those of the majority beside it.
    """
    silent = pc.is_null(table["scores"]).to_numpy()
    if not silent.any():
        return table
    fold, role = table["fold"].to_numpy(), np.array(table["role"].to_pylist())
    width = task.outputs if task.kind == "multilabel" else 1
    target = matrix(table["target"], width).copy()
    scores = np.zeros((len(silent), task.outputs))
    scores[~silent] = matrix(table["scores"].filter(pa.array(~silent)), task.outputs)
    for each in np.unique(fold[silent]):
        train = as_target(target[(fold == each) & (role == "train")], task.kind)
        scores[silent & (fold == each)] = prior(task.kind, train, task.outputs).numpy()
    offsets = pa.array(np.arange(len(silent) + 1, dtype=np.int32) * task.outputs)
    column = pa.ListArray.from_arrays(offsets, pa.array(scores.reshape(-1)))
    return table.set_column(table.column_names.index("scores"), "scores", column)


def align(rows: Mapping[str, MemberRows], task: Task) -> HeldOut:
    """Put members with their own sets of clips onto the union of the clips.

    Raises:
        SchemaError: the members disagree on a clip's fold or target.
    """
    clip_id = np.unique(np.concatenate([member.clip_id for member in rows.values()]))
    width = task.outputs if task.kind == "multilabel" else 1
    fold = np.full(len(clip_id), -1)
    target = np.full((len(clip_id), width), np.nan)
    scores = np.zeros((len(rows), len(clip_id), task.outputs))
    present = np.zeros((len(rows), len(clip_id)), bool)
    for index, (name, member) in enumerate(rows.items()):
        at = np.searchsorted(clip_id, member.clip_id)
        known = fold[at] >= 0
        if (fold[at][known] != member.fold[known]).any():
            raise SchemaError(
                f"member {name!r} was made with other folds than {next(iter(rows))!r}"
            )
        check_same_targets(target[at][known], member.target[known], name, next(iter(rows)))
        fold[at], target[at] = member.fold, member.target
        scores[index, at], present[index, at] = member.scores, True
    return HeldOut(
        clip_id=clip_id,
        fold=fold,
        target=as_target(target, task.kind),
        members=Members(
            names=tuple(rows),
            kind=task.kind,
            scores=torch.from_numpy(scores),
            present=torch.from_numpy(present),
        ),
    )


def check_same_targets(known: np.ndarray, came: np.ndarray, name: str, first: str) -> None:
    """Refuse a member that was made with other labels [row width].

    Runs keep targets in single precision, so that values of the manifest are compared in it.

    Raises:
        SchemaError: it was.
    """
    single = known.astype(np.float32), came.astype(np.float32)
    same = (single[0] == single[1]) | (np.isnan(known) & np.isnan(came))
    if other := int((~same.all(1)).sum()):
        raise SchemaError(
            f"member {name!r} has other targets than {first!r} for {other:,} of {len(same):,} clips: the "
            "labels were changed between the two; train the older one again, or leave it out"
        )


def as_target(target: np.ndarray, kind: Kind) -> Tensor:
    """Targets in the form that metrics and rules take."""
    if kind == "classification":
        return torch.from_numpy(target[:, 0].astype(np.int64))
    return torch.from_numpy(target if kind == "multilabel" else target[:, 0])


def matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """A list column of equal lengths as float64 [row width].

    Raises:
        SchemaError: a row has another length.
    """
    flat = column.combine_chunks()
    values = flat.flatten().to_numpy(zero_copy_only=False)
    if len(values) != len(flat) * width:
        raise SchemaError(f"{len(flat)} rows hold {len(values)} numbers, expected {width} a row")
    return np.asarray(values, np.float64).reshape(len(flat), width)

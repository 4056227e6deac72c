"""Columns of SCORES of many clips at once."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from cluster import tables
from fusion.late.calibration import Decision
from fusion.tasks import Task
from jobs.training.stores import steps_in

Columns = Mapping[str, pa.Array]

STATES = ("ok", "partial", "failed", "missing")
"""What may become of a clip."""

SILENT = "nothing in it that the bundle reads (no face, no speech)"
"""Error of a clip that no member says anything of, though nothing went wrong."""


def verdict_columns(scores: Tensor, task: Task, decision: Decision) -> Columns:
    """Label, confidence, probabilities and value; null where no member was present.

    Args:
        scores: fused, float64 [clip outputs]; NaN where no member was present.
        task: of the bundle.
        decision: from scores to labels.
    """
    silent = scores.isnan().any(1).numpy()
    known = torch.where(torch.from_numpy(silent)[:, None], 0.0, scores)
    if task.kind == "regression":
        return {"value": pa.array(known[:, 0].numpy(), mask=silent)}
    decided = decision.decide(known)
    if task.kind == "classification":
        shares = torch.softmax(known, -1)
        chosen = torch.zeros(known.shape, dtype=torch.bool).scatter(1, decided.unsqueeze(1), True)
        confidence = shares.gather(1, decided.unsqueeze(1))[:, 0]
    else:
        shares, chosen = torch.sigmoid(known), decided.bool()
        confidence = torch.where(chosen, shares, 1 - shares).amin(1)
    return {
        "label": lists_of(chosen.numpy(), task.classes, silent),
        "confidence": pa.array(confidence.numpy(), mask=silent),
        "probabilities": _maps_of(shares.numpy(), task.classes, silent),
    }


def state_columns(
    features: Mapping[str, pa.Table],
    modality: Mapping[str, str],
    silent: np.ndarray,
    clip_ids: np.ndarray,
) -> Columns:
    """The modalities that were there, status and error.

    Args:
        features: folder name of each encoder -> FEATURES of the clips, in any order.
        modality: of each folder.
        silent: clips that no member says anything of, bool [clip].
        clip_ids: int64 [clip].
    """
    names = sorted(set(modality.values()))
    used = np.zeros((len(silent), len(names)), bool)
    wrong: dict[int, list[str]] = {}
    for folder, table in features.items():
        name = modality[folder]
        place = _places(table["clip_id"].to_numpy(), clip_ids)
        there, damaged = (count[place] for count in steps_in(table))
        used[:, names.index(name)] |= there > 0
        at_fault = pc.is_in(table["status"], pa.array(["failed", "partial"]))
        broken = at_fault.to_numpy()[place]
        for row in np.flatnonzero(broken | (damaged > 0)).tolist():
            steps = f"{damaged[row]} steps are not finite"
            reason = table["error"][int(place[row])].as_py() if broken[row] else steps
            wrong.setdefault(row, []).append(f"{name}: {reason}")
    state = np.where(silent, STATES.index("missing"), STATES.index("ok"))
    error = np.full(len(silent), None, object)
    error[silent] = SILENT
    for row, reasons in wrong.items():
        state[row] = STATES.index("failed" if silent[row] else "partial")
        error[row] = "; ".join(dict.fromkeys(reasons))
    return {
        "modalities": lists_of(used & ~silent[:, None], names),
        "status": pa.array(STATES, pa.string()).take(pa.array(state)),
        "error": pa.array(error, pa.string()),
    }


def _places(held: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of the wanted ids stands among those in hand."""
    if np.array_equal(held, wanted):
        return np.arange(len(held))
    order = np.argsort(held, kind="stable")
    return np.asarray(order[np.searchsorted(held, wanted, sorter=order)])


def promised_columns(said: Mapping[str, np.ndarray], task: Task, silent: np.ndarray) -> Columns:
    """Columns of what `promised` found; null where no member says anything, and where an interval is open."""
    return {
        name: lists_of(found, task.classes, silent)
        if found.ndim == 2
        else pa.array(found, mask=silent | np.isinf(found))
        for name, found in said.items()
    }


def lists_of(
    chosen: np.ndarray, names: Sequence[str], missing: np.ndarray | None = None
) -> pa.Array:
    """Lists of the names that are chosen, bool [clip name]; null where `missing`, bool [clip]."""
    rows = chosen if missing is None else chosen & ~missing[:, None]
    ends = np.concatenate([[0], np.cumsum(rows.sum(1))]).astype(np.int32)
    values = pa.array(names, pa.string()).take(pa.array(np.nonzero(rows)[1]))
    mask = None if missing is None else pa.array(missing)
    return pa.ListArray.from_arrays(pa.array(ends), values, mask=mask)


def _maps_of(shares: np.ndarray, names: Sequence[str], missing: np.ndarray) -> pa.Array:
    """Maps from each name to its share [clip name]; null where `missing`."""
    rows = shares[~missing]
    ends = np.concatenate([[0], np.cumsum(np.where(missing, 0, len(names)))]).astype(np.int32)
    keys = pa.array(names, pa.string()).take(pa.array(np.tile(np.arange(len(names)), len(rows))))
    # A null offset makes a null map; the last one only closes the row before it.
    offsets = pa.array(ends, mask=np.append(missing, False))
    return pa.MapArray.from_arrays(offsets, keys, pa.array(rows.reshape(-1)))


def scores_table(columns: Columns, count: int) -> pa.Table:
    """Columns of SCORES in their order; those that nobody filled are null."""
    return pa.table(
        [
            columns[field.name].cast(field.type)
            if field.name in columns
            else pa.nulls(count, field.type)
            for field in tables.SCORES.schema
        ],
        schema=tables.SCORES.schema,
    )

"""What a bundle said of the rows that it was judged on: written as files, and read beside its members."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from cluster import storage
from cluster.tables import PREDICTIONS
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.judged_files import judged_file
from jobs.catalog.predictions import HeldOut, align, seeds_averaged
from jobs.evaluation.cross_fitting import Verdict
from jobs.evaluation.promises import Promised
from jobs.evaluation.results_table import Results, Role, from_facts
from jobs.evaluation.shipping import Gate
from jobs.interop.import_predictions import rows_of


def with_bundle(
    root: str, held: HeldOut, bundle: str | None, name: str, task: Task
) -> tuple[HeldOut, dict[Role, Tensor]]:
    """The members on the rows that the bundle was judged on, and what its fusion and what ships say there.

    A bundle of an earlier version knows only its fusion.
    """
    if bundle is None:
        return held, {}
    files: dict[Role, str] = {"ensemble": layout.FUSED, "shipped": layout.PREDICTIONS}
    if not storage.exists(layout.bundle_uri(root, bundle, layout.FUSED)):
        files = {"ensemble": layout.PREDICTIONS}
    rows = rows_of(held)
    for role, file in files.items():
        table = storage.read_table(judged_file(layout.bundle_uri(root, bundle), file))
        rows[f"bundle {role}"] = seeds_averaged(table.filter(pc.equal(table["task"], name)), task)
    both = align(rows, task)
    count = len(held.members.names)
    return both.only(both.members.names[:count]), {
        role: both.members.alone(count + index) for index, role in enumerate(files)
    }


def bundle_gate(root: str, bundle: str | None) -> Gate | None:
    """What a bundle's fusion gained over the simplest answer; None for a bundle of an earlier version."""
    if bundle is None:
        return None
    if not storage.exists(layout.bundle_uri(root, bundle, layout.RESULTS)):
        return None
    uri = judged_file(layout.bundle_uri(root, bundle), layout.RESULTS)
    return from_facts(storage.read_json(uri)).gate


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

"""What a bundle said of the rows that it was judged on, beside its members."""

import pyarrow.compute as pc
from torch import Tensor

from cluster import storage
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.predictions import HeldOut, align, seeds_averaged
from jobs.evaluation.results_table import Role, from_facts
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
        table = storage.read_table(layout.bundle_uri(root, bundle, file))
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
    uri = layout.bundle_uri(root, bundle, layout.RESULTS)
    return from_facts(storage.read_json(uri)).gate if storage.exists(uri) else None

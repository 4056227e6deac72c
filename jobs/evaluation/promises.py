"""What a prediction may promise: sets or intervals that hold the truth as often as asked.

The thresholds are fitted on cross-fitted scores of what ships, so on rows that neither its members nor its
fusion were fitted on, and for each combination of its members that a clip may have. What is said of them is
measured on people whose rows had no part in the thresholds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster import storage
from cluster.tables import COVERED
from fusion.late.presence import ByPresence, HeldRows, Names, combinations_of, left_out
from fusion.number_format import figure_text
from jobs.catalog import layout
from jobs.catalog.judged_files import judged_file
from jobs.catalog.predictions import HeldOut
from jobs.evaluation.cross_fitting import Verdict
from jobs.evaluation.judging import Judging

USUAL = 0.9
"""The coverage that tables and reports show."""


@dataclass(frozen=True, kw_only=True)
class Promised:
    """Thresholds of what ships, and what they came to at the usual coverage."""

    conformal: ByPresence
    covered: np.ndarray
    """1 or 0 [row part], NaN where the truth or the scores are not known."""

    size: np.ndarray
    """Possible classes, open labels, or the width of the interval [row]."""

    def table(self, clip_id: np.ndarray) -> pa.Table:
        """What people left out would meet (COVERED), beside the bundle's predictions."""
        flat = self.covered.reshape(-1)
        ends = pa.array(np.arange(len(clip_id) + 1, dtype=np.int32) * self.covered.shape[1])
        table = pa.table({
            "clip_id": clip_id,
            "covered": pa.ListArray.from_arrays(ends, pa.array(flat, mask=np.isnan(flat))),
            "size": pa.array(self.size, mask=np.isnan(self.size)),
        })  # fmt: skip
        return COVERED.conform(table)

    @property
    def said(self) -> str:
        """The measurement in one sentence."""
        kind, groups = self.conformal.every.kind, self.conformal.every.groups
        if not self.conformal.every.measurable(USUAL):
            return f"coverage {USUAL:g}: {groups} groups are too few to say what excludes answers"
        size = float(np.nanmean(self.size))
        answers = {
            "classification": f"by {size:.2f} classes, one alone for {self._alone:.0%} of the clips",
            "multilabel": f"with {size:.2f} labels a clip left open",
            "regression": f"by an interval {figure_text(size)} wide",
        }
        return (
            f"coverage {USUAL:g}: {np.nanmean(self.covered):.3f} measured on people left out, "
            f"{answers[kind]} (`affuse score --coverage`)"
        )

    @property
    def _alone(self) -> float:
        return float(np.mean(self.size[~np.isnan(self.size)] == 1))


def met(root: str, bundle: str, clip_id: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """What a bundle's `covered` [row part] and `size` [row] are of these clips; NaN where it has no row.

    None for a bundle of an earlier version.
    """
    if not storage.exists(layout.bundle_uri(root, bundle, layout.COVERED)):
        return None
    uri = judged_file(layout.bundle_uri(root, bundle), layout.COVERED)
    table = COVERED.conform(storage.read_table(uri))
    known = table["clip_id"].to_numpy()
    covered = table["covered"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    order = np.argsort(clip_id)
    there = np.isin(known, clip_id)
    at = order[np.searchsorted(clip_id, known[there], sorter=order)]
    found = np.full((len(clip_id), len(covered) // max(len(known), 1)), np.nan)
    size = np.full(len(clip_id), np.nan)
    found[at] = covered.reshape(len(known), -1)[there]
    size[at] = table["size"].to_numpy()[there]
    return found, size


def promised(
    held: HeldOut, verdict: Verdict, folds: np.ndarray, judging: Judging, members: Names
) -> Promised:
    """Fit thresholds on cross-fitted scores, and measure them on people left out.

    Args:
        held: members on rows they did not train on.
        verdict: cross-fitted scores of what ships.
        folds: fold of each row.
        judging: the rows.
        members: those that ship.
    """
    present = held.members.only(members).present
    rows = HeldRows(
        kind=judging.task.kind,
        scores=verdict.scores,
        target=judging.target,
        groups=judging.groups,
        members=members,
        present=present,
        without=fused_without(held, verdict, folds, combinations_of(members, present)),
    )
    covered, size = left_out(rows, USUAL)
    return Promised(conformal=ByPresence.fit(rows), covered=covered.numpy(), size=size.numpy())


def fused_without(
    held: HeldOut, verdict: Verdict, folds: np.ndarray, kept: list[Names]
) -> Mapping[Names, Tensor]:
    """Cross-fitted scores [row outputs] of rows whose other members are taken away.

    NaN where a row lacks one of those that are kept anyway, or where nothing was fitted.
    """
    members = held.members
    empty = torch.full_like(verdict.scores, torch.nan)
    found = {names: empty.clone() for names in kept}
    for fold, fitted in verdict.fits.items():
        at = torch.from_numpy(folds == fold)
        rows = members.rows(at)
        for names in kept:
            left = torch.tensor([name in names for name in members.names])
            there = rows.present[left].all(0)
            alone = replace(rows, present=rows.present & left[:, None] & there)
            found[names][at] = fitted.combine(alone)
    return found

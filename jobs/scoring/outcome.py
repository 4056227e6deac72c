"""What scores say all together: clips by label with their mean confidence, or the spread of the values."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster import console
from cluster.console import Table
from cluster.session import Capacity
from fusion.number_format import figure_text
from jobs.scoring.files import show
from jobs.scoring.tally import Tally, tally_of
from jobs.stream.progress import clock, conclude
from jobs.stream.result_rows import reason_of

MOST_LABELS = 30
"""Lines of a table."""


MOST_PIECES = 60
"""Pieces of clips that are printed one by one."""


MOST_GROUPS = 20
"""Groups that are printed one by one."""


def show_pieces(scores: pa.Table) -> None:
    """Print pieces of clips, or what they say all together: a table a task."""
    if scores.num_rows <= MOST_PIECES:
        show(scores)
        return
    for name in pc.unique(scores["task"]).to_pylist():
        show_outcome(tally_of([scores.filter(pc.equal(scores["task"], name))]))


def show_outcome(tally: Tally) -> None:
    """Print what the scores of a task say."""
    if not tally.rows:
        return
    header, *rows = by_value(tally) if tally.value.count else by_label(tally)
    table = Table(title=tally.task)
    for place, title in enumerate(header):
        table.add_column(title, justify="right" if place else "left")
    shown = rows if len(rows) <= MOST_LABELS else [*rows[: MOST_LABELS - 1], *rows[-1:]]
    for row in shown:
        table.add_row(*row)
    console.show(table)
    if len(shown) < len(rows):
        console.show(f"and {len(rows) - len(shown)} rarer labels")
    console.show(inputs_line(tally))


def by_label(tally: Tally) -> Iterator[tuple[str, ...]]:
    """Header, labels by frequency, and clips without one."""
    yield "label", "clips", "share", "mean confidence"
    for name in tally.by_frequency():
        count = tally.labels[name]
        yield name, f"{count:,}", f"{count / tally.rows:.1%}", f"{tally.sure[name] / count:.2f}"
    if silent := tally.rows - tally.labelled:
        yield "no label", f"{silent:,}", f"{silent / tally.rows:.1%}", "-"


def inputs_line(tally: Tally) -> str:
    """By which modalities the answers were made, the commonest first: fewer are a partial input."""
    found = sorted((-count, name or "nothing") for name, count in tally.read.items())
    said = (f"{name} {-count:,} ({-count / tally.answered:.1%})" for count, name in found)
    return f"answered from: {', '.join(said) or 'nothing'}"


def show_groups(groups: pa.Table, per: str, clips: int) -> None:
    """Print groups of clips, where they are few, and how many clips name none.

    Args:
        groups: rows of GROUP_SCORES.
        per: what a row is of.
        clips: all that have scores.
    """
    inside = pc.sum(groups["clips"]).as_py() or 0
    none = f"; {clips - inside:,} name no {per}" if inside < clips else ""
    console.show(f"per {per}: {groups.num_rows:,} rows of {inside:,} clips{none}")
    if groups.num_rows > MOST_GROUPS:
        return
    table = Table(per, "clips", "failed", "partial", "verdict", "confidence", "95 %")
    for row in groups.to_pylist():
        table.add_row(
            str(row["group"]),
            f"{row['clips']:,}",
            f"{row['failed'] / row['clips']:.0%}",
            f"{row['partial'] / row['clips']:.0%}",
            *_verdict(row),
        )
    console.show(table)


def _verdict(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Label, confidence and interval of a group; or its value and the interval of that."""
    if row["value"] is not None:
        value, low, high = row["value"], row["low"], row["high"]
        span = "-" if low is None else f"{figure_text(low, high)} to {figure_text(high, low)}"
        return figure_text(value), "-", span
    if row["label"] is None:
        return "-", "-", "-"
    verdict, confidence = "+".join(row["label"]) or "none", f"{row['confidence']:.0%}"
    if len(row["label"]) != 1:
        return verdict, confidence, "-"
    (name,) = row["label"]
    low, high = (dict(row[f"{end}_probabilities"])[name] for end in ("low", "high"))
    return verdict, confidence, "-" if low is None else f"{low:.0%} to {high:.0%}"


def by_value(tally: Tally) -> Iterator[tuple[str, ...]]:
    """Header, and where the values lie."""
    yield "value", "clips", "mean", "sd", "least", "most"
    value = tally.value
    figures = (value.mean, value.deviation, value.least, value.most)
    yield "all", f"{value.count:,}", *(figure_text(figure, *figures) for figure in figures)
    if silent := tally.rows - value.count:
        yield "no value", f"{silent:,}", *["-"] * 4


def summary(tally: Tally) -> dict[str, Any]:
    """What scores of one bundle say, as JSON values: clips by status, failures by kind, labels, inputs."""
    labels = {
        name: {"clips": count, "mean_confidence": tally.sure[name] / count}
        for name, count in tally.labels.items()
    }
    value = tally.value
    return {
        "clips": tally.rows,
        "status": dict(tally.status),
        "failures": dict(tally.failures),
        "labels": labels,
        "values": {"clips": value.count, "mean": value.mean} if value.count else None,
        "answered_from": dict(tally.read),
    }


def conclude_files(scores: pa.Table, max_failed_share: float) -> None:
    """Print how many of the files failed with each bundle, and why; of one in pieces, all of them have to.

    Args:
        scores: rows of SCORES of files or pieces of them, by one bundle or several.
        max_failed_share: most files that may fail [0..1].

    Raises:
        TooManyFailuresError: more did.
    """
    told = pa.table(
        {
            "bundle": scores["bundle"],
            "name": scores["name"],
            "failed": pc.equal(scores["status"], "failed"),
            "error": scores["error"],
        }
    )
    clips = told.group_by(["bundle", "name"], use_threads=False).aggregate(
        [("failed", "all"), ("error", "first")]
    )
    for bundle in pc.unique(clips["bundle"]).to_pylist():
        own = clips.filter(pc.equal(clips["bundle"], bundle))
        errors = own.filter(own["failed_all"])["error_first"].to_pylist()
        reasons = Counter(reason_of(error or "") for error in errors)
        conclude(reasons, own.num_rows, max_failed_share)


def cost_line(capacity: Capacity, seconds: float) -> str:
    """What was held for how long, in the units that machines are paid by."""
    hours, most = seconds / 3600, "at most " if capacity.elastic else ""
    parts = [f"{capacity.cpus:g} CPUs: {most}{capacity.cpus * hours:.3g} core-hours"]
    if capacity.gpus:
        parts.append(f"{capacity.gpus:g} GPUs: {most}{capacity.gpus * hours:.3g} GPU-hours")
    return f"held for {clock(seconds)}: {', '.join(parts)}"


def rate_line(clips: int, seconds: float) -> str:
    """How fast a command was, its start included."""
    return f"{clips:,} clips scored in {clock(seconds)}, {clips / max(seconds, 1e-9):.1f} clips/s"

"""What scores say all together: clips by label with their mean confidence, or the spread of the values."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster import console
from cluster.console import Table
from cluster.session import Capacity
from jobs.scoring.files import show
from jobs.stream.progress import clock
from jobs.stream.result_rows import failure_reasons

MOST_LABELS = 30
"""Lines of a table."""


MOST_PIECES = 60
"""Pieces of clips that are printed one by one."""


MOST_GROUPS = 20
"""Groups that are printed one by one."""


def show_pieces(scores: pa.Table) -> None:
    """Print pieces of clips, or what they say all together."""
    if scores.num_rows <= MOST_PIECES:
        show(scores)
    else:
        show_outcome(scores)


def show_outcome(scores: pa.Table) -> None:
    """Print a table a task.

    Args:
        scores: rows of SCORES.
    """
    for name in pc.unique(scores["task"]).to_pylist():
        of_task = scores.filter(pc.equal(scores["task"], name))
        lines = by_value if of_task["value"].null_count < len(of_task) else by_label
        header, *rows = lines(of_task)
        table = Table(title=str(name))
        for place, title in enumerate(header):
            table.add_column(title, justify="right" if place else "left")
        shown = rows if len(rows) <= MOST_LABELS else [*rows[: MOST_LABELS - 1], *rows[-1:]]
        for row in shown:
            table.add_row(*row)
        console.show(table)
        if len(shown) < len(rows):
            console.show(f"and {len(rows) - len(shown)} rarer labels")
        console.show(inputs_line(of_task))


def by_label(scores: pa.Table) -> Iterator[tuple[str, ...]]:
    """Header, labels by frequency, and clips without one."""
    yield "label", "clips", "share", "mean confidence"
    said = scores.filter(pc.is_valid(scores["label"]))
    for group in _labels(said).to_pylist():
        count = group["label_count"]
        share = f"{count / len(scores):.1%}"
        yield str(group["label"]), f"{count:,}", share, f"{group['confidence_mean']:.2f}"
    if silent := len(scores) - len(said):
        yield "no label", f"{silent:,}", f"{silent / len(scores):.1%}", "-"


def _labels(said: pa.Table) -> pa.Table:
    """Labels with the number of their clips and their mean confidence, the commonest first."""
    row = pc.list_parent_indices(said["label"])
    flat = pa.table(
        {"label": pc.list_flatten(said["label"]), "confidence": said["confidence"].take(row)}
    )
    groups = flat.group_by("label").aggregate([("label", "count"), ("confidence", "mean")])
    return groups.sort_by([("label_count", "descending"), ("label", "ascending")])


def _inputs(scores: pa.Table) -> pa.ChunkedArray:
    """The modalities that each answer was made from."""
    answered = scores.filter(pc.or_(pc.is_valid(scores["label"]), pc.is_valid(scores["value"])))
    return pc.binary_join(answered["modalities"], "+")


def inputs_line(scores: pa.Table) -> str:
    """By which modalities the answers were made, the commonest first: fewer are a partial input."""
    read = _inputs(scores)
    counts = sorted((-count, name or "nothing") for name, count in _counts(read).items())
    said = ", ".join(f"{name} {-count:,} ({-count / len(read):.1%})" for count, name in counts)
    return f"answered from: {said or 'nothing'}"


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
        low, high = row["low"], row["high"]
        return f"{row['value']:.3f}", "-", "-" if low is None else f"{low:.3f} to {high:.3f}"
    if row["label"] is None:
        return "-", "-", "-"
    verdict, confidence = "+".join(row["label"]) or "none", f"{row['confidence']:.0%}"
    if len(row["label"]) != 1:
        return verdict, confidence, "-"
    (name,) = row["label"]
    low, high = (dict(row[f"{end}_probabilities"])[name] for end in ("low", "high"))
    return verdict, confidence, "-" if low is None else f"{low:.0%} to {high:.0%}"


def by_value(scores: pa.Table) -> Iterator[tuple[str, ...]]:
    """Header, and where the values lie."""
    yield "value", "clips", "mean", "sd", "least", "most"
    value = scores["value"].drop_null()
    spread = pc.min_max(value)
    figures = (pc.mean(value), pc.stddev(value), spread["min"], spread["max"])
    yield "all", f"{len(value):,}", *(f"{figure.as_py():.3f}" for figure in figures)
    if silent := len(scores) - len(value):
        yield "no value", f"{silent:,}", *["-"] * 4


def summary(scores: pa.Table) -> dict[str, Any]:
    """What scores of one bundle say, as JSON values: clips by status, failures by kind, labels, inputs."""
    said = scores.filter(pc.is_valid(scores["label"]))
    labels = {
        group["label"]: {"clips": group["label_count"], "mean_confidence": group["confidence_mean"]}
        for group in _labels(said).to_pylist()
    }
    value = scores["value"].drop_null()
    return {
        "clips": scores.num_rows,
        "status": _counts(scores["status"]),
        "failures": failure_reasons([scores]),
        "labels": labels,
        "values": {"clips": len(value), "mean": pc.mean(value).as_py()} if len(value) else None,
        "answered_from": _counts(_inputs(scores)),
    }


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(pair["values"]): pair["counts"] for pair in column.value_counts().to_pylist()}


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

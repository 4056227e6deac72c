"""Checks of rows, piece by piece: which of them contradict themselves or what the table promises.

Every check takes some rows and yields (kind of fault, what is counted, mask [row]).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.tables import ROLES
from fusion.tasks import Task

Faulty = Iterator[tuple[str, str, np.ndarray]]
RowCheck = Callable[[pa.Table], Faulty]

STATUS = ("failed", "missing", "ok", "partial")
SUM_TOLERANCE = 1e-3
"""Of the probabilities of a clip."""


def feature_rows(side: Mapping[str, int]) -> RowCheck:
    """Checks of FEATURES.

    Args:
        side: further columns of the encoder -> numbers a step.
    """

    def check(rows: pa.Table) -> Faulty:
        steps = lengths(rows["values"])
        yield from status_rows(rows, there=steps >= 0, empty=steps <= 0)
        columns = [
            "step_start_s",
            "step_end_s",
            "valid",
            *(n for n in side if n in rows.schema.names),
        ]
        differ = np.zeros(len(rows), bool)
        for name in columns:
            # An absent list stands for no step.
            differ |= np.maximum(lengths(rows[name]), 0) != np.maximum(steps, 0)
        yield "steps", "rows whose steps, times and flags differ in number", differ
        start, end = (times(rows[name]) for name in ("step_start_s", "step_end_s"))
        if len(start[0]) == len(end[0]):
            backwards = marked(len(rows), start[1], end[0] < start[0])
            yield "steps", "rows with a step that ends before it starts", backwards
        for name in ("values", *(n for n in side if n in rows.schema.names)):
            yield "values", f"rows whose {name} are not all finite", not_finite(rows[name])

    return check


def transcript_rows(rows: pa.Table) -> Faulty:
    """Checks of TRANSCRIPTS."""
    text = rows["text"].is_valid().to_numpy()
    yield from status_rows(rows, there=text, empty=~text)
    yield "values", "rows whose confidence is not finite", odd_number(rows["confidence"])
    words = rows["words"].combine_chunks()
    start, end = (pc.struct_field(words.flatten(), name) for name in ("start_s", "end_s"))
    backwards = pc.fill_null(pc.less(end, start), False).to_numpy(zero_copy_only=False)
    yield (
        "steps",
        "rows with a word that ends before it starts",
        marked(len(rows), owners(words), backwards),
    )


def score_rows(task: Task | None) -> RowCheck:
    """Checks of SCORES.

    Args:
        task: that the bundle predicts; None where it is not known.
    """

    def check(rows: pa.Table) -> Faulty:
        said = (rows["label"].is_valid().to_numpy()) | (rows["value"].is_valid().to_numpy())
        yield from status_rows(rows, there=said, empty=~said)
        for name in ("confidence", "value"):
            yield "values", f"rows whose {name} is not finite", odd_number(rows[name])
        pairs = rows["probabilities"].combine_chunks()
        flat = pairs.items.slice(pairs.offsets[0].as_py() if len(pairs) else 0)
        shares = flat.to_numpy(zero_copy_only=False)[: int(np.maximum(lengths_of(pairs), 0).sum())]
        row = owners(pairs)
        odd = ~(np.isfinite(shares) & (shares >= 0) & (shares <= 1 + SUM_TOLERANCE))
        wrong = marked(len(rows), row, odd)
        if task is not None and task.kind == "classification":
            sums = np.bincount(row, np.nan_to_num(shares), minlength=len(rows))
            wrong |= (lengths_of(pairs) > 0) & (np.abs(sums - 1) > SUM_TOLERANCE)
        yield "labels", "rows whose probabilities are none", wrong
        if task is not None:
            yield (
                "labels",
                "rows with a label that the bundle does not know",
                unknown_labels(rows["label"], task.classes),
            )

    return check


def prediction_rows(
    run: str,
    fold: int | None,
    seed: int | None,
    tasks: Mapping[str, Task] | None,
    roles: Sequence[str] = ROLES,
) -> RowCheck:
    """Checks of PREDICTIONS.

    Args:
        run: that they are of.
        fold: of their folder; None: any.
        seed: of their folder; None: any.
        tasks: that the run predicts; None: not known.
        roles: that its rows may have.
    """

    def check(rows: pa.Table) -> Faulty:
        elsewhere = is_not(rows["run"], run)
        for name, expected in (("fold", fold), ("seed", seed)):
            if expected is not None:
                elsewhere |= is_not(rows[name], expected)
        yield "misplaced", "rows of another run, fold or seed", elsewhere
        yield (
            "misplaced",
            f"rows of another role than {', '.join(roles)}",
            ~among(rows["role"], *roles),
        )
        if tasks is not None:
            names = pa.array(list(tasks), pa.string())
            code = pc.fill_null(pc.index_in(rows["task"], value_set=names), -1).to_numpy()
            yield "labels", "rows of a task that the run does not predict", code < 0
            width = np.array([*(task.outputs for task in tasks.values()), -1])[code]
            count = lengths(rows["scores"])
            odd = (code >= 0) & (count >= 0) & (count != width)
            yield "labels", "rows with too many or too few scores", odd
        yield "values", "rows whose scores are not all finite", not_finite(rows["scores"])

    return check


def label_rows(tasks: Mapping[str, Task]) -> RowCheck:
    """Checks of the labels and times of a MANIFEST."""

    def check(rows: pa.Table) -> Faulty:
        for name, task in tasks.items():
            if name in rows.schema.names:
                yield (
                    "labels",
                    f"clips whose {name} is none of its task",
                    wrong_labels(rows[name], task),
                )
        for name in ("duration_s", "cost", "start_s", "end_s"):
            yield "values", f"clips whose {name} is not finite", odd_number(rows[name])
        backwards = pc.fill_null(pc.less(rows["end_s"], rows["start_s"]), False)
        yield "steps", "clips that end before they start", backwards.to_numpy()

    return check


def wrong_labels(column: pa.ChunkedArray, task: Task) -> np.ndarray:
    """Which labels of a manifest are none of their task [row]."""
    if task.kind == "classification":
        return np.asarray(~among(column, *task.classes) & column.is_valid().to_numpy())
    if task.kind == "multilabel":
        count = lengths(column)
        return np.asarray((count >= 0) & (count != task.outputs))
    low, high = task.range or (-np.inf, np.inf)
    outside = pc.or_(pc.less(column, low), pc.greater(column, high))
    return np.asarray(odd_number(column) | pc.fill_null(outside, False).to_numpy())


def status_rows(rows: pa.Table, *, there: np.ndarray, empty: np.ndarray) -> Faulty:
    """Whether status, error and content fit.

    Args:
        rows: with `status` and `error`.
        there: rows with some content, which may be of length 0 [row].
        empty: rows with nothing in it [row].
    """
    status, error = rows["status"], rows["error"].is_valid().to_numpy()
    yield "status", f"rows of no known status ({', '.join(STATUS)})", ~among(status, *STATUS)
    whole, broken = among(status, "ok", "partial"), among(status, "failed", "missing")
    yield "status", "rows that are ok or partial, and hold nothing", whole & ~there
    yield "status", "rows that are missing or failed, and hold something", broken & ~empty
    yield "status", "rows that are ok, and name an error", among(status, "ok") & error
    nameless = among(status, "failed", "partial") & ~error
    yield "status", "rows that failed or are partial, and name no error", nameless


def among(column: pa.ChunkedArray, *values: str) -> np.ndarray:
    """Rows that hold one of some values [row]."""
    return np.asarray(pc.is_in(column, value_set=pa.array(values, pa.string())).to_numpy())


def ids_of(rows: pa.Table) -> np.ndarray:
    """The clip of each row [row]; -1, which no clip has, where none is named."""
    return np.asarray(pc.fill_null(rows["clip_id"], -1).to_numpy())


def lengths(column: pa.ChunkedArray) -> np.ndarray:
    """Of each list of a column [row]; -1 for null."""
    return np.asarray(pc.fill_null(pc.list_value_length(column), -1).to_numpy())


def lengths_of(array: pa.Array) -> np.ndarray:
    """Of each list or map of an array [row]; -1 for null."""
    offsets = np.diff(array.offsets.to_numpy())
    return np.asarray(np.where(array.is_valid().to_numpy(zero_copy_only=False), offsets, -1))


def owners(array: pa.Array) -> np.ndarray:
    """Row of each value of the lists of an array [value]."""
    return np.repeat(np.arange(len(array)), np.maximum(lengths_of(array), 0))


def marked(count: int, row: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """Rows with at least one odd value [row]."""
    found = np.zeros(count, bool)
    found[row[odd]] = True
    return found


def times(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """All times of a column of lists [step], unknown ones nan, and the row of each."""
    array = column.combine_chunks()
    return array.flatten().to_numpy(zero_copy_only=False), owners(array)


def not_finite(column: pa.ChunkedArray) -> np.ndarray:
    """Rows of lists, or of lists of lists of one size, with a null or a number that is not finite [row]."""
    array = column.combine_chunks()
    flat, width = array.flatten(), 1
    odd = np.zeros(len(flat), bool)
    if pa.types.is_fixed_size_list(flat.type):
        width = flat.type.list_size
        odd |= ~flat.is_valid().to_numpy(zero_copy_only=False)
        flat = flat.values.slice(flat.offset * width, len(flat) * width)
    numbers = flat.to_numpy(zero_copy_only=False)
    half = numbers.dtype == np.float16  # their bits are looked at many times faster than isfinite
    bad = (numbers.view(np.uint16) & 0x7C00) == 0x7C00 if half else ~np.isfinite(numbers)
    if flat.null_count:
        bad = bad | flat.is_null().to_numpy(zero_copy_only=False)
    odd |= bad.reshape(len(odd), width).any(1) if width else False
    return marked(len(array), owners(array), odd)


def odd_number(column: pa.ChunkedArray) -> np.ndarray:
    """Rows with a number that is not finite; null is none [row]."""
    finite = pc.fill_null(pc.is_finite(column), True)
    return ~np.asarray(finite.to_numpy())


def unknown_labels(column: pa.ChunkedArray, classes: Sequence[str]) -> np.ndarray:
    """Rows of lists that hold something else than classes [row]."""
    array = column.combine_chunks()
    known = pc.is_in(array.flatten(), value_set=pa.array(list(classes), pa.string()))
    return marked(len(array), owners(array), ~known.to_numpy(zero_copy_only=False))


def is_not(column: pa.ChunkedArray, value: Any) -> np.ndarray:
    """Rows that hold something else [row]."""
    return np.asarray(pc.fill_null(pc.not_equal(column, value), True).to_numpy())

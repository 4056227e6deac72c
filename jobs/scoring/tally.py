"""Sums over the scores of one bundle: what is said of a collection; no row is kept."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cluster.unit_tables import unmoved
from jobs.scoring.versions import score_pieces
from jobs.stream.result_rows import reason_of

COLUMNS = (
    "task", "label", "confidence", "value", "modalities", "expected", "unusual", "status", "error",
)  # fmt: skip
"""Columns of SCORES that are summed; names and probabilities are the largest."""

ROWS = 16384
"""Rows that are summed at once: of fewer the calls would take longest."""


@dataclass
class Values:
    """Number, mean and spread of the values of a regression."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of the squared distances from the mean."""

    least: float = math.inf
    most: float = -math.inf

    def add(self, values: pa.ChunkedArray) -> None:
        """More values, none of them null."""
        more = len(values)
        if not more:
            return
        mean, spread = pc.mean(values).as_py(), pc.min_max(values).as_py()
        off = mean - self.mean
        total = self.count + more
        # Chan, Golub & LeVeque 1979: parts of any size, in any order.
        self.squares += pc.variance(values).as_py() * more + off * off * self.count * more / total
        self.mean += off * more / total
        self.count = total
        self.least, self.most = min(self.least, spread["min"]), max(self.most, spread["max"])

    @property
    def deviation(self) -> float:
        """Standard deviation of the values."""
        return math.sqrt(self.squares / self.count)


@dataclass
class Tally:
    """What the scores of one task say together."""

    task: str = ""
    rows: int = 0
    labelled: int = 0
    """Rows with a label, or with the list of none."""

    labels: Counter[str] = field(default_factory=Counter)
    sure: dict[str, float] = field(default_factory=dict)
    """Label -> sum of the confidences of its rows."""

    value: Values = field(default_factory=Values)
    status: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    """Why clips failed, in a few words -> how many."""

    answered: int = 0
    """Rows with a label or value; what follows is of them alone."""

    read: Counter[str] = field(default_factory=Counter)
    """Modalities that an answer was made from, with plus signs between -> rows."""

    listed: Mapping[str, Counter[str]] = field(
        default_factory=lambda: {"modalities": Counter(), "unusual": Counter()}
    )
    """Column of lists -> item -> rows that have it."""

    lists: Counter[str] = field(default_factory=Counter)
    """Column of lists -> rows that have a list."""

    expected: float = 0.0
    """Sum of the probabilities that answers are right."""

    foreseen: int = 0
    """Rows that have such a probability."""

    def add(self, scores: pa.Table) -> None:
        """More rows of SCORES, of the same task."""
        if not scores.num_rows:
            return
        self.task = scores["task"][0].as_py()
        self.rows += scores.num_rows
        self.status += counts(scores["status"])
        failed = scores.filter(pc.equal(scores["status"], "failed"))
        for error, count in counts(failed["error"].fill_null("")).items():
            self.failures[reason_of(error)] += count
        self._add_labels(scores.filter(pc.is_valid(scores["label"])))
        self.value.add(scores["value"].drop_null())
        known = pc.or_(pc.is_valid(scores["label"]), pc.is_valid(scores["value"]))
        self._add_answered(scores.filter(known))

    def _add_labels(self, said: pa.Table) -> None:
        self.labelled += said.num_rows
        row = pc.list_parent_indices(said["label"])
        flat = {"label": pc.list_flatten(said["label"]), "sure": said["confidence"].take(row)}
        groups = pa.table(flat).group_by("label").aggregate([("label", "count"), ("sure", "sum")])
        for one in groups.to_pylist():
            name = one["label"]
            self.labels[name] += one["label_count"]
            self.sure[name] = self.sure.get(name, 0.0) + (one["sure_sum"] or 0.0)

    def _add_answered(self, answered: pa.Table) -> None:
        self.answered += answered.num_rows
        self.read += counts(pc.binary_join(answered["modalities"], "+"))
        for name, found in self.listed.items():
            lists = answered[name].drop_null()
            self.lists[name] += len(lists)
            found.update(counts(pc.list_flatten(lists)))
        self.expected += pc.sum(answered["expected"]).as_py() or 0.0
        self.foreseen += len(answered) - answered["expected"].null_count

    def shares(self, column: str, names: Iterable[str]) -> dict[str, float]:
        """Share of the answered rows whose list has each of the names; empty where no row has a list."""
        if not self.lists[column]:
            return {}
        return {name: self.listed[column][name] / self.lists[column] for name in names}

    def by_frequency(self) -> list[str]:
        """Its labels, the commonest first."""
        return sorted(self.labels, key=lambda name: (-self.labels[name], name))


def tally_of(pieces: Iterable[pa.Table]) -> Tally:
    """The tally of rows of SCORES of one bundle that come in pieces."""
    tally = Tally()
    for piece in _larger(pieces):
        tally.add(piece)
    return tally


def tally_of_scores(root: str, name: str) -> Tally:
    """The tally of the current scores of a dataset; arguments and errors as of `read_scores`."""
    return unmoved(lambda: tally_of(score_pieces(root, name, COLUMNS)))


def counts(column: pa.ChunkedArray) -> Counter[str]:
    """How often each text is there."""
    pairs = column.value_counts().to_pylist()
    return Counter({str(pair["values"]): pair["counts"] for pair in pairs})


def _larger(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables that are worth a call."""
    held: list[pa.Table] = []
    for piece in pieces:
        held.append(piece.select(COLUMNS))
        if sum(table.num_rows for table in held) >= ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)

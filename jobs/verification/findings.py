"""What a verification found: of each table its counts, its faults by kind, and what to type."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import storage

EXAMPLES = 5
"""Of each kind of fault that are named."""

KINDS = {
    "absent": "a file that others name is not there",
    "divided": "a group stands in more than one split or fold",
    "footer": "a footer or a file's name does not say what the rows are",
    "labels": "a label, probability or value is none of its task",
    "left": "rows of units that are not in the manifest as they were",
    "missing": "clips without a row",
    "misplaced": "rows that stand where they do not belong",
    "schema": "another table, version, column or type",
    "status": "a status that its row contradicts",
    "steps": "numbers of steps that differ, or times that run backwards",
    "twice": "clips with more than one row",
    "unfinished": "begun, and not ended",
    "unreadable": "a file that cannot be read, or whose checksum differs",
    "values": "numbers that are not finite",
    "weights": "a net that cannot be loaded, or is another than the bundle names",
}
"""Every kind of fault."""

UNREADABLE = (OSError, pa.ArrowException, ValueError, LookupError, TypeError, AttributeError)
"""What reading a file raises that is cut off, overwritten or not what it should be."""


def typing(command: str) -> str:
    """What to do where a command mends it."""
    return f"type: {command}"


def anew(command: str) -> str:
    """What to do where a command passes over a file as long as it is there."""
    return f"remove the file, then type: {command}"


@dataclass(kw_only=True)
class Fault:
    """One kind of fault of one table."""

    kind: str
    count: int
    said: str
    """What is counted, e.g. ``clips without a row``."""

    examples: list[str]
    mend: str
    """What to do, with the command to type."""

    def line(self) -> str:
        """For people."""
        some = ", ".join(self.examples) + (", ..." if self.count > len(self.examples) else "")
        named = f" ({some})" if self.examples else ""
        return f"{self.kind}: {self.said}: {self.count:,}{named}; {self.mend}"


@dataclass(kw_only=True)
class Findings:
    """What was found of one table."""

    table: str
    """Its place below the root."""

    rows: int = 0
    files: int = 0
    size: int = 0
    """Bytes of its files."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is worth a line, and no fault."""

    def add(
        self,
        kind: str,
        said: str,
        *,
        count: int = 1,
        examples: Iterable[object] = (),
        mend: str,
    ) -> None:
        """Count a fault; those of one kind in the same words are one."""
        assert kind in KINDS, kind
        if not count:
            return
        fault = self._like(kind, said)
        if fault is None:
            fault = Fault(kind=kind, count=0, said=said, examples=[], mend=mend)
            self.faults.append(fault)
        fault.count += count
        for example in examples:
            if len(fault.examples) < EXAMPLES and str(example) not in fault.examples:
                fault.examples.append(str(example))

    def wants_examples(self, kind: str, said: str) -> bool:
        """Whether too few of a kind of fault are named."""
        fault = self._like(kind, said)
        return fault is None or len(fault.examples) < EXAMPLES

    def _like(self, kind: str, said: str) -> Fault | None:
        return next((f for f in self.faults if (f.kind, f.said) == (kind, said)), None)

    def unreadable(self, uri: str, error: BaseException, mend: str) -> None:
        """Count a file that cannot be read."""
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        name = uri.rsplit("/", 1)[-1]
        self.add("unreadable", "files that cannot be read", examples=[f"{name}: {why}"], mend=mend)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Clips:
    """The clips of the present manifest, as arrays: nothing of a clip is a Python object."""

    root: str
    clip_id: np.ndarray
    """int64 [clip], ascending."""

    unit: np.ndarray
    """int32 [clip]: place of the clip's unit among the manifest's."""

    group: np.ndarray
    """int32 [clip]: code of the clip's group; -1: it stands for itself."""

    groups: pa.Array
    """Name of each group."""

    files: Sequence[str]
    """Of the manifest."""

    def find(self, clip_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place of each of some clips [row], and whether the manifest has it [row]."""
        if not len(self.clip_id):
            return np.zeros(len(clip_id), np.int64), np.zeros(len(clip_id), bool)
        at = np.minimum(np.searchsorted(self.clip_id, clip_id), len(self.clip_id) - 1)
        return at, self.clip_id[at] == clip_id

    def named(self, clip_id: np.ndarray) -> list[str]:
        """The names of the first of some clips; the number of one that the manifest does not know."""
        if not len(clip_id):
            return []
        wanted = pa.array(clip_id[:EXAMPLES], pa.int64())
        known: dict[int, str] = {}
        for file in self.files:
            for piece in storage.table_pieces(file, columns=["clip_id", "name"]):
                kept = piece.filter(pc.is_in(piece["clip_id"], value_set=wanted))
                known.update(
                    zip(kept["clip_id"].to_pylist(), kept["name"].to_pylist(), strict=True)
                )
        return [known.get(clip) or f"clip {clip}" for clip in wanted.to_pylist()]

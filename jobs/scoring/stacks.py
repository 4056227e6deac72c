"""Clips that are scored by one call: a span of units, or several where they are narrow and soon done."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from jobs.catalog.manifest import UnitRef

STACK_SPANS = 8
"""Spans that are scored by one call: for a thousand small rows the calls inside take a third of the time."""

STACK_BYTES = 16_000_000
"""Features of such a stack."""

STACK_S = 1.0
"""How long a stack may take: progress is told and a stop heard between two."""


@dataclass(frozen=True)
class Stack:
    """Spans that are scored by one call; each is given to the nets by itself."""

    refs: Sequence[UnitRef]
    counts: Sequence[int]
    """Clips of each span."""

    clips: pa.Table
    features: Mapping[str, pa.Table]
    """By folder, of the same clips."""

    @property
    def num_bytes(self) -> int:
        """Size of the features."""
        return sum(table.nbytes for table in self.features.values())


class StackSize:
    """How many spans are scored by one call; the first one by itself, for it tells how long one takes.

    Args:
        most: spans.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.spans = 1

    def took(self, seconds: float, spans: int) -> None:
        """Learn how long some spans took."""
        fitting = int(STACK_S * spans / max(seconds, 1e-9))
        self.spans = max(1, min(self._most, fitting))


def stacks(read: Iterable[Stack], size: StackSize) -> Iterator[Stack]:
    """Spans put together, as many as the size says where they are narrow."""
    held: list[Stack] = []
    for span in read:
        if held and sum(each.num_bytes for each in [*held, span]) > STACK_BYTES:
            yield _joined(held)
            held = []
        held.append(span)
        if len(held) >= size.spans:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: Sequence[Stack]) -> Stack:
    return Stack(
        [ref for each in held for ref in each.refs],
        [count for each in held for count in each.counts],
        pa.concat_tables(each.clips for each in held),
        {
            folder: pa.concat_tables(each.features[folder] for each in held)
            for folder in held[0].features
        },
    )

"""The data sets that training reads: rows by index."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from fusion.batch import Batch

VALUES_AT_ONCE = 2**26
"""Values of all inputs that are read at a time where nothing is trained: 256 MB."""


@dataclass(frozen=True, kw_only=True)
class RowSplit:
    """Rows of a feed by what training does with them."""

    train: Tensor
    """To fit on [row]."""

    valid: Tensor
    """To choose the epoch by [row]; empty: the last epoch counts."""


@runtime_checkable
class Feed(Protocol):
    """Rows of a data set by index; a row is a clip or a dialogue, as the net takes it."""

    @property
    def lengths(self) -> Tensor:
        """int64 [row]: steps in time."""

    def batch(self, rows: Tensor) -> Batch:
        """Rows as one batch, with targets."""

    def targets(self, rows: Tensor) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Targets and which of them are known, without reading any feature."""


@runtime_checkable
class SizedFeed(Protocol):
    """A feed whose rows may be large, as those of pictures are."""

    @property
    def sizes(self) -> Tensor:
        """int64 [row]: values of all inputs."""


def at_once(feed: object, rows: Tensor, most: int) -> int:
    """Rows to read at a time where nothing is trained: fewer than `most` of large ones."""
    if not len(rows) or not isinstance(feed, SizedFeed):
        return most
    largest = max(1, int(feed.sizes[rows].max()))
    return max(1, min(most, VALUES_AT_ONCE // largest))


@runtime_checkable
class ViewFeed(Feed, Protocol):
    """A feed that can also return augmented views; used for training rows only."""

    @property
    def num_views(self) -> int:
        """Views besides the original."""

    def batch_in_views(self, rows: Tensor, views: Tensor) -> Batch:
        """Rows as one batch, each in its view [row]; 0 is the original, also for inputs without views."""

"""`benchmark encoders`: which encoder says most about the labels of a dataset, and what it costs.

Every feature table, and every layer of a table that holds several, is judged by the net `linear` over its
mean vectors: fitted by group folds, its penalty chosen inside them, so that there is nothing to tune and each
table takes seconds. Lines differ from the best one by a paired interval over groups. The test split is never
read.
"""

from dataclasses import dataclass

from cluster.errors import ConfigError
from cluster.settings import Place
from jobs.catalog.names import check_names


@dataclass(frozen=True, kw_only=True)
class EncodersConfig:
    """Feature tables ranked on a dataset's labels: figures by group folds, and seconds a clip."""

    root: Place
    """Folder or URI of one dataset."""

    encoders: tuple[str, ...] = ()
    """Feature tables: encoders as they were encoded, or imported ones; by default all that are there."""

    task: str | None = None
    """Task to rank by; may be left out where the dataset has one."""

    folds: str | None = None
    """Name of the folds, e.g. subject; by default five of whole groups, made for this."""

    layers: bool = True
    """Also rank every layer of tables that hold several."""

    name: str = "encoders"
    """Name of the ranking below comparisons/."""

    resamples: int = 2000
    """Number of bootstrap resamples and of sign flips."""

    seed: int = 0
    """Seed of the bootstrap."""

    memory_gb: float = 4.0
    """Total size of the features above which they are memory-mapped instead of loaded [GB]."""

    def __post_init__(self) -> None:
        from jobs.evaluation.judging import (
            check_resamples,
        )  # torch, which the other commands do without

        check_names(folds=self.folds, name=self.name)
        check_resamples(self.resamples)
        if len(set(self.encoders)) < len(self.encoders):
            raise ConfigError("--encoders: each table once")

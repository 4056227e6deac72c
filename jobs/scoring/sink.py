"""The sink of `score`: a unit's clips are scored by bundles, and their features are not kept."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from cluster.unit_tables import publish_unit
from jobs.scoring.bundle import Bundle
from jobs.scoring.versions import reads_of
from jobs.stream.job import Publish, StreamJob, UnitResult, UnitTask
from jobs.stream.result_rows import failed_clips

if TYPE_CHECKING:
    from jobs.scoring.scorer import Scorer

Scored: TypeAlias = Callable[[UnitTask, UnitResult, Sequence[Mapping[str, Any]]], pa.Table]
"""Publishes the scores of a unit, and gives them back."""


@dataclass(frozen=True, kw_only=True)
class ScoreSink:
    """Publishes SCORES in place of the features that they are made of."""

    bundle: Bundle
    root: str
    """Of the dataset."""

    uri: str
    """Folder of the scores."""

    def open(self, _job: StreamJob) -> Publish:
        """See `jobs.stream.job.Sink`."""
        scored = self.scored(_job)
        return lambda task, result, facts: failed_clips([scored(task, result, facts)])

    def scored(self, _job: StreamJob) -> Scored:
        """As `open`, but the function gives back the scores that it has published."""
        return functools.partial(self._publish, functools.cache(self._scorer))

    def _scorer(self) -> "Scorer":
        # Decode tasks and the driver carry the sink too: they load neither torch nor nets for it.
        from jobs.scoring.scorer import Scorer

        return Scorer(self.bundle, self.root)

    def _publish(
        self,
        scorer: "Callable[[], Scorer]",
        task: UnitTask,
        result: UnitResult,
        facts: Sequence[Mapping[str, Any]],
    ) -> pa.Table:
        """Score the clips of a unit from the features just made of it."""
        own = {folder: result.features[folder] for folder in self.bundle.folders}
        scores = scorer().scores(facts, own)
        publish_unit(
            self.uri, task.ref.version(reads_of(self.bundle), *self.bundle.told_stamps), scores
        )
        return scores


@dataclass(frozen=True, kw_only=True)
class ScoreSinks:
    """Publishes the SCORES of several bundles, each from the features that its nets read."""

    sinks: tuple[ScoreSink, ...]

    def open(self, job: StreamJob) -> Publish:
        """See `jobs.stream.job.Sink`."""
        opened = [(frozenset(sink.bundle.folders), sink.scored(job)) for sink in self.sinks]
        return functools.partial(_publish_all, opened)


def _publish_all(
    opened: Sequence[tuple[frozenset[str], Scored]],
    task: UnitTask,
    result: UnitResult,
    facts: Sequence[Mapping[str, Any]],
) -> int:
    """Publish what each bundle says of a unit; one whose features were not asked for has it already."""
    there = result.features.keys()
    scored = [publish(task, result, facts) for folders, publish in opened if folders <= there]
    return failed_clips(scored)

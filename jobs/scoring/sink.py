"""The sink of `score`: a unit's clips are scored by a bundle, and their features are not kept."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.unit_tables import publish_unit
from jobs.scoring.bundle import Bundle
from jobs.scoring.versions import reads_of
from jobs.stream.job import Publish, StreamJob, UnitResult, UnitTask
from jobs.stream.result_rows import failed_clips

if TYPE_CHECKING:
    from jobs.scoring.scorer import Scorer


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
    ) -> int:
        """Score the clips of a unit from the features just made of it."""
        scores = scorer().scores(facts, result.features)
        publish_unit(self.uri, task.ref.version(reads_of(self.bundle)), scores)
        return failed_clips([scores])

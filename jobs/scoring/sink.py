"""The sink of `score`: a unit's clips are scored by a bundle, and their features are not kept."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.unit_tables import publish_unit
from jobs.stream.job import Publish, StreamJob, UnitResult, UnitTask
from jobs.stream.result_rows import failed_clips


@dataclass(frozen=True, kw_only=True)
class ScoreSink:
    """Publishes SCORES in place of the features that they are made of."""

    bundle: str
    """As `jobs.scoring.bundle.open_bundle` takes it, with `root` and `transcriber`."""

    root: str
    transcriber: str | None
    uri: str
    """Folder of the scores."""

    reads: tuple[str, ...] = ()
    """What the scores depend on of the clips."""

    def open(self, job: StreamJob) -> Publish:
        """See `jobs.stream.job.Sink`."""
        return functools.partial(self._publish, job)

    def _publish(
        self,
        job: StreamJob,
        task: UnitTask,
        result: UnitResult,
        facts: Sequence[Mapping[str, Any]],
    ) -> int:
        """Score the clips of a unit from the features just made of it."""
        # Decode tasks carry the sink too, and shall not load torch for it.
        from jobs.scoring.scorer import scorer

        features = {
            job.work.descriptors[index].folder: result.features[index] for index in task.todo
        }
        judge = scorer(self.bundle, self.root, self.transcriber)
        scores = judge.scores(facts, features)
        publish_unit(self.uri, task.ref.version(self.reads), scores)
        return failed_clips([scores])

"""The sink of `score`: a unit's clips are scored by a bundle, and their features are not kept."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import ConfigError
from cluster.resources import Plan, WorkersConfig, plan_stream
from cluster.session import SessionConfig
from cluster.unit_tables import publish_unit, published
from jobs.catalog.manifest import units
from jobs.scoring.bundle import Bundle
from jobs.scoring.versions import reads_of
from jobs.stream.forecast import Assumed, forecast, planned_for
from jobs.stream.job import Publish, StreamJob, UnitResult, UnitTask
from jobs.stream.result_rows import failed_clips
from jobs.stream.selection import models_gb

if TYPE_CHECKING:
    from jobs.scoring.scorer import Scorer


def check_one_pass(plan: Plan) -> None:
    """Refuse a plan of several passes.

    Raises:
        ConfigError: the encoders do not fit together.
    """
    if len(plan.passes) > 1:
        raise ConfigError(
            f"{plan.notes[0]}; scoring needs all of them at once; type first: affuse encode"
        )


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


def plan_of_stream(
    job: StreamJob,
    bundle: Bundle,
    session: SessionConfig,
    workers: WorkersConfig,
    assume: Assumed,
) -> list[str]:
    """What a stream over the clips that are left would take; for another number of clips, over all."""
    assert isinstance(job.sink, ScoreSink)
    refs, reads = units(job.root), reads_of(bundle)
    if assume.clips is None:
        done = published(job.sink.uri)
        refs = [ref for ref in refs if ref.version(reads) not in done]
    if not refs:
        return [f"nothing to do: all clips are scored in {job.sink.uri}"]
    tasks = [UnitTask(ref=ref, todo=job.work.everything) for ref in refs]
    capacity = planned_for(session, workers, assume)
    check_one_pass(plan_stream(models_gb(job.work), capacity, workers))
    return forecast(job, tasks, session, workers, assume)

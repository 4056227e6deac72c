"""The sink of `encode`: a unit's tables, each in the folder of its encoder."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cluster.unit_tables import UnitIndex, Version, mended, publish_unit
from jobs.catalog.layout import features_uri, transcripts_uri
from jobs.stream.job import Publish, StreamJob, UnitResult, UnitTask


@dataclass(frozen=True)
class FeatureSink:
    """Publishes features and transcripts under the root of the job."""

    def open(self, job: StreamJob) -> Publish:
        """See `jobs.stream.job.Sink`."""
        published: dict[str, UnitIndex] = {}
        return functools.partial(_publish_tables, job, published)


def _publish_tables(
    job: StreamJob,
    published: dict[str, UnitIndex],
    task: UnitTask,
    result: UnitResult,
    _facts: Sequence[Mapping[str, Any]],
) -> int:
    """Publish a unit's tables, transcripts first, because features may rest on them.

    Args:
        job: the stream.
        published: tables whose rows are mended, as they were found; filled here.
        task: the unit.
        result: its tables.

    Returns:
        How many of the clips failed.
    """
    tables = [(job.work.by_folder[folder], table) for folder, table in result.features.items()]
    if result.transcripts is not None:
        assert job.work.transcriber is not None
        tables.insert(0, (job.work.transcriber, result.transcripts))
    for item, table in tables:
        folder = transcripts_uri if item is job.work.transcriber else features_uri
        uri, version = folder(job.root, item.folder), task.ref.version(item.reads)
        if task.mend:
            _publish_mended(uri, version, task, table, published)
        else:
            publish_unit(uri, version, table)
    return result.failed


def _publish_mended(
    uri: str, version: Version, task: UnitTask, table: pa.Table, published: dict[str, UnitIndex]
) -> None:
    """Publish what is there and has not failed together with what was done again."""
    if uri not in published or version not in published[uri]:
        published[uri] = UnitIndex(uri)
    if version in published[uri]:
        rows = mended(published[uri].read(version), table)
        publish_unit(uri, version, rows, mended=True)
    elif not task.clips:
        publish_unit(uri, version, table)
    # Else the other rows of the unit have left since: the next start finds that they are missing.

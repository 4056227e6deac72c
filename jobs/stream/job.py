"""Messages of the stream: the job, its units, and the reports on them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from encoders.spec import Descriptor, Needs
from jobs.catalog.manifest import UnitRef

STALL_LIMIT_S = 600.0
"""Default of --stall-limit-s [s]."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The encoders of a stream; their positions are the numbers in a unit's `todo`."""

    descriptors: tuple[Descriptor, ...]
    transcriber: Descriptor | None
    store: str
    threads: int = 1
    transcribes: bool = True
    """Load the transcriber; without it, what it has published is read."""

    def needs(self, todo: Sequence[int], *, transcribe: bool) -> Needs:
        """What some of the encoders need decoded."""
        needs = Needs()
        for index in todo:
            needs |= self.descriptors[index].needs
        if transcribe and self.transcriber is not None:
            needs |= self.transcriber.needs
        return needs


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """Limits of decoding one clip."""

    time_limit_s: float = 60.0
    """Time limit of decoding a clip, whatever its length [s]."""

    time_limit_per_s: float = 4.0
    """Additional time per second of the clip [s/s]."""

    memory_limit_gb: float = 3.0
    """Largest private memory of a decoder child [GiB]."""

    max_decoded_gb: float = 1.0
    """Largest size of the waveforms, and of the frames, of one clip [GiB]; above it fewer are taken."""

    recycle_after: int = 500
    """Number of clips after which a fresh decoder child takes over."""


@dataclass(frozen=True, kw_only=True)
class UnitTask:
    """One unit, and which of its results are missing."""

    ref: UnitRef
    todo: tuple[int, ...]
    """Positions of the encoders in `Work.descriptors`."""

    transcribe: bool
    """Publish transcripts too; without it text encoders read those that are there."""

    clips: tuple[int, ...] = ()
    """Only these clips; empty: all of the unit."""

    mend: bool = False
    """Rows that are there and have not failed stay as they are."""

    @property
    def num_clips(self) -> int:
        """How many clips there are to do."""
        return len(self.clips) or self.ref.num_clips


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """The finished tables of one unit."""

    features: Mapping[int, pa.Table]
    transcripts: pa.Table | None
    failed: int
    """Clips with at least one failed row."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Name of encoder or transcriber -> time it took [s]."""

    def tables(self) -> list[pa.Table]:
        """All of them."""
        return [*self.features.values(), *([] if self.transcripts is None else [self.transcripts])]


Publish: TypeAlias = Callable[[UnitTask, UnitResult, Sequence[Mapping[str, Any]]], int]
"""Publishes what was made of a unit, with the facts of its clips in their order; how many clips failed."""


class Sink(Protocol):
    """Where the results of a stream go. It travels to every worker, so it can be pickled."""

    def open(self, job: "StreamJob") -> Publish:
        """The function that publishes the units of a job in one process, which may cache what it has read."""


@dataclass(frozen=True, kw_only=True)
class StreamJob:
    """Settings of a stream for every worker; small, and the same for every unit."""

    root: str
    work: Work
    decoding: DecodingConfig
    sink: Sink
    stall_limit_s: float = STALL_LIMIT_S
    """Time that a call of a model may take beyond its usual pace [s]."""

    trusting: bool = False
    """Errors of a model that has passed no clip yet are the clips' own; else its worker is suspected."""

    max_lost_units: int = 64
    """Units that the stream may lose before it is left and they are encoded clip by clip."""


@dataclass(frozen=True, kw_only=True)
class UnitReport:
    """Report to the driver on one unit: it is published, or a worker gave it up."""

    unit: str
    num_clips: int
    failed: int
    decode_s: float
    encode_s: dict[str, float] = field(default_factory=dict)
    decode_mb: float = 0.0
    """Private memory of the process that decoded the unit, with all its clips [MB]; its child's not."""

    encode_mb: float = 0.0
    """Private memory of the worker after the unit [MB]."""

    reasons: dict[str, int] = field(default_factory=dict)
    """Why clips failed, and how many of them."""

    lost: str | None = None
    """Why the unit is not published (a `jobs.stream.faults.Kind`), with what was seen in `detail`."""

    detail: str = ""

    def text(self) -> str:
        """As text, for a column."""
        return json.dumps(vars(self))


def job_needs(work: Work, task: UnitTask) -> Needs:
    """What a unit needs decoded."""
    return work.needs(task.todo, transcribe=task.transcribe)


def facts_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Manifest columns that travel with a unit, besides its media."""
    names = ("clip_id", "name", "dialogue", "turn", "speaker", "split")
    return [{name: row[name] for name in names} for row in rows]


def no_view_ids(facts: Sequence[Mapping[str, Any]]) -> frozenset[int]:
    """Ids of the clips that get no augmented views: those of the test split."""
    return frozenset(row["clip_id"] for row in facts if row["split"] == "test")


def reads_text(work: Work, task: UnitTask) -> bool:
    """Whether one of the missing encoders reads text."""
    return any(work.descriptors[index].reads_text for index in task.todo)


def dump(tasks: Sequence[UnitTask]) -> str:
    """Units as text, for a column."""
    return json.dumps([{**vars(task), "ref": vars(task.ref)} for task in tasks])


def load(text: str) -> list[UnitTask]:
    """What `dump` wrote."""
    return [
        UnitTask(
            **{
                **item,
                "ref": UnitRef(**item["ref"]),
                "todo": tuple(item["todo"]),
                "clips": tuple(item["clips"]),
            }
        )
        for item in json.loads(text)
    ]

"""Messages of the stream: the job, its units, and the reports on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from encoders.spec import Descriptor, Needs
from jobs.catalog.manifest import UnitRef

STALL_LIMIT_S = 600.0
"""Default of --stall-limit-s [s]."""

FACTS = ("clip_id", "name", "dialogue", "turn", "speaker")
"""Columns of the manifest that travel with a unit to its sink."""


@dataclass(frozen=True, kw_only=True)
class Todo:
    """What is to be made of clips."""

    encoders: tuple[str, ...]
    """Folders of the encoders whose features are missing."""

    transcribe: bool
    """Make transcripts too; without it text encoders read those that are there."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The encoders of a stream."""

    descriptors: tuple[Descriptor, ...]
    transcriber: Descriptor | None
    store: str
    threads: int = 1
    transcribes: bool = True
    """Load the transcriber; without it, what it has published is read."""

    nets_gb: Mapping[str, float] = field(default_factory=dict)
    """Memory of what else a worker loads, by name [GB]: the nets of bundles that score."""

    @cached_property
    def by_folder(self) -> Mapping[str, Descriptor]:
        """The encoders by the folders of their features."""
        return {item.folder: item for item in self.descriptors}

    @property
    def everything(self) -> Todo:
        """All that can be made of a clip."""
        return Todo(encoders=tuple(self.by_folder), transcribe=self.transcriber is not None)

    def needs(self, todo: Todo, *, views: bool = True) -> Needs:
        """What has to be decoded of clips; `views`: of those too that have augmented views."""
        needs = Needs()
        for folder in todo.encoders:
            item = self.by_folder[folder]
            if views or item.view is None:
                needs |= item.needs
        if todo.transcribe and self.transcriber is not None:
            needs |= self.transcriber.needs
        return needs

    def reads_text(self, todo: Todo) -> bool:
        """Whether one of the missing encoders reads text."""
        return any(self.by_folder[folder].reads_text for folder in todo.encoders)


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
    todo: Todo
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

    features: Mapping[str, pa.Table]
    """By the folders of their encoders."""

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


def facts_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Manifest columns that travel with a unit, besides its media."""
    return [{name: row[name] for name in FACTS} for row in rows]

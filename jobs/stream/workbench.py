"""The models of one process: transcribe and encode the clips of a unit, and make its tables; no Ray."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa

from cluster.errors import Fault, MediaError
from cluster.resources import DEVICE_BATCH
from encoders import registry
from encoders.media import Decoded
from encoders.spec import Clip, Descriptor, Encoded, Transcript
from encoders.store import local_paths
from encoders.views import augmented, in_original_time
from jobs.stream.batcher import Batcher, size_of
from jobs.stream.job import Todo, UnitResult, Work
from jobs.stream.pace import Pace
from jobs.stream.result_rows import (
    checked,
    failed_clips,
    feature_table,
    has_modality,
    transcript_table,
    with_transcripts,
)
from jobs.stream.watch import Watch

T = TypeVar("T")

CPU_BATCH = 8
"""Clips that a model takes at once on a CPU."""


class Workbench:
    """The loaded models of one process."""

    def __init__(
        self,
        work: Work,
        *,
        device: str = "cpu",
        watch: Watch | None = None,
        stall_limit_s: float = 0.0,
        trusting: bool = True,
    ) -> None:
        """Load the models.

        Args:
            work: which.
            device: where.
            watch: keeps the deadlines of their calls.
            stall_limit_s: what a call may take beyond its pace [s].
            trusting: errors of a model that has passed no clip yet are the clips' own.
        """
        self.work = work
        self.batch = batch = DEVICE_BATCH if device == "cuda" else CPU_BATCH

        def batcher(call: Callable[[Sequence[Clip]], Sequence[T]], item: Descriptor) -> Batcher[T]:
            pace = Pace(stall_limit_s, item.spec.seconds_per_clip_second) if watch else None
            return Batcher(
                call,
                size=size_of(item),
                max_clips=batch,
                pace=pace,
                watch=watch,
                trusting=trusting,
            )

        def encode_of(item: Descriptor) -> Callable[[Sequence[Clip]], Sequence[Encoded]]:
            paths = local_paths(item.weights, work.store)
            encode = registry.load(item, paths, device=device, threads=work.threads).encode
            if device != "cuda":
                return encode
            from encoders.batching import within_range  # torch: the driver reads this file too

            return within_range(encode)

        # An encoder and its views are one model.
        self._encoders = {
            item.folder: batcher(encode_of(item), item)
            for item in {each.base.folder: each.base for each in work.descriptors}.values()
        }
        self._transcribe: Batcher[Transcript] | None = None
        if work.transcriber is not None and work.transcribes:
            transcriber = registry.load_transcriber(
                work.transcriber,
                local_paths(work.transcriber.weights, work.store),
                device=device,
                threads=work.threads,
            )
            self._transcribe = batcher(transcriber.transcribe, work.transcriber)

    def run(
        self,
        decoded: Sequence[Decoded],
        todo: Todo,
        *,
        transcripts: pa.Table | None = None,
    ) -> UnitResult:
        """Encode the clips of one unit with some of the encoders.

        Args:
            decoded: the unit's clips.
            todo: which encoders, and whether the speech of clips without text is recognised.
            transcripts: rows published earlier, used in place of recognising.
        """
        seconds: dict[str, float] = {}
        table = None
        if transcripts is not None:
            decoded = with_transcripts(decoded, transcripts)
        elif todo.transcribe and self._transcribe is not None and self.work.transcriber is not None:
            begun = time.perf_counter()
            recognised = self._recognise(decoded, self.work.transcriber)
            table = transcript_table(decoded, recognised)
            decoded = with_transcripts(decoded, table)
            seconds[self.work.transcriber.name] = time.perf_counter() - begun
        features = {}
        for folder in todo.encoders:
            descriptor = self.work.by_folder[folder]
            begun = time.perf_counter()
            results = self._encode(descriptor, decoded)
            features[folder] = feature_table(descriptor, decoded, results)
            seconds[folder] = time.perf_counter() - begun
        return UnitResult(
            features=features,
            transcripts=table,
            failed=failed_clips([*features.values(), *([] if table is None else [table])]),
            seconds=seconds,
        )

    def _encode(
        self, descriptor: Descriptor, decoded: Sequence[Decoded]
    ) -> list[Encoded | MediaError | None]:
        modality, view = descriptor.spec.modality, descriptor.view
        unseen = [view is not None and item.no_views for item in decoded]
        given = [
            i
            for i, item in enumerate(decoded)
            if has_modality(item.clip, descriptor) and not unseen[i]
        ]
        clips = [decoded[i].clip for i in given]
        if view is not None:
            clips = [augmented(clip, view, descriptor.needs) for clip in clips]
        encoded = self._encoders[descriptor.base.folder](clips)
        results: list[Encoded | MediaError | None] = [item.faults.get(modality) for item in decoded]
        for i, clip, result in zip(given, clips, encoded, strict=True):
            if view is not None and isinstance(result, Encoded):
                result = in_original_time(result, clip.clip_id, view, descriptor.needs)
            results[i] = checked(result, descriptor) if isinstance(result, Encoded) else result
        for i, hidden in enumerate(unseen):
            if hidden:
                results[i] = MediaError(Fault(f"no_{modality}"), "the test split has no views")
        return results

    def _recognise(
        self, decoded: Sequence[Decoded], transcriber: Descriptor
    ) -> list[Transcript | MediaError | None]:
        assert self._transcribe is not None
        results: list[Transcript | MediaError | None] = [
            item.faults.get("audio") for item in decoded
        ]
        given = [
            i
            for i, item in enumerate(decoded)
            if item.clip.text is None and has_modality(item.clip, transcriber)
        ]
        recognised = self._transcribe([decoded[i].clip for i in given])
        for i, result in zip(given, recognised, strict=True):
            results[i] = result
        return results

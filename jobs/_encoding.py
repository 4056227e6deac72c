"""What an encoder actor does with one unit: transcribe, encode, and turn results into tables; no Ray."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from cluster.errors import MediaError
from encoders import spec
from encoders.media import Decoded
from encoders.spec import Descriptor, Encoded, Transcript
from encoders.store import local_paths
from jobs._batcher import Batcher, size_of
from jobs._result_rows import (
    checked,
    failed_clips,
    feature_table,
    has_modality,
    transcript_table,
    with_transcripts,
)
from jobs._work import Work


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """The finished tables of one unit."""

    features: Mapping[int, pa.Table]
    transcripts: pa.Table | None
    failed: int
    """Clips with at least one failed row."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Name of encoder or transcriber -> time it took [s]."""


class Workbench:
    """The loaded models of one process."""

    def __init__(self, work: Work, *, device: str = "cpu") -> None:
        self.work = work
        batch = 64 if device == "cuda" else 8
        self._encoders = [
            Batcher(
                spec.load(
                    item,
                    local_paths(item.weights, work.store),
                    device=device,
                    threads=work.threads,
                ).encode,
                size=size_of(item),
                max_clips=batch,
            )
            for item in work.descriptors
        ]
        self._transcribe: Batcher[Transcript] | None = None
        if work.transcriber is not None:
            transcriber = spec.load_transcriber(
                work.transcriber,
                local_paths(work.transcriber.weights, work.store),
                device=device,
                threads=work.threads,
            )
            self._transcribe = Batcher(
                transcriber.transcribe, size=size_of(work.transcriber), max_clips=batch
            )

    def run(
        self,
        decoded: Sequence[Decoded],
        todo: Sequence[int],
        *,
        transcribe: bool,
        transcripts: pa.Table | None = None,
    ) -> UnitResult:
        """Encode the clips of one unit with some of the encoders.

        Args:
            decoded: the unit's clips.
            todo: which encoders.
            transcribe: recognise the speech of clips without text.
            transcripts: rows published earlier, used in place of recognising.
        """
        seconds: dict[str, float] = {}
        table = None
        if transcripts is not None:
            decoded = with_transcripts(decoded, transcripts)
        elif transcribe and self._transcribe is not None and self.work.transcriber is not None:
            begun = time.perf_counter()
            heard = self._recognise(decoded, self.work.transcriber)
            table = transcript_table(decoded, heard)
            decoded = with_transcripts(decoded, table)
            seconds[self.work.transcriber.name] = time.perf_counter() - begun
        features = {}
        for index in todo:
            descriptor = self.work.descriptors[index]
            begun = time.perf_counter()
            results = self._encode(index, decoded)
            features[index] = feature_table(descriptor, decoded, results)
            seconds[descriptor.folder] = time.perf_counter() - begun
        return UnitResult(
            features=features,
            transcripts=table,
            failed=failed_clips([*features.values(), *([] if table is None else [table])]),
            seconds=seconds,
        )

    def _encode(self, index: int, decoded: Sequence[Decoded]) -> list[Encoded | MediaError | None]:
        descriptor = self.work.descriptors[index]
        modality = descriptor.spec.modality
        given = [i for i, item in enumerate(decoded) if has_modality(item.clip, descriptor)]
        encoded = self._encoders[index]([decoded[i].clip for i in given])
        results: list[Encoded | MediaError | None] = [item.faults.get(modality) for item in decoded]
        for i, result in zip(given, encoded, strict=True):
            results[i] = checked(result, descriptor) if isinstance(result, Encoded) else result
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
        heard = self._transcribe([decoded[i].clip for i in given])
        for i, result in zip(given, heard, strict=True):
            results[i] = result
        return results

"""Decoding, supervised: a broken file costs one clip and never the process that asked for it.

`Decoder` runs a child process (`encoders.decoding.child`) that opens the files. Native code that crashes,
hangs or fills the memory does so there: the clip gets a `MediaError`, the child is replaced, the next clip
follows. Frames and waveforms come back through an anonymous shared file, which ends with both processes.

    with Decoder() as decoder:
        decoded = decoder.decode(ClipSource(clip_id=1, video=Source("clip.mp4")), needs)
        decoded.clip.frames, decoded.faults, decoded.partial
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cluster.errors import Fault, MediaError
from encoders.decoding.inspect import Probe, inspect
from encoders.decoding.process import START_LIMIT_S, Child
from encoders.decoding.sources import Source
from encoders.decoding.supervisor import Supervisor
from encoders.spec import Clip, FramePolicy, Frames, Modality, Needs, Word

__all__ = ["START_LIMIT_S", "ClipSource", "Decoded", "Decoder", "Probe", "Source", "probe"]

UNKNOWN_DURATION_S = 20.0
"""Assumed for the time limit where the manifest does not know a clip's length."""


TRACKS: tuple[Modality, ...] = ("audio", "video")
"""What is read of files."""


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """One row of a manifest, as the decoder needs it."""

    clip_id: int
    video: Source | None = None
    audio: Source | None = None
    """A sound file, or the container whose sound track is wanted (often the same as `video`)."""

    text: str | None = None
    words: Sequence[Word] | None = None
    start_s: float | None = None
    """Start of the segment inside the files [s]; None: the whole file."""

    end_s: float | None = None
    duration_s: float | None = None
    context: tuple[Sequence[str], Sequence[str]] = ((), ())


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A clip with what could be read of it."""

    clip: Clip
    faults: Mapping[Modality, MediaError] = field(default_factory=dict)
    """Why a modality that has a source is absent. One without a source is absent without a fault."""

    partial: Mapping[Modality, str] = field(default_factory=dict)
    """Why less was read than asked for (truncated, damaged, capped)."""

    no_views: bool = False
    """No augmented views are made of it: it is of the test split."""


def probe(source: Source | str) -> Probe:
    """Read a file's headers in this process; `Decoder.probe` does it in the supervised one.

    Raises:
        MediaError: missing, empty, truncated before its index, or no media.
    """
    return inspect(Source(source) if isinstance(source, str) else source)


class Decoder:
    """Decodes clips in a child process that is watched; for one thread at a time.

    On Linux the kernel ends the child together with the thread that started it, so a decoder is created
    in the thread that uses it.
    """

    def __init__(
        self,
        *,
        time_limit_s: float = 60.0,
        time_limit_per_s: float = 4.0,
        memory_limit_gb: float = 3.0,
        max_decoded_gb: float = 1.0,
        recycle_after: int = 500,
        attempts: int = 2,
        threads: int = 1,
    ) -> None:
        """Set the limits; the child starts with the first clip.

        Args:
            time_limit_s: time for a clip of no length [s].
            time_limit_per_s: further time per second of clip [s/s].
            memory_limit_gb: private memory of the child [GiB].
            max_decoded_gb: cap on the waveforms, and on the frames, of one clip [GiB].
            recycle_after: clips after which the child is replaced.
            attempts: tries, each in a fresh child, before a clip that crashes it is given up; one that
                outlives its time is given up at once.
            threads: threads of a video codec.
        """
        self._time_limit_s = time_limit_s
        self._time_limit_per_s = time_limit_per_s
        self._children = Supervisor(
            memory_bytes=round(memory_limit_gb * 2**30),
            threads=threads,
            max_bytes=round(max_decoded_gb * 2**30),
            recycle_after=recycle_after,
            attempts=attempts,
        )

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return self._children.pid

    def close(self) -> None:
        """End the child."""
        self._children.close()

    def decode(self, source: ClipSource, needs: Needs) -> Decoded:
        """Read what is needed of one clip.

        Raises:
            MediaError: the child crashed, ran out of time or memory on this clip.
        """
        read: dict[str, Any] = {}
        answer, child = self._read(source, needs)
        if child is not None:
            read = _sound(answer, child)
            if pictures := answer.get("video"):
                read["frames"] = {
                    policy: Frames(*(child.array(*place) for place in places))
                    for policy, places in zip(_policies(needs), pictures["frames"], strict=True)
                }
            child.release()
        return _decoded(source, answer, read)

    def decode_pieces(
        self, source: ClipSource, needs: Needs, pieces: Sequence[tuple[float, float]]
    ) -> Iterator[Decoded]:
        """Read parts of a clip that may overlap: what `decode` gives of each, but all of it is read once.

        Args:
            source: the clip; its own segment is not looked at.
            needs: what is needed of each part.
            pieces: start and end of each in the file [s], near each other: they are in memory together.

        Raises:
            MediaError: as `decode`.
        """
        first_s, last_s = min(start for start, _ in pieces), max(end for _, end in pieces)
        block = replace(source, start_s=first_s, end_s=last_s)
        answer, child = self._read(block, needs, pieces)
        sound: dict[str, Any] = {}
        arrays: dict[int, np.ndarray] = {}
        shown: list[Mapping[str, Any] | None] = [None] * len(pieces)
        if child is not None:
            sound = _sound(answer, child)
            if "video" in answer:
                shown = answer["video"]["pieces"]
            for place in (place for part in shown if part for place in _places(part)):
                if place[0] not in arrays:
                    arrays[place[0]] = child.array(*place)
            child.release()
        for (start_s, end_s), part in zip(pieces, shown, strict=True):
            own: dict[str, Any] = {"faults": dict(answer.get("faults", {}))}
            read = _sound_of_piece(answer, sound, start_s - first_s, end_s - first_s, own)
            if part is not None and "fault" in part:
                own["faults"]["video"] = part["fault"]
            elif part is not None:
                own["video"] = part
                read["frames"] = {
                    policy: Frames(np.stack([arrays[at] for at, *_ in pixels]), arrays[times[0]])
                    for policy, (pixels, times) in zip(
                        _policies(needs), part["frames"], strict=True
                    )
                }
            alone = replace(source, start_s=start_s, end_s=end_s, duration_s=end_s - start_s)
            yield _decoded(alone, own, read)

    def _read(
        self,
        source: ClipSource,
        needs: Needs,
        pieces: Sequence[tuple[float, float]] | None = None,
    ) -> tuple[Mapping[str, Any], Child | None]:
        """The child's answer, and the child that holds the arrays; nothing where nothing is to be read."""
        rates, policies = sorted(needs.rates_hz), _policies(needs)
        request = {
            "kind": "decode",
            "audio": _plain(source.audio) if rates else None,
            "video": _plain(source.video) if policies else None,
            "start_s": source.start_s,
            "end_s": source.end_s,
            "pieces": pieces,
            "rates_hz": rates,
            "policies": [vars(policy) for policy in policies],
        }
        if request["audio"] or request["video"]:
            return self._children.ask(request, self._limit(source))
        return {}, None

    def probe(self, source: Source) -> Probe:
        """Read a file's headers in the child.

        Raises:
            MediaError: missing, empty, truncated before its index, no media; or the child died of it.
        """
        answer, _ = self._children.ask(_headers(source), self._time_limit_s)
        return Probe(**answer["probe"])

    def probe_each(self, sources: Iterable[Source]) -> Iterator[Probe | MediaError]:
        """What `probe` gives or raises of every source, in their order; faster than one by one.

        Args:
            sources: taken as they are needed.
        """
        for answer in self._children.ask_each(map(_headers, sources), self._time_limit_s):
            yield answer if isinstance(answer, MediaError) else Probe(**answer["probe"])

    def _limit(self, source: ClipSource) -> float:
        length = source.duration_s
        if source.start_s is not None and source.end_s is not None:
            length = source.end_s - source.start_s
        return self._time_limit_s + self._time_limit_per_s * (length or UNKNOWN_DURATION_S)


def _plain(source: Source | None) -> list[Any] | None:
    return None if source is None else [source.uri, source.offset, source.size]


def _headers(source: Source) -> dict[str, Any]:
    return {"kind": "probe", "video": _plain(source)}


def _policies(needs: Needs) -> list[FramePolicy]:
    return sorted(needs.frames, key=repr)


def _sound(answer: Mapping[str, Any], child: Child) -> dict[str, Any]:
    """Waveforms by rate, and where they start."""
    sound = answer.get("audio")
    if not sound:
        return {}
    waveforms = {rate: child.array(*place) for rate, place in sound["waveforms"]}
    return {"waveforms": waveforms, "audio_start_s": sound["start_s"]}


def _places(part: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Where the arrays of a piece lie; the pictures of several pieces are the same ones."""
    for pixels, times in part.get("frames", ()):
        yield from (*pixels, times)


def _sound_of_piece(
    answer: Mapping[str, Any],
    sound: Mapping[str, Any],
    start_s: float,
    end_s: float,
    own: dict[str, Any],
) -> dict[str, Any]:
    """A piece's part of the waveforms of a block; `own` gets the facts, or the fault where it has none."""
    if not sound:
        return {}
    begin_s = sound["audio_start_s"]
    first_s = max(begin_s, start_s)
    waveforms = {
        rate: wave[round((first_s - begin_s) * rate) : max(0, round((end_s - begin_s) * rate))]
        for rate, wave in sound["waveforms"].items()
    }
    if any(len(wave) == 0 for wave in waveforms.values()):
        own["faults"]["audio"] = [Fault.NO_AUDIO.value, "has no sound in this segment"]
        return {}
    rate, wave = next(iter(waveforms.items()))
    late_s = first_s - start_s
    end = {"end_s": late_s + len(wave) / rate, "partial": answer["audio"]["partial"]}
    own["audio"] = end
    return {"waveforms": waveforms, "audio_start_s": late_s}


def _decoded(source: ClipSource, answer: Mapping[str, Any], read: Mapping[str, Any]) -> Decoded:
    """A clip of what was read."""
    tracks = {name: answer[name] for name in TRACKS if name in answer}
    measured_s = max((track["end_s"] for track in tracks.values()), default=0.0)
    clip = Clip(
        clip_id=source.clip_id,
        duration_s=measured_s if source.duration_s is None else source.duration_s,
        text=source.text,
        words=source.words,
        context=source.context,
        **read,
    )
    faults = {
        modality: MediaError(Fault(fault), detail)
        for modality, (fault, detail) in answer.get("faults", {}).items()
    }
    partial = {name: track["partial"] for name, track in tracks.items() if track["partial"]}
    return Decoded(clip=clip, faults=faults, partial=partial)

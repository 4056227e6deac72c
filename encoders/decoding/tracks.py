"""The track that a player plays, and the length of a file's content against its header."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Literal

import av
import av.error

from encoders.decoding.chunks import missing_bytes
from encoders.decoding.sources import Local

TELL_THEIR_LENGTH = frozenset(
    {
        *("aiff", "asf", "au", "avi", "caf", "flac", "flv", "matroska,webm", "mp3"),
        *("mov,mp4,m4a,3gp,3g2,mj2", "nut", "w64", "wav", "xwma"),
    }
)
"""Containers whose header holds the length; of others FFmpeg guesses it from the last bytes or the rate."""

READ_FROM_THE_END = frozenset({"mpeg", "mpegts", "ogg"})
"""Of these FFmpeg takes the length from the times of the last bytes."""

TELL_THEIR_END = frozenset({"flv", "matroska,webm"})
"""Of these, the length counts from 0 and not from the first packet."""

IN_PES = frozenset({"mpeg", "mpegts"})
STAMPS_TO_SETTLE = 2
"""Streams cut into parcels: behind a jump, frames have their own times from the second parcel on."""

LONGEST_HOLE_S = 3600.0
"""A clock that jumps further, or back, is taken for a new clock and not for a hole."""

LEAST_SHORTFALL_S = 0.2
MOST_SHORTFALL_S = 1.0
SHORTFALL = 0.01
"""A file is cut short where it ends before its header's length by this share, within those bounds."""

Kind = Literal["audio", "video"]


def default_track(container: Any, kind: Kind) -> Any | None:
    """The track that is played: the first with the default mark, else the first; never a cover picture."""
    streams = [s for s in getattr(container.streams, kind) if not is_cover(s)]
    whole = [s for s in streams if not _marked(s, "hearing_impaired", "visual_impaired")] or streams
    return next((s for s in whole if _marked(s, "default")), next(iter(whole), None))


def is_cover(stream: Any) -> bool:
    """Whether a video stream is only the cover picture of a sound file."""
    return _marked(stream, "attached_pic")


def zero_s(container: Any) -> float:
    """Where the clock of the file starts [s]: the time of its first packet, which a player shows as 0."""
    return float((container.start_time or 0) / av.time_base)


def cut_short(container: Any, stream: Any, local: Local, end_s: float | None) -> str | None:
    """Message for a file that holds less than its header states; None where all is there.

    Args:
        container: the open file.
        stream: the track that was read.
        local: its bytes.
        end_s: where the last packet of all tracks ends, from the file's first moment [s].
    """
    entries = getattr(stream, "index_entries", None)
    if container.format.name.startswith("mov") and entries is not None and len(entries):
        last = entries[len(entries) - 1]
        if last.pos + last.size > local.size:
            return f"cut short: {local.size} of {last.pos + last.size} bytes are there"
    return missing_bytes(local) or _shortfall(_told_s(container, local), end_s)


def _told_s(container: Any, local: Local) -> float | None:
    """The length that the header tells [s]; None where it tells none."""
    name = container.format.name
    if container.duration is None or name not in TELL_THEIR_LENGTH:
        return None
    if name == "mp3" and not _counts_frames(local):
        return None
    told = container.duration / av.time_base
    return float(told - zero_s(container) if name in TELL_THEIR_END else told)


def _shortfall(told: float | None, end_s: float | None) -> str | None:
    if told is None or end_s is None:
        return None
    slack = max(LEAST_SHORTFALL_S, min(SHORTFALL * told, MOST_SHORTFALL_S))
    return f"cut short: ends at {end_s:.2f} s of {told:.2f} s" if end_s < told - slack else None


class Packets:
    """The packets of one track in file order; notes on the way how far all tracks of the file reach."""

    def __init__(self, container: Any, stream: Any, *, jumped: bool = False) -> None:
        self.container = container
        self.stream = stream
        self._unsettled = STAMPS_TO_SETTLE if jumped and container.format.name in IN_PES else 0
        self.end_s: float | None = None
        """End of the last packet that was seen of any track, from the file's first moment [s]."""

        self.finished = False
        """Whether the end of the file was reached."""

    def __iter__(self) -> Iterator[Any]:
        zero = zero_s(self.container)
        streams = self.container.streams
        played = [s for s in (*streams.video, *streams.audio) if not is_cover(s)]
        tick_s = {stream.index: float(stream.time_base or 0) for stream in played}
        wanted, end_s = self.stream.index, -math.inf
        for packet in self.container.demux():
            index, size = packet.stream_index, packet.size
            if size and index in tick_s and (pts := packet.pts) is not None:
                end_s = max(end_s, (pts + (packet.duration or 0)) * tick_s[index] - zero)
                self.end_s = end_s
            if index != wanted:
                continue
            if self._unsettled and size:
                self._unsettled -= packet.pos is not None
                if self._unsettled:
                    continue
            yield packet
        self.finished = True


def content_s(container: Any, local: Local) -> float | None:
    """The length of what is in a file [s], whatever its header says; None where its packets have no times.

    The last packets are looked at where the header tells a length; only where they are not there, or it
    tells none, all of the file is passed through.
    """
    told = _told_s(container, local)
    if container.duration is not None and container.format.name in READ_FROM_THE_END:
        told = container.duration / av.time_base
    played = (default_track(container, "video"), default_track(container, "audio"))
    streams = [stream for stream in played if stream is not None]
    if told is not None:
        with contextlib.suppress(av.error.FFmpegError):
            target = max(0.0, told - 2 * MOST_SHORTFALL_S) + zero_s(container)
            container.seek(int(target * av.time_base), backward=True)
            packets = Packets(container, streams[0])
            for _ in packets:
                pass
            if packets.end_s is not None and _shortfall(told, packets.end_s) is None:
                return max(packets.end_s, told)
    with local.container() as again:
        packets = Packets(again, again.streams[streams[0].index])
        with contextlib.suppress(av.error.FFmpegError):
            for _ in packets:
                pass
    return packets.end_s


def _marked(stream: Any, *names: str) -> bool:
    kinds = type(stream.disposition)
    return any(int(stream.disposition) & int(getattr(kinds, name)) for name in names)


def _counts_frames(local: Local) -> bool:
    """Whether an MP3 begins with a frame that tells how many follow."""
    head = local.head(10)
    start = 0
    if head[:3] == b"ID3":
        start = 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
    with contextlib.closing(local.binary()) as file:
        file.seek(start)
        first = file.read(256) or b""
    return any(sign in first for sign in (b"Xing", b"Info", b"VBRI"))

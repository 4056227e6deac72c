"""An open film: its picture track from the beginning, or from a jump that landed where it should."""

import contextlib
from typing import Any

import av.error

from cluster.errors import Fault, MediaError
from encoders.decoding import tracks
from encoders.decoding.sources import Local

BUILDS_ON_ALL = frozenset({"gif", "apng", "webp_anim"})
"""Codecs whose every picture is painted over the ones before, whatever their packets are marked as."""

WITHOUT_SCREEN_TIMES = frozenset({"avi"})
"""Containers that store when a frame is decoded and nothing else."""

SANE_RATES_HZ = (1.0, 240.0)
USUAL_RATE_HZ = 25.0


class Film:
    """A film that can be read from its start and from jumps; closed by `close`."""

    def __init__(self, local: Local, threads: int) -> None:
        self.local = local
        self._threads = threads
        self._stack = contextlib.ExitStack()
        self.container: Any
        self.stream: Any
        self._moved = False
        self._open()

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def jumps(self) -> bool:
        """Whether a picture can be decoded without all pictures before it."""
        return self.stream.codec_context.name not in BUILDS_ON_ALL

    @property
    def tells_decoding_times(self) -> bool:
        """Whether the container has no place for when a frame is shown, and frames may be out of order."""
        reorders = bool(getattr(self.stream.codec_context, "has_b_frames", True))
        return reorders and self.container.format.name in WITHOUT_SCREEN_TIMES

    @property
    def first_tick(self) -> float:
        """Where the file's clock starts, in ticks of the picture track."""
        return tracks.zero_s(self.container) / float(self.stream.time_base)

    @property
    def rate_hz(self) -> float:
        """Frames a second that the header tells, if it is a rate of a film."""
        stream = self.stream
        low, high = SANE_RATES_HZ
        for rate in (stream.guessed_rate, stream.average_rate, stream.base_rate):
            if rate and low <= rate <= high:
                return float(rate)
        return USUAL_RATE_HZ

    def packets(self, tick: int | None = None) -> tracks.Packets:
        """Packets from the beginning of the file, or from a jump to about `tick`; it may land elsewhere.

        Raises:
            MediaError: the file cannot be opened a second time.
        """
        if tick is None:
            if self._moved:
                self._stack.close()
                self._open()
        else:
            with contextlib.suppress(av.error.FFmpegError):
                self.container.seek(tick, stream=self.stream, backward=True)
        self._moved = True
        return tracks.Packets(self.container, self.stream, jumped=tick is not None)

    def _open(self) -> None:
        self.container = self._stack.enter_context(self.local.container())
        stream = tracks.default_track(self.container, "video")
        if stream is None:
            self._stack.close()
            raise MediaError(Fault.NO_VIDEO, f"{self.local.path}: has no pictures")
        self.stream = stream
        self.stream.codec_context.thread_count = self._threads
        self._moved = False

"""A sound track as mono samples at their times: the mean of its channels at its level, holes silent."""

import collections
import contextlib
import math
from collections.abc import Iterator
from typing import Any

import av
import av.error
import numpy as np
from jaxtyping import Float32

from cluster.errors import Fault, MediaError
from encoders.decoding import tracks
from encoders.decoding.sources import Local, reason

Mono = Float32[np.ndarray, " samples"]
Piece = tuple[float | None, Mono]
"""Time of the first sample, None where the file does not tell it; the samples."""

BLOCK_S = 4.0
"""Silence comes in blocks of at most this length."""

HOLE_S = 0.02
"""A gap of this length is a hole; shorter ones are mended once they last."""

DRIFT_S = 0.004
"""Samples are moved where they lie further than this from their time ..."""

DRIFT_PIECES = 8
"""... in as many pieces, one after the other: single ones are the rounding of a coarse clock."""

STEPS_BACK_S = (2.0, 10.0, 60.0)
"""How far before a segment decoding starts: the codec warms up, and a jump may land late."""

FULL_SCALE = 1.0
LOSSY_FULL_SCALE = 1.12
"""Peaks of samples that are kept as they are; a codec that loses something overshoots by up to 1 dB."""

WITHOUT_LOSS = frozenset(
    {"alac", "ape", "flac", "mlp", "shorten", "tak", "truehd", "tta", "wavpack", "wmalossless"}
)


class Samples:
    """Mono samples of a file or segment from a moment of its clock on."""

    def __init__(
        self, track: "_Track", first_s: float, full_scale: float, blocks: Iterator[Mono]
    ) -> None:
        self._track = track
        self.rate_hz = track.rate_hz
        self.first_s = first_s
        """Where the first sample lies, from the start of the file [s]."""

        self.full_scale = full_scale
        self.blocks = blocks

    @property
    def damage(self) -> str | None:
        """What was wrong with the track as far as its blocks have been read."""
        return self._track.damage


@contextlib.contextmanager
def opened(
    local: Local, start_s: float | None, end_s: float | None, margin_s: float
) -> Iterator[Samples]:
    """The default sound track, from about `margin_s` before the segment to as much behind it.

    Raises:
        MediaError: no sound, or none of it can be decoded.
    """
    for back_s in (*STEPS_BACK_S, None):
        from_start = back_s is None or start_s is None or start_s - back_s <= 0
        with local.container() as container:
            track = _Track(container, local, end_s)
            if not from_start:
                assert start_s is not None
                assert back_s is not None
                track.jump(start_s - back_s)
            pieces = track.pieces()
            first = next(pieces, None)
            if not from_start and (
                first is None or (first[0] or 0.0) > (start_s or 0.0) - margin_s
            ):
                continue  # the jump landed behind what is wanted
            if first is None:
                detail = track.damage or "holds a sound track without a single sample"
                raise MediaError(Fault.UNREADABLE, f"{local.path}: {detail}")
            yield track.placed(first, pieces, start_s, end_s, margin_s)
            return


class _Track:
    def __init__(self, container: Any, local: Local, wanted_s: float | None) -> None:
        self._wanted_s = math.inf if wanted_s is None else wanted_s
        self._container = container
        self._local = local
        stream = tracks.default_track(container, "audio")
        if stream is None:
            raise MediaError(Fault.NO_AUDIO, f"{local.path}: has no sound")
        self._stream = stream
        self._zero = tracks.zero_s(container)
        self._jumped = False
        self.rate_hz = 0
        self.damage: str | None = None

    def jump(self, to_s: float) -> None:
        with contextlib.suppress(av.error.FFmpegError):
            ticks = int((to_s + self._zero) / self._stream.time_base)
            self._container.seek(ticks, stream=self._stream, backward=True)
        self._jumped = True

    def pieces(self) -> Iterator[Piece]:
        """Decoded frames; a damaged packet is left out and remembered."""
        packets = tracks.Packets(self._container, self._stream, jumped=self._jumped)
        reached_s = 0.0
        unclear = self._jumped  # until a frame behind the jump says its time
        try:
            for packet in packets:
                try:
                    frames = packet.decode()
                except MemoryError:
                    raise
                except av.error.FFmpegError as error:
                    self.damage = f"damaged near {reached_s:.2f} s: {reason(error)}"
                    continue
                for frame in frames:
                    at_s = None if frame.time is None else frame.time - self._zero
                    unclear = unclear and at_s is None
                    if unclear or not frame.samples or not frame.sample_rate:
                        continue
                    self.rate_hz = self.rate_hz or frame.sample_rate
                    samples = self._at_first_rate(mono(frame), frame.sample_rate)
                    reached_s = reached_s if at_s is None else at_s
                    reached_s += len(samples) / self.rate_hz
                    yield at_s, samples
        except MemoryError:
            raise
        except (av.error.FFmpegError, ValueError) as error:
            self.damage = f"damaged after {reached_s:.2f} s: {reason(error)}"
        if packets.finished and reached_s < self._wanted_s:
            end_s = max(reached_s, packets.end_s or 0.0)
            short = tracks.cut_short(self._container, self._stream, self._local, end_s)
            self.damage = self.damage or short

    def placed(
        self,
        first: Piece,
        pieces: Iterator[Piece],
        start_s: float | None,
        end_s: float | None,
        margin_s: float,
    ) -> Samples:
        """The pieces on one clock; a segment starts at a whole second from the file's first sample."""
        stream, rate = self._stream, self.rate_hz
        at_s = first[0] or 0.0
        begin_s = at_s
        if self._jumped and stream.start_time is not None:
            begin_s = float(stream.start_time * stream.time_base) - self._zero
        first_s = begin_s
        if start_s is not None:
            first_s += max(0, math.floor(start_s - begin_s - margin_s))
        codec = stream.codec_context.name
        exact = codec.startswith("pcm_") or codec in WITHOUT_LOSS
        last = math.inf if end_s is None else math.ceil((end_s - first_s + margin_s) * rate)
        blocks = self._on_clock(first, pieces, first_s, last)
        return Samples(self, first_s, FULL_SCALE if exact else LOSSY_FULL_SCALE, blocks)

    def _on_clock(
        self, first: Piece, pieces: Iterator[Piece], zero: float, last: float
    ) -> Iterator[Mono]:
        """Samples from `zero` [s] on: what lies before is cut, holes become silence, overlaps are cut."""
        rate = self.rate_hz
        at = 0  # samples handed out
        shift = 0  # of the file's clock, where it started again [samples]
        leads: collections.deque[int] = collections.deque(maxlen=DRIFT_PIECES)
        piece: Piece | None = first
        started = False
        while piece is not None and at < last:
            at_s, samples = piece
            lead = 0 if at_s is None else round((at_s - zero) * rate) + shift - at
            if started and (
                lead > tracks.LONGEST_HOLE_S * rate or lead < -len(samples) - HOLE_S * rate
            ):
                self.damage = f"a clock that starts again at {zero + at / rate:.2f} s"
                shift -= lead
                lead = 0
            leads.append(lead)
            moved = lead if not started or lead > HOLE_S * rate else _drift(leads, DRIFT_S * rate)
            if moved:
                leads.clear()
            for silence in _silence(min(moved, last - at), round(BLOCK_S * rate)):
                yield silence
                at += len(silence)
            samples = samples[max(0, -moved) :]
            if len(samples):
                started = True
                yield samples
                at += len(samples)
            piece = next(pieces, None) if at < last else None

    def _at_first_rate(self, samples: Mono, rate_hz: int) -> Mono:
        """A track may change its rate on the way; the first one holds."""
        if rate_hz == self.rate_hz:
            return samples
        count = round(len(samples) * self.rate_hz / rate_hz)
        places = np.linspace(0, len(samples) - 1, max(1, count))
        between: Mono = np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
        return between


def mono(frame: Any) -> Mono:
    """The mean of the channels, full scale being 1."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    kind, width = values.dtype.kind, 8 * values.dtype.itemsize
    scaled = values.astype(np.float32)
    if kind == "u":
        scaled -= np.float32(2 ** (width - 1))
    if kind in "iu":
        scaled *= np.float32(0.5 ** (width - 1))
    mean: Mono = scaled[0] if len(scaled) == 1 else scaled.mean(0, dtype=np.float32)
    return mean


def _drift(leads: collections.deque[int], most: float) -> int:
    """By how much the samples lie off their time for a while: the least of it."""
    if len(leads) < DRIFT_PIECES:
        return 0
    least = min(leads, key=abs)
    same = all(lead > most for lead in leads) or all(lead < -most for lead in leads)
    return least if same else 0


def _silence(count: float, block: int) -> Iterator[Mono]:
    while count > 0:
        yield np.zeros(int(min(count, block)), np.float32)
        count -= block

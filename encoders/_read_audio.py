"""Sound: one pass over the samples, resampled to every rate that is wanted.

Containers go through PyAV, plain audio files through soundfile. A segment is resampled on the grid of the
whole file (it starts at a whole second from the first sample, with a margin), so that a segment's samples
are those of the whole file cut at the same place.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import av
import av.error
import numpy as np
from jaxtyping import Float32

from cluster.errors import Fault, MediaError
from encoders._sources import Local, reason

MARGIN_S = 1.0
"""Read this much around a segment, for the codec's memory and the resampler's filter."""

BLOCK_S = 4.0
"""Samples are resampled in blocks of about this length."""

LONGEST_GAP_S = 30.0
"""A longer hole in the timestamps is taken for damage, not for silence."""

MAGIC = (b"RIFF", b"fLaC", b"OggS", b"FORM", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
"""How the files begin that soundfile reads."""

Mono = Float32[np.ndarray, " samples"]


class Sound:
    """What was read: waveforms by rate, where they start, and why they stop early if they do."""

    def __init__(self, waveforms: dict[int, Mono], start_s: float, partial: str | None) -> None:
        self.waveforms = waveforms
        self.start_s = start_s
        self.partial = partial

    @property
    def end_s(self) -> float:
        """Where the last sample ends, from the start of the clip [s]."""
        rate, samples = next(iter(self.waveforms.items()))
        return self.start_s + len(samples) / rate


class Blocks:
    """Mono blocks at the file's own rate, and the time of the first sample."""

    def __init__(self, rate_hz: int, first_s: float, blocks: Iterator[Mono]) -> None:
        self.rate_hz = rate_hz
        self.first_s = first_s
        self.blocks = blocks
        self.damage: str | None = None


def read_sound(
    local: Local,
    rates_hz: Sequence[int],
    start_s: float | None,
    end_s: float | None,
    max_bytes: int,
) -> Sound:
    """Decode and resample the sound of one clip.

    Args:
        local: the staged source.
        rates_hz: sampling rates wanted.
        start_s: start of the segment in the file [s]; None: from the beginning.
        end_s: its end [s].
        max_bytes: cap on the waveforms together; longer sound is cut and `partial` says so.

    Raises:
        MediaError: no sound, or none of it can be decoded.
    """
    with contextlib.ExitStack() as stack:
        blocks = stack.enter_context(_blocks(local, start_s, end_s))
        longest_s = max_bytes / (4 * sum(rates_hz))
        return _resampled(blocks, rates_hz, start_s, end_s, longest_s)


@contextlib.contextmanager
def _blocks(local: Local, start_s: float | None, end_s: float | None) -> Iterator[Blocks]:
    if local.head(4).startswith(MAGIC):
        import soundfile

        with contextlib.closing(local.binary()) as binary:
            try:
                file = soundfile.SoundFile(binary)
            except (soundfile.LibsndfileError, TypeError):
                file = None  # e.g. AVI (also RIFF) or a video in Ogg: PyAV reads those
            if file is not None:
                with file:
                    yield _from_soundfile(file, start_s, end_s)
                return
    with local.container() as container:
        yield _from_container(container, local, start_s, end_s)


def _from_soundfile(file: Any, start_s: float | None, end_s: float | None) -> Blocks:
    rate = int(file.samplerate)
    base_s = _base(start_s, 0.0)
    found = Blocks(rate, base_s, iter(()))

    def read() -> Iterator[Mono]:
        import soundfile

        at = round(base_s * rate)
        last = file.frames if end_s is None else min(file.frames, _stop(end_s, 0.0, rate))
        try:
            file.seek(min(at, file.frames))
            while at < last:
                wanted = min(round(BLOCK_S * rate), last - at)
                block = file.read(wanted, dtype="float32", always_2d=True)
                if len(block) == 0:
                    found.damage = f"ends at {at / rate:.2f} s of {file.frames / rate:.2f} s"
                    return
                at += len(block)
                yield block.mean(1, dtype=np.float32)
        except soundfile.LibsndfileError as error:
            found.damage = f"damaged after {at / rate:.2f} s: {reason(error)}"

    found.blocks = read()
    return found


def _from_container(
    container: Any, local: Local, start_s: float | None, end_s: float | None
) -> Blocks:
    if not container.streams.audio:
        raise MediaError(Fault.NO_AUDIO, f"{local.path}: has no sound")
    stream = container.streams.audio[0]
    zero = (container.start_time or 0) / av.time_base
    if start_s is not None:
        # Two margins: one to land on the grid, one for the frames a decoder needs to warm up.
        target = start_s - 2 * MARGIN_S
        if target > 0:  # a seek to the very start would lose what primes the decoder
            with contextlib.suppress(av.error.FFmpegError):
                ticks = int((target + zero) / stream.time_base)
                container.seek(ticks, stream=stream, backward=True)
    found = Blocks(0, 0.0, iter(()))
    pieces = _mono_pieces(container, stream, zero, found)
    first = next(pieces, None)
    if first is None:
        detail = found.damage or "holds a sound track without a single sample"
        raise MediaError(Fault.UNREADABLE, f"{local.path}: {detail}")
    at_s, samples = first
    begin_s = at_s if start_s is None else (stream.start_time or 0) * float(stream.time_base) - zero
    found.first_s = _base(start_s, begin_s)
    end = math.inf if end_s is None else _stop(end_s, begin_s, found.rate_hz)
    found.blocks = _aligned(at_s, samples, pieces, found, begin_s, end)
    return found


def _base(start_s: float | None, begin_s: float) -> float:
    """Where resampling starts: a whole second after the first sample of the file."""
    if start_s is None:
        return begin_s
    return begin_s + max(0, math.floor(start_s - begin_s - MARGIN_S))


def _stop(end_s: float, begin_s: float, rate_hz: int) -> int:
    """Samples from the first one of the file to the end of the segment, with the margin."""
    return math.ceil((end_s - begin_s + MARGIN_S) * rate_hz)


def _mono_pieces(
    container: Any, stream: Any, zero: float, found: Blocks
) -> Iterator[tuple[float, Mono]]:
    """Decoded frames as (time, mono samples); a damaged packet is left out and remembered."""
    rate = int(stream.rate or stream.codec_context.sample_rate or 0)
    if rate <= 0:
        found.damage = "has a sound track without a sampling rate"
        return
    found.rate_hz = rate
    mono = av.AudioResampler(format="fltp", layout="mono", rate=rate)
    expected = 0.0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except av.error.FFmpegError as error:
                found.damage = f"damaged near {expected:.2f} s: {reason(error)}"
                continue
            for frame in frames:
                at_s = expected if frame.time is None else frame.time - zero
                frame.pts = None
                for piece in mono.resample(frame):
                    samples = piece.to_ndarray()[0]
                    yield at_s, samples
                    at_s += len(samples) / rate
                expected = at_s
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        found.damage = f"damaged after {expected:.2f} s: {reason(error)}"


def _aligned(
    at_s: float,
    samples: Mono,
    pieces: Iterator[tuple[float, Mono]],
    found: Blocks,
    begin_s: float,
    end: float,
) -> Iterator[Mono]:
    """The pieces from `found.first_s` on: what lies before is cut, holes become silence."""
    rate = found.rate_hz
    at = round((found.first_s - begin_s) * rate)
    while True:
        lead = round((at_s - begin_s) * rate) - at
        if lead < 0:
            # Overlap of less than a packet is rounding of timestamps, not data to drop.
            if at_s < found.first_s:
                samples = samples[-lead:]
        elif 0.02 * rate < lead <= LONGEST_GAP_S * rate:
            yield np.zeros(lead, np.float32)
            at += lead
        if len(samples):
            yield samples
            at += len(samples)
        following = next(pieces, None) if at < end else None
        if following is None:
            return
        at_s, samples = following


def _resampled(
    source: Blocks,
    rates_hz: Sequence[int],
    start_s: float | None,
    end_s: float | None,
    longest_s: float,
) -> Sound:
    resamplers = {
        rate: None
        if rate == source.rate_hz
        else av.AudioResampler(format="fltp", layout="mono", rate=rate)
        for rate in rates_hz
    }
    kept: dict[int, list[Mono]] = {rate: [] for rate in rates_hz}
    seen = 0
    partial = None
    for block in _regrouped(source.blocks, round(BLOCK_S * source.rate_hz)):
        for rate, resampler in resamplers.items():
            kept[rate] += [block] if resampler is None else _push(resampler, block, source.rate_hz)
        seen += len(block)
        if seen > longest_s * source.rate_hz:
            partial = f"only the first {seen / source.rate_hz:.0f} s of sound were kept"
            break
    for rate, resampler in resamplers.items():
        if resampler is not None and seen:
            kept[rate] += [frame.to_ndarray()[0] for frame in resampler.resample(None)]
    if not seen:
        detail = source.damage or "has no sound in this segment"
        raise MediaError(Fault.NO_AUDIO if source.damage is None else Fault.UNREADABLE, detail)
    return _cut(source, kept, start_s, end_s, seen, partial or source.damage)


def _cut(
    source: Blocks,
    kept: dict[int, list[Mono]],
    start_s: float | None,
    end_s: float | None,
    seen: int,
    partial: str | None,
) -> Sound:
    origin = start_s or 0.0
    first = max(source.first_s, origin)
    waveforms = {}
    for rate, blocks in kept.items():
        whole = np.concatenate(blocks)[: math.ceil(seen * rate / source.rate_hz)]
        head = round((first - source.first_s) * rate)
        tail = len(whole) if end_s is None else round((end_s - source.first_s) * rate)
        waveforms[rate] = np.ascontiguousarray(whole[head : max(head, tail)])
    if any(len(samples) == 0 for samples in waveforms.values()):
        raise MediaError(Fault.NO_AUDIO, "has no sound in this segment")
    return Sound(waveforms, first - origin, partial)


def _regrouped(blocks: Iterator[Mono], size: int) -> Iterator[Mono]:
    waiting: list[Mono] = []
    for block in blocks:
        waiting.append(np.clip(np.nan_to_num(block), -1.0, 1.0))
        if sum(map(len, waiting)) >= size:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _push(resampler: Any, block: Mono, rate_hz: int) -> list[Mono]:
    frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
    frame.sample_rate = rate_hz
    return [out.to_ndarray()[0] for out in resampler.resample(frame)]

"""Sound: one pass over the samples, resampled to every rate that is wanted.

A segment is resampled on the grid of the whole file (it starts at a whole second from the first sample, with
a margin), so that a segment's samples are those of the whole file cut at the same place.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np

from cluster.errors import Fault, MediaError
from encoders.decoding.samples import BLOCK_S, Mono, Samples, opened
from encoders.decoding.sources import Local

MARGIN_S = 1.0
"""Read this much around a segment, for the resampler's filter."""


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
    with opened(local, start_s, end_s, MARGIN_S) as samples:
        longest_s = max_bytes / (4 * sum(rates_hz))
        return _resampled(samples, rates_hz, start_s, end_s, longest_s)


def _resampled(
    source: Samples,
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
    peak = 0.0
    partial = None
    for block in _regrouped(source.blocks, round(BLOCK_S * source.rate_hz)):
        for rate, resampler in resamplers.items():
            kept[rate] += [block] if resampler is None else _push(resampler, block, source.rate_hz)
        seen += len(block)
        peak = max(peak, float(block.max()), -float(block.min()))
        if seen > longest_s * source.rate_hz:
            partial = f"only the first {seen / source.rate_hz:.0f} s of sound were kept"
            break
    for rate, resampler in resamplers.items():
        if resampler is not None and seen:
            kept[rate] += [frame.to_ndarray()[0] for frame in resampler.resample(None)]
    if not seen:
        detail = source.damage or "has no sound in this segment"
        raise MediaError(Fault.NO_AUDIO if source.damage is None else Fault.UNREADABLE, detail)
    if not all(kept.values()):
        raise MediaError(Fault.NO_AUDIO, f"has only {seen} samples of sound: no filter holds them")
    partial = partial or source.damage
    if peak > source.full_scale:
        partial = partial or f"sound reaches {peak:.2f} of full scale: brought down to it"
        kept = {rate: [block / np.float32(peak) for block in all_] for rate, all_ in kept.items()}
    return _cut(source, kept, start_s, end_s, seen, partial)


def _cut(
    source: Samples,
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
        if not np.isfinite(np.dot(block, block)):
            block = np.nan_to_num(block, posinf=0.0, neginf=0.0)
        waiting.append(block)
        if sum(map(len, waiting)) >= size:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _push(resampler: Any, block: Mono, rate_hz: int) -> list[Mono]:
    frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
    frame.sample_rate = rate_hz
    return [out.to_ndarray()[0] for out in resampler.resample(frame)]

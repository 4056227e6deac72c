"""The referee: decodes everything in order with FFmpeg and shows it as a player does; slow and obvious."""

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type


@dataclass
class Shown:
    """All pictures of a film: when each comes on screen [s], and how it looks there."""

    times_s: np.ndarray
    images: list
    end_s: float
    counted: bool
    thumbs: np.ndarray | None = None

    def at(self, time_s):
        """Number of the picture on screen at a time."""
        return max(0, int(np.searchsorted(self.times_s, time_s + 1e-4, side="right")) - 1)


def pictures(path):
    """Every picture of the default track, in order."""
    with av.open(str(path)) as container:
        stream = default(container.streams.video)
        zero = (container.start_time or 0) / 1e6
        aspect = stream.sample_aspect_ratio or Fraction(1)
        times, images = [], []
        try:
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        times.append(None if frame.pts is None else float(frame.time) - zero)
                        images.append(upright(frame, aspect))
                except av.error.FFmpegError:
                    continue
        except av.error.FFmpegError:
            pass
        rate = float(stream.guessed_rate or stream.average_rate or 25)
    known = [time for time in times if time is not None]
    steps = np.diff(known)
    # AVI tells when a picture is decoded, not when it is shown.
    counted = (
        len(known) < len(times)
        or bool(len(steps) and (steps < 0).mean() > 0.1)
        or len(set(known)) < 0.9 * len(known)
    )
    if counted:
        times = slots(path, len(times), rate if 1 <= rate <= 240 else 25.0)
    times = np.maximum.accumulate(np.asarray(times))
    gap = float(np.median(np.diff(times))) if len(times) > 1 else 0.04
    return Shown(times, images, float(times[-1]) + gap, counted)


def slots(path, count, rate):
    """Times of pictures that have none of their own: the sorted ones of the file's packets, or its rate."""
    with av.open(str(path)) as container:
        stream = default(container.streams.video)
        stored = [
            packet.dts
            for packet in container.demux(stream)
            if packet.size and packet.dts is not None
        ]
        tick_s = float(stream.time_base)
    stored = sorted(stored)
    if len(stored) == count and len(set(stored)) == count:
        return [(tick - stored[0]) * tick_s for tick in stored]
    return [k / rate for k in range(count)]


def default(streams):
    """The track with the default mark, else the first."""
    marked = [s for s in streams if int(s.disposition) & 1]
    return (marked or list(streams))[0]


def upright(frame, aspect):
    """The picture as a screen shows it [height, width, 3]."""
    image = frame.to_ndarray(format="rgb24")
    height, width = image.shape[:2]
    if aspect > 1:
        width = round(width * aspect)
    elif aspect < 1:
        height = round(height / aspect)
    rows = (np.arange(height) * image.shape[0] / height).astype(int)
    columns = (np.arange(width) * image.shape[1] / width).astype(int)
    image = image[rows][:, columns]
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return image
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32)
    # Where each stored corner goes: (x, y) -> (a x + c y, b x + d y).
    turn = np.sign([[a, c], [b, d]])
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]]
    right = turn[0, 0] * xs + turn[0, 1] * ys
    down = turn[1, 0] * xs + turn[1, 1] * ys
    shown = np.empty((int(np.ptp(down)) + 1, int(np.ptp(right)) + 1, 3), np.uint8)
    shown[down - down.min(), right - right.min()] = image
    return shown


def sound(path):
    """(samples of the mean of the channels from the first moment of the file on, rate)."""
    with av.open(str(path)) as container:
        stream = default(container.streams.audio)
        zero = (container.start_time or 0) / 1e6
        placed, at, rate = [], 0.0, 0
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    continue
                for frame in frames:
                    rate = frame.sample_rate
                    told = at if frame.time is None else float(frame.time) - zero
                    # A clock of milliseconds rounds; what follows is played without a seam.
                    at = at if abs(told - at) < 0.003 else told
                    placed.append((at, plain(frame)))
                    at += frame.samples / rate
        except av.error.FFmpegError:
            pass
    length = max(round(at * rate) + len(samples) for at, samples in placed)
    wave = np.zeros(length, np.float64)
    for at, samples in placed:
        first = round(at * rate)
        wave[max(0, first) : first + len(samples)] = samples[max(0, -first) :]
    return wave, rate


def plain(frame):
    """Mean over the channels, full scale being 1."""
    channels = frame.layout.nb_channels
    values = frame.to_ndarray()
    values = values if frame.format.is_planar else values.reshape(-1, channels).T
    if values.dtype == np.uint8:
        return ((values.astype(np.float64) - 128) / 128).mean(0)
    if values.dtype.kind == "i":
        return (values.astype(np.float64) / -float(np.iinfo(values.dtype).min)).mean(0)
    return values.astype(np.float64).mean(0)

"""Small films and sounds whose every frame and moment says what it is, in the ways that files are made.

A picture carries its number in blocks that survive any codec, and a red corner that tells how it is turned;
a sound is a noise whose level and pitch change all the time, so that each moment differs from its neighbours.
"""

import os
import struct
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import soundfile

BITS = 8
QUIET = {"x265-params": "log-level=none"}


@dataclass(frozen=True, kw_only=True)
class Film:
    """How one film is made; times are in frames."""

    file: str
    codec: str = "libx264"
    frames: int = 50
    rate: Fraction = Fraction(25)
    key_every: int = 25
    b_frames: int = 0
    size: tuple = (64, 48)
    pixel: str = "yuv420p"
    steps: str = "even"
    """even: one frame after the other; uneven: some stand longer."""

    hole_s: float = 0.0
    start_s: float = 0.0
    """Added to all times of both tracks."""

    late_s: float = 0.0
    """The pictures start so much after the sound; negative: before it."""

    sound: str = ""
    """Codec of a mono track at 16 kHz."""

    matrix: tuple = ()
    aspect: str = ""
    fault: str = ""
    options: dict = field(default_factory=dict, hash=False)
    muxing: dict = field(default_factory=dict, hash=False)
    format: str = ""

    @property
    def ticks(self):
        """Presentation time of each frame [frames]."""
        extra = np.zeros(self.frames, int)
        if self.steps == "uneven":
            extra = np.cumsum(np.arange(self.frames) % 7 == 3) * 2 + np.cumsum(
                np.arange(self.frames) % 11 == 5
            )
        if self.hole_s:
            extra[self.frames // 2 :] += round(self.hole_s * self.rate)
        start = round((self.start_s + max(0.0, self.late_s)) * self.rate)
        return [start + k + int(extra[k]) for k in range(self.frames)]


def paint(number, size):
    """The picture of one frame."""
    width, height = size
    image = np.full((height, width, 3), 90, np.uint8)
    rows, columns = height * 2 // 3, width // BITS
    for bit in range(BITS):
        on = (number >> bit) & 1
        image[:rows, bit * columns : (bit + 1) * columns] = 235 if on else 20
    image[rows:, : width // 3] = (220, 30, 30)
    return image


def write_film(film, folder):
    """Write a film; the path."""
    path = folder / film.file
    options = {"g": str(film.key_every), **film.options}
    if film.codec in ("libx264", "libx265", "mpeg4", "mpeg2video", "mpeg1video", "msmpeg4"):
        options.setdefault("bf", str(film.b_frames))
    if film.codec == "libx264":
        options = {"preset": "ultrafast", "sc_threshold": "0", **options}
    if film.codec == "libx265":
        params = f"log-level=none:keyint={film.key_every}:bframes={film.b_frames}:scenecut=0"
        options |= {"preset": "ultrafast", "x265-params": params}
    if film.codec == "libsvtav1":
        options |= {"preset": "12"}
    if film.codec.startswith("libvpx"):
        options |= {"deadline": "realtime", "cpu-used": "8"}
    with av.open(str(path), "w", options=film.muxing, format=film.format or None) as out:
        video = out.add_stream(film.codec, rate=film.rate, options=options)
        video.width, video.height, video.pix_fmt = *film.size, film.pixel
        video.codec_context.time_base = 1 / film.rate
        if film.aspect:
            video.codec_context.sample_aspect_ratio = Fraction(film.aspect)
        if film.matrix:
            video.set_display_matrix(film.matrix)
        sound = out.add_stream(film.sound, rate=16000, layout="mono") if film.sound else None
        for number, tick in enumerate(film.ticks):
            frame = av.VideoFrame.from_ndarray(paint(number, film.size), format="rgb24")
            frame.pts, frame.time_base = tick, 1 / film.rate
            out.mux(_sound_free(video.encode(frame), film))
        out.mux(_sound_free(video.encode(None), film))
        if sound is not None:
            begin = round((film.start_s + max(0.0, -film.late_s)) * 16000)
            length = film.frames / film.rate
            _mux_sound(out, sound, noise(float(length), 16000, 1), begin, ())
    if hasattr(os, "sched_setscheduler"):
        # SVT-AV1 makes the calling thread of root a real-time one, and all its children after it.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    spoil(path, film.fault)
    return path


def _sound_free(packets, film):
    """Packets with the times that a fault wants."""
    for packet in packets:
        if film.fault == "no times":
            packet.pts = packet.dts = 0
    return packets


def spoil(path, fault):
    """Change the bytes of a file as recorders, networks and disks do."""
    if not fault:
        return
    content = bytearray(path.read_bytes())
    if fault.startswith("cut "):
        content = content[: int(len(content) * float(fault.split()[1]))]
    elif fault == "zero deltas":
        at = content.find(b"stts")
        entries = int.from_bytes(content[at + 8 : at + 12], "big")
        for k in range(entries):
            content[at + 16 + 8 * k : at + 20 + 8 * k] = bytes(4)
    elif fault == "twice":
        content = content * 2
    elif fault == "head lost":
        content = content[len(content) // 3 :]
    path.write_bytes(content)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """How one sound is made."""

    file: str
    codec: str = "pcm_s16le"
    rate_hz: int = 16000
    layout: str = "mono"
    seconds: float = 2.0
    hole_s: float = 0.0
    start_s: float = 0.0
    film_s: float = 0.0
    """Pictures beside it start here; 0: none."""

    by: str = "ffmpeg"
    """soundfile: written by it, `codec` being its subtype."""

    other_tracks: int = 0
    """Tracks of another sound before the one with the default mark."""

    fault: str = ""
    loud: float = 0.4
    format: str = ""


def noise(seconds, rate_hz, channels, seed=0, loud=0.4):
    """Smooth noise under a level that rises and falls [channels, samples]."""
    draw = np.random.default_rng(seed)
    count = round(seconds * rate_hz)
    raw = draw.standard_normal((channels, count + 16))
    smooth = np.stack([np.convolve(row, np.ones(16) / 4, "same")[:count] for row in raw])
    time_s = np.arange(count) / rate_hz
    level = 0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * time_s)
    wave = smooth * level
    # Each channel has a loudness of its own, as a voice that stands to one side.
    share = np.linspace(1.0, 0.4, channels)[:, None] if channels > 1 else 1.0
    return (wave / np.abs(wave).max() * loud * share).astype(np.float32)


def write_sound(sound, folder):
    """Write a sound; the path."""
    path = folder / sound.file
    if sound.by == "soundfile":
        channels = {"mono": 1, "stereo": 2}[sound.layout]
        wave = noise(sound.seconds, sound.rate_hz, channels, loud=sound.loud)
        soundfile.write(
            path, wave.T, sound.rate_hz, subtype=sound.codec, format=sound.format or None
        )
    else:
        options = {"strict": "experimental"}
        with av.open(str(path), "w", format=sound.format or None) as out:
            if sound.film_s:
                video = out.add_stream("mpeg4", rate=25)
                video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            streams = []
            for _ in range(sound.other_tracks + 1):
                stream = out.add_stream(
                    sound.codec, rate=sound.rate_hz, layout=sound.layout, options=options
                )
                stream.codec_context.bit_rate = 128_000
                stream.disposition = 0
                streams.append(stream)
            if sound.other_tracks:
                streams[-1].disposition = 1
            channels = streams[0].codec_context.layout.nb_channels
            if sound.film_s:
                for number in range(10):
                    frame = av.VideoFrame.from_ndarray(paint(number, (64, 48)), format="rgb24")
                    frame.pts, frame.time_base = round(sound.film_s * 25) + number, Fraction(1, 25)
                    out.mux(video.encode(frame))
                out.mux(video.encode(None))
            halves = (sound.seconds / 2, sound.hole_s) if sound.hole_s else ()
            for number, stream in enumerate(streams):
                wave = noise(sound.seconds, sound.rate_hz, channels, seed=len(streams) - 1 - number)
                wave = wave / 0.4 * sound.loud
                _mux_sound(out, stream, wave, round(sound.start_s * sound.rate_hz), halves)
    spoil_sound(path, sound.fault)
    return path


def _mux_sound(out, stream, wave, first, hole):
    codec = stream.codec_context
    size = codec.frame_size or 1024
    wave = np.atleast_2d(wave)
    convert = av.AudioResampler(
        format=codec.format.name, layout=codec.layout.name, rate=stream.rate
    )
    behind = round(hole[0] * stream.rate) // size * size if hole else 0
    for start in range(0, wave.shape[1], size):
        piece = np.ascontiguousarray(wave[:, start : start + size].T.reshape(1, -1), np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=codec.layout.name)
        frame.sample_rate = stream.rate
        late = round(hole[1] * stream.rate) if hole and start >= behind else 0
        for made in convert.resample(frame):
            made.pts, made.time_base = first + start + late, Fraction(1, stream.rate)
            out.mux(stream.encode(made))
    out.mux(stream.encode(None))


def spoil_sound(path, fault):
    """Faults of WAV headers, and those of `spoil`."""
    if not fault.startswith("wav "):
        spoil(path, fault)
        return
    content = bytearray(path.read_bytes())
    at = content.find(b"data")
    size = len(content) - at - 8
    what = fault.removeprefix("wav ")
    if what == "no length":
        content[at + 4 : at + 8] = bytes(4)
    elif what == "endless":
        content[4:8] = content[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    elif what == "too long":
        content[at + 4 : at + 8] = struct.pack("<I", size * 3)
    elif what == "chunks":
        odd = b"junk" + struct.pack("<I", 5) + b"12345\0" + b"LIST" + struct.pack("<I", 4) + b"INFO"
        content[at:at] = odd
        content += b"tail" + struct.pack("<I", 3) + b"abc\0"
        content[4:8] = struct.pack("<I", len(content) - 8)
    path.write_bytes(content)

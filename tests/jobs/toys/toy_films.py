"""Short real films and sounds of many formats, and broken ones, with a manifest written without `prepare`."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import soundfile

from cluster import storage, tables

UNIT = 4  # clips a unit
QUIET = {"x265-params": "log-level=none"}
FORMATS = {
    "h264.mp4": {},
    "4k.mp4": {"size": (3840, 2160), "seconds": 0.2},
    "hevc10.mp4": {"codec": "libx265", "pixel": "yuv420p10le", "options": QUIET},
    "phone.mp4": {"rotation": 90},
    "vp9.webm": {"codec": "libvpx-vp9", "sound": "libopus", "rate_hz": 48000},
    "av1.mp4": {"codec": "libsvtav1", "size": (160, 96)},
    "h264.mkv": {},
    "late.mp4": {"sound_start_s": 0.5, "rate_hz": 48000},
}


def write_film(
    path,
    *,
    codec="libx264",
    sound="aac",
    seconds=1.0,
    size=(160, 90),
    pixel="yuv420p",
    rate_hz=16000,
    sound_start_s=0.0,
    rotation=0,
    options=None,
):
    """A film of one grey that grows lighter, with a tone of 1 kHz."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options=options or {})
        video.width, video.height, video.pix_fmt = *size, pixel
        if rotation:
            video.set_display_rotation(rotation)
        audio = container.add_stream(sound, rate=rate_hz, layout="mono")
        for number in range(round(seconds * 25)):
            image = np.full((size[1], size[0], 3), 40 + 5 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        convert = av.AudioResampler(audio.codec_context.format.name, "mono", rate_hz)
        length = audio.codec_context.frame_size or 1024
        wave = tone(seconds, rate_hz)
        for start in range(0, len(wave), length):
            piece = np.ascontiguousarray(wave[None, start : start + length])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate = rate_hz
            for out in convert.resample(frame):
                out.pts = round(sound_start_s * rate_hz) + start
                out.time_base = Fraction(1, rate_hz)
                container.mux(audio.encode(out))
        container.mux(audio.encode(None))
    # SVT-AV1 makes the calling thread of root a real-time one, and all its children after it.
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def tone(seconds, rate_hz):
    wave = np.sin(2 * np.pi * 1000 * np.arange(round(seconds * rate_hz)) / rate_hz)
    return (0.3 * wave).astype(np.float32)


def write_healthy(folder):
    """Every format once and four sounds; name -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in FORMATS.items():
        write_film(folder / name, **options)
    for number in range(4):
        soundfile.write(folder / f"s{number}.flac", tone(0.5 + number / 4, 16000), 16000)
    return {path.name: path for path in sorted(folder.iterdir())}


def write_faulty(folder, healthy):
    """Files that cannot be read, or that are not what they are called; name -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    film = healthy["h264.mp4"].read_bytes()
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"dear diary, " * 300,
        "truncated.mp4": film[: len(film) // 2],
        "crash.mp4": film,  # the decoder's child ends on this name, hangs or leaks on those
        "hang.mp4": film,
        "leak.mp4": film,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in [*contents, "missing.mp4"]}


def write_damaged(folder, healthy, count):
    """Copies with random bytes at random places; name -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(3)
    originals = [healthy[name].read_bytes() for name in ("h264.mp4", "vp9.webm", "s1.flac")]
    paths = {}
    for number in range(count):
        content = bytearray(originals[number % 3])
        for place in draws.integers(len(content), size=draws.integers(1, 40)):
            content[place] = draws.integers(256)
        name = f"damaged{number}{('.mp4', '.webm', '.flac')[number % 3]}"
        (folder / name).write_bytes(content)
        paths[name] = folder / name
    return paths


def write_root(root, files):
    """A prepared dataset of these files, `UNIT` a unit, in the order given; a sound has no picture."""
    rows = []
    for number, (name, path) in enumerate(files.items()):
        source = {"uri": str(path), "offset": None, "size": None}
        rows.append(
            {
                "clip_id": number,
                "name": name,
                "unit": f"u{number // UNIT:05d}",
                "video": None if name.endswith(".flac") else source,
                "audio": source,
                "text": None,
                "duration_s": 1.0,
                "group": name,
                "cost": 0.1,
            }
        )
    table = tables.MANIFEST.conform(pa.Table.from_pylist(rows, tables.MANIFEST.schema))
    place = str(Path(root) / "manifest" / "films" / "part-00000.parquet")
    storage.publish_table(table, place, row_group_size=UNIT)
    facts = {"name": "films", "licence": "Apache-2.0", "manifest": "films", "tasks": {}}
    storage.publish_json({**facts, "profile": []}, str(Path(root) / "dataset.json"))
    return Path(root)

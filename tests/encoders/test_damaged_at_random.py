"""Hundreds of files that disks and networks have spoilt, through the decoder as the product runs it.

Each costs its own clip at most: it is read, read in part, or fails with a reason; the parent goes on.
"""

import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import MediaError
from encoders.media import ClipSource, Decoder, Source
from encoders.spec import FramePolicy, Needs

sys.path.insert(0, str(Path(__file__).parent / "matrix"))
from coded_media import Film, Sound, write_film, write_sound

CHANGED, CUT = 600, 300
POLICIES = frozenset(
    {FramePolicy(kind="even", count=4, size=48), FramePolicy(kind="fps", rate_hz=5.0, size=48)}
)
NEEDS = Needs(rates_hz=frozenset({16000}), frames=POLICIES)
FILMS = [
    Film(file="a.mp4", sound="aac", b_frames=2),
    Film(file="a.mp4", sound="aac", muxing={"movflags": "faststart"}),
    Film(file="a.mkv", sound="aac"),
    Film(file="a.webm", codec="libvpx-vp9"),
    Film(file="a.ts", sound="mp2"),
    Film(file="a.mpg", codec="mpeg2video", sound="mp2", b_frames=2),
    Film(file="a.avi", codec="mpeg4", sound="libmp3lame"),
    Film(file="a.flv"),
    Film(file="a.wmv", codec="wmv2"),
    Film(file="a.mp4", codec="libx265"),
    Film(file="a.gif", codec="gif", pixel="rgb8", frames=10),
]
SOUNDS = [
    Sound(file="a.wav"),
    Sound(file="a.flac", codec="flac"),
    Sound(file="a.mp3", codec="libmp3lame"),
    Sound(file="a.m4a", codec="aac"),
    Sound(file="a.opus", codec="libopus", rate_hz=48000),
    Sound(file="a.wma", codec="wmav2", rate_hz=44100),
    Sound(file="a.caf", by="soundfile", codec="PCM_16", format="CAF"),
]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """Contents of the files before they are damaged."""
    paths = [write_film(film, tmp_path_factory.mktemp("film")) for film in FILMS]
    paths += [write_sound(sound, tmp_path_factory.mktemp("sound")) for sound in SOUNDS]
    return [(path, path.read_bytes()) for path in paths]


def changed(content, draw):
    """Single bytes replaced, most often near the head where the structure is."""
    spoilt = bytearray(content)
    for _ in range(draw.integers(1, 40)):
        reach = len(spoilt) if draw.random() < 0.5 else min(len(spoilt), 2048)
        spoilt[draw.integers(reach)] = draw.integers(256)
    return bytes(spoilt)


def cut(content, draw):
    """A file that ends anywhere."""
    return content[: draw.integers(len(content))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("spoil", "count"), [(changed, CHANGED), (cut, CUT)])
def test_each_gives_one_answer_with_a_reason_and_nothing_stops(healthy, tmp_path, spoil, count):
    draw = np.random.default_rng(count)
    states = Counter()
    with Decoder(time_limit_s=30.0, time_limit_per_s=1.0) as decoder:
        alone = [read(decoder, path) for path, _ in healthy]
        descriptors = open_files()
        for number in range(count):
            path, content = healthy[number % len(healthy)]
            damaged = tmp_path / f"{number}{path.suffix}"
            damaged.write_bytes(spoil(content, draw))
            segment = (0.4, 1.3) if number % 5 == 4 else (None, None)
            states.update(read(decoder, damaged, *segment).values())
            damaged.unlink()
        assert states.total() == 2 * count
        assert set(states) <= {"ok", "partial", "failed"}
        assert states["ok"] + states["partial"] > count / 4
        assert [read(decoder, path) for path, _ in healthy] == alone
        # Other tests of this process open and close one or two; a leak would be one a damaged file.
        assert open_files() < descriptors + count / 20


def read(decoder, path, start_s=None, end_s=None):
    """Modality -> ok, partial or failed, as a row would say it; every other state is a fault of ours."""
    source = Source(str(path))
    clip = ClipSource(clip_id=1, video=source, audio=source, start_s=start_s, end_s=end_s)
    try:
        decoded = decoder.decode(clip, NEEDS)
    except MediaError as error:
        return dict.fromkeys(("audio", "video"), "failed" if error.detail else "failed silently")
    there = {"audio": decoded.clip.waveforms, "video": decoded.clip.frames}
    states = {}
    for modality, read_of_it in there.items():
        assert bool(read_of_it) != (modality in decoded.faults)
        if modality in decoded.faults:
            assert decoded.faults[modality].detail
            states[modality] = "failed"
        else:
            states[modality] = "partial" if decoded.partial.get(modality) else "ok"
    for wave in decoded.clip.waveforms.values():
        assert len(wave)
        assert np.isfinite(wave).all()
    for frames in decoded.clip.frames.values():
        assert len(frames.pixels) == len(frames.times_s) > 0
        assert np.isfinite(frames.times_s).all()
    return states


def open_files():
    """How many files this process holds open, where the system tells."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

"""What is read is what a player shows and plays: our readers against a slow referee, cell by cell.

A cell is one way to make a file and one way to read it. The referee decodes everything in order.
"""

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from encoders.media import ClipSource, Decoder, Source
from encoders.spec import FramePolicy, Needs

sys.path.insert(0, str(Path(__file__).parent / "matrix"))
import reference_reader
from coded_media import Film, Sound, write_film, write_sound

EVEN = FramePolicy(kind="even", count=4, size=48)
FPS = FramePolicy(kind="fps", rate_hz=10.0, size=48, max_frames=4096)
WINDOWS = FramePolicy(kind="windows", count=4, rate_hz=8.0, size=32, max_frames=4096)

NTSC = Fraction(30000, 1001)
M2TS = {"mpegts_m2ts_mode": "1"}
TURNS = {
    "90": (0, 1, 0, -1, 0, 0),
    "180": (-1, 0, 0, 0, -1, 0),
    "270": (0, -1, 0, 1, 0, 0),
    "mirrored": (-1, 0, 0, 0, 1, 0),
    "upside down": (1, 0, 0, 0, -1, 0),
    "mirrored and 90": (0, 1, 0, 1, 0, 0),
    "mirrored and 270": (0, -1, 0, -1, 0, 0),
}

PAIRS = [
    Film(file="a.mp4"),
    Film(file="a.mov"),
    Film(file="a.mkv"),
    Film(file="a.ts"),
    Film(file="a.m2ts", muxing=M2TS),
    Film(file="a.flv"),
    Film(file="a.avi"),
    Film(file="a.nut"),
    Film(file="a.mp4", codec="libx265"),
    Film(file="a.mkv", codec="libx265"),
    Film(file="a.ts", codec="libx265"),
    Film(file="a.mp4", codec="mpeg4"),
    Film(file="a.avi", codec="mpeg4"),
    Film(file="a.avi", codec="msmpeg4v2"),
    Film(file="a.avi", codec="mjpeg", pixel="yuvj420p"),
    Film(file="a.mkv", codec="mjpeg", pixel="yuvj420p"),
    Film(file="a.mkv", codec="ffv1"),
    Film(file="a.mov", codec="prores_ks", pixel="yuv422p10le"),
    Film(file="a.mpg", codec="mpeg2video"),
    Film(file="a.mpg", codec="mpeg1video"),
    Film(file="a.vob", codec="mpeg2video"),
    Film(file="a.ts", codec="mpeg2video"),
    Film(file="a.mxf", codec="mpeg2video"),
    Film(file="a.wmv", codec="wmv2"),
    Film(file="a.flv", codec="flv"),
    Film(file="a.3gp", codec="h263", size=(128, 96)),
    Film(file="a.webm", codec="libvpx"),
    Film(file="a.webm", codec="libvpx-vp9"),
    Film(file="a.mkv", codec="libvpx-vp9"),
    Film(file="a.ogv", codec="libvpx", format="ogg"),
]
WITH_B_FRAMES = ("libx264", "libx265", "mpeg4", "mpeg2video", "mpeg1video")
EVEN_ONLY = ("a.mxf", "a.3gp", "a.ogv")
"""Containers or codecs that have no place for frames of different length."""


def made_in_turn():
    """Every pair of container and codec with key frames, B-frames, steps, holes and clocks in turn."""
    keys, holes = (12, 1, 250, 5, 25), (0.0, 1.0, 0.0, 30.0, 0.0, 300.0)
    sounds = {".mp4": "aac", ".mkv": "aac", ".ts": "mp2", ".webm": "libopus", ".mpg": "mp2"}
    films = []
    for number, pair in enumerate(PAIRS):
        for turn in range(3):
            k = 3 * number + turn
            even = pair.file in EVEN_ONLY
            film = replace(
                pair,
                key_every=keys[k % 5],
                b_frames=2 * (k % 2) if pair.codec in WITH_B_FRAMES else 0,
                steps="even" if even or k % 3 else "uneven",
                hole_s=0.0 if even else holes[(k + turn) % 6],
                rate=NTSC if k % 4 == 3 and pair.codec != "h263" else Fraction(25),
            )
            sound = sounds.get(Path(pair.file).suffix, "")
            if turn == 1 and sound and sound != "libopus":
                film = replace(film, sound=sound, late_s=(0.4, -0.4)[k % 2])
            if turn == 2 and pair.file in ("a.mkv", "a.ts", "a.m2ts", "a.mp4", "a.webm"):
                film = replace(film, start_s=2.4)
            films.append(film)
    return films


GEOMETRY = [
    *(
        Film(file=file, codec=codec, matrix=(*(n << 16 for n in turn), 0, 0, 1 << 30))
        for turn in TURNS.values()
        for file, codec in (("a.mp4", "libx264"), ("a.mov", "mpeg4"))
    ),
    *(
        Film(file=file, codec=codec, aspect=aspect)
        for file, codec, aspect in (
            ("a.mp4", "libx264", "4/3"),
            ("a.mkv", "libx264", "1/2"),
            ("a.mpg", "mpeg2video", "12/11"),
            ("a.webm", "libvpx-vp9", "2/1"),
            ("a.ts", "libx264", "16/11"),
        )
    ),
    Film(file="a.mp4", aspect="3/2", matrix=(0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)),
    Film(file="a.mp4", size=(62, 46)),
    Film(file="a.mkv", codec="ffv1", size=(67, 49)),
    Film(file="a.mkv", codec="libx265", size=(67, 49), pixel="yuv444p"),
    Film(file="a.mp4", codec="libx265", pixel="yuv420p10le"),
    Film(file="a.mkv", pixel="yuv420p10le", b_frames=2),
    Film(file="a.mp4", codec="libsvtav1", size=(64, 64), frames=30),
    Film(file="a.gif", codec="gif", pixel="rgb8", rate=Fraction(10), frames=20),
    Film(file="a.apng", codec="apng", pixel="rgb24", frames=20, format="apng"),
]

FAULTS = [
    Film(file="a.mp4", fault="zero deltas"),
    Film(file="a.mkv", fault="no times"),
    Film(file="a.h264", format="h264", fault="raw"),
    Film(file="a.hevc", codec="libx265", format="hevc", fault="raw"),
    Film(file="a.m2v", codec="mpeg2video", format="mpeg2video"),
    Film(file="a.m4v", codec="mpeg4", format="m4v"),
    Film(file="a.ts", fault="twice"),
    Film(file="a.ts", fault="head lost", key_every=10),
    Film(file="a.mpg", codec="mpeg2video", fault="head lost", key_every=10),
    Film(file="a.mkv", fault="cut 0.6"),
    Film(file="a.mp4", fault="cut 0.6", muxing={"movflags": "faststart"}),
    Film(file="a.mp4", fault="cut 0.6", muxing={"movflags": "frag_keyframe"}, key_every=5),
    Film(file="a.avi", codec="mjpeg", pixel="yuvj420p", fault="cut 0.6"),
    Film(file="a.flv", fault="cut 0.6"),
    Film(file="a.webm", codec="libvpx-vp9", fault="cut 0.6"),
    Film(file="a.wmv", codec="wmv2", fault="cut 0.6"),
]
TELLS = ("zero deltas", "raw", "no times", "twice", "cut 0.6")
"""Faults that a row has to speak of; of others a file shows no sign."""

FILMS = [*made_in_turn(), *GEOMETRY, *FAULTS]
WAYS = [("whole", EVEN), ("whole", FPS), ("segment", EVEN), ("segment", FPS)]
FILM_CELLS = [(film, *way) for film in FILMS for way in WAYS] + [
    (film, part, WINDOWS) for film in FILMS[::7] for part in ("whole", "segment")
]


def label(film):
    """A film as the name of a test."""
    plain = Film(file=film.file)
    extra = [
        f"{name}={value}"
        for name, value in vars(film).items()
        if name not in ("file", "muxing", "format") and value != getattr(plain, name)
    ]
    return " ".join([film.file, *extra])


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


@pytest.fixture(scope="module")
def film_of(tmp_path_factory):
    """Film -> its path and the referee's reading of it, made once."""
    made = {}

    def make(film):
        key = label(film)
        if key not in made:
            path = write_film(film, tmp_path_factory.mktemp("film"))
            made[key] = path, reference_reader.pictures(path)
        return made[key]

    return make


def segment_of(shown):
    """A stretch that begins between two frames, in the second half of the film and inside of it."""
    count = len(shown.times_s)
    first, last = shown.times_s[count * 5 // 9], shown.times_s[min(count - 2, count * 8 // 9)]
    return round(float(first) + 0.011, 3), round(float(last) + 0.013, 3)


def nearest(image, shown, expected):
    """Number of the referee's picture that an image is, and how much it differs from it.

    Where several are equal to the eye it is the one that was expected.
    """
    if shown.thumbs is None:
        shown.thumbs = np.stack([thumb(each) for each in shown.images])
    apart = np.abs(shown.thumbs - thumb(image)).mean((1, 2, 3))
    alike = np.flatnonzero(apart <= apart.min() + 0.5)
    return int(alike[np.abs(alike - expected).argmin()]), float(apart.min())


def thumb(image):
    """Sixteen by sixteen means of a picture."""
    rows = np.linspace(0, image.shape[0] - 1e-3, 49).astype(int)[:-1]
    columns = np.linspace(0, image.shape[1] - 1e-3, 49).astype(int)[:-1]
    square = image[rows][:, columns].astype(np.float32)
    return square.reshape(16, 3, 16, 3, 3).mean((1, 3))


def wanted_times(policy, low, high):
    """The times that a policy asks for."""
    length = high - low
    if policy.kind == "even":
        return [low + (k + 0.5) * length / policy.count for k in range(policy.count)]
    count = max(1, int(np.ceil(length * policy.rate_hz - 1e-6)))
    if count > policy.max_frames:
        return [low + k * length / policy.max_frames for k in range(policy.max_frames)]
    return [low + k / policy.rate_hz for k in range(count)]


def in_turn(cells, name):
    """Cells as parameters: every third film is read in `make test`, all of them in `make test-slow`."""
    whole = list(dict.fromkeys(name(cell[0]) for cell in cells))
    return [
        pytest.param(
            *cell,
            id=" ".join([name(cell[0]), *(getattr(part, "kind", part) for part in cell[1:])]),
            marks=[] if whole.index(name(cell[0])) % 3 == 0 else pytest.mark.slow,
        )
        for cell in cells
    ]


@pytest.mark.parametrize(("film", "part", "policy"), in_turn(FILM_CELLS, label))
def test_frames_are_those_of_their_times(decoder, film_of, film, part, policy):
    path, shown = film_of(film)
    start_s, end_s = (None, None) if part == "whole" else segment_of(shown)
    decoded = decoder.decode(
        ClipSource(clip_id=1, video=Source(str(path)), start_s=start_s, end_s=end_s),
        Needs(frames=frozenset({policy})),
    )
    assert not decoded.faults
    tells = film.fault in TELLS and (part == "whole" or not film.fault.startswith("cut"))
    assert bool(decoded.partial) == tells or film.fault.startswith("cut"), decoded.partial
    assert bool(decoded.partial) or not tells
    frames = decoded.clip.frames[policy]
    usual_s = float(np.median(np.diff(shown.times_s))) + 2e-3
    high, wide = shown.images[0].shape[:2]
    ours_high, ours_wide = frames.pixels.shape[1:3]
    assert ours_wide / ours_high == pytest.approx(wide / high, rel=0.05)
    seen = []
    for image, time_s in zip(frames.pixels, frames.times_s, strict=True):
        here_s = time_s + (start_s or 0.0)
        on_screen = shown.at(here_s)
        number, apart = nearest(image, shown, on_screen)
        assert apart < 14
        assert abs(shown.times_s[number] - shown.times_s[on_screen]) <= usual_s
        if start_s is None or time_s > 0:
            assert abs(shown.times_s[number] - here_s) <= usual_s
        seen.append(number)
    low = max(shown.times_s[0], 0.0) if start_s is None else start_s
    high_s = shown.end_s if end_s is None else end_s
    if not film.fault.startswith(("cut", "head")):
        wanted = [shown.at(time_s) for time_s in wanted_times(policy, low, high_s)]
        # Where the file's own clock stands still for a frame, its neighbours share a time.
        near = 1 + bool((np.diff(shown.times_s) == 0).any())
        for number in wanted:
            assert min(abs(number - other) for other in seen) <= near
        if policy.kind == "even":
            assert len(seen) == policy.count
        if policy.kind == "fps":
            assert abs(len(set(wanted)) - len(seen)) <= 1


@pytest.mark.parametrize("film", [PAIRS[0], PAIRS[2], PAIRS[8], PAIRS[27]], ids=label)
def test_decord_sees_the_same_pixels(decoder, film_of, film):
    """A reader that shares no code with FFmpeg's newer libraries is a second referee."""
    decord = pytest.importorskip("decord", reason="decord has no wheel for this platform")
    path, _ = film_of(film)
    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    policy = FramePolicy(kind="even", count=6, size=48)
    source = ClipSource(clip_id=1, video=Source(str(path)))
    pixels = decoder.decode(source, Needs(frames=frozenset({policy}))).clip.frames[policy].pixels
    wanted = [int((k + 0.5) * len(reader) / 6) for k in range(6)]
    np.testing.assert_array_equal(pixels, reader.get_batch(wanted).asnumpy())


SOUNDS = [
    *(
        Sound(file="a.wav", by="soundfile", codec=codec, layout=layout)
        for codec in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW")
        for layout in ("mono", "stereo")
    ),
    *(
        Sound(file="a.wav", by="soundfile", codec=codec)
        for codec in ("IMA_ADPCM", "MS_ADPCM", "GSM610")
    ),
    *(
        Sound(file=file, by="soundfile", codec=codec, format=kind, layout="stereo")
        for file, codec, kind in (
            ("a.wav", "PCM_16", "WAVEX"),
            ("a.wav", "FLOAT", "WAVEX"),
            ("a.wav", "PCM_16", "RF64"),
            ("a.w64", "PCM_24", "W64"),
            ("a.aiff", "PCM_16", "AIFF"),
            ("a.aiff", "PCM_24", "AIFF"),
            ("a.caf", "PCM_16", "CAF"),
            ("a.caf", "FLOAT", "CAF"),
            ("a.au", "PCM_16", "AU"),
            ("a.flac", "PCM_16", "FLAC"),
            ("a.flac", "PCM_24", "FLAC"),
            ("a.ogg", "VORBIS", "OGG"),
        )
    ),
    *(
        Sound(file=file, codec=codec, rate_hz=rate, layout=layout)
        for file, codec, rate, layout in (
            ("a.mp3", "libmp3lame", 44100, "stereo"),
            ("a.mp3", "libmp3lame", 16000, "mono"),
            ("a.aac", "aac", 44100, "stereo"),
            ("a.m4a", "aac", 48000, "5.1"),
            ("a.m4a", "alac", 44100, "stereo"),
            ("a.opus", "libopus", 48000, "stereo"),
            ("a.webm", "libopus", 48000, "mono"),
            ("a.mka", "flac", 48000, "7.1"),
            ("a.wav", "pcm_s16le", 16000, "7.1"),
            ("a.wav", "pcm_s24le", 16000, "5.1"),
            ("a.mkv", "pcm_s16le", 16000, "5.1"),
            ("a.mov", "pcm_s24le", 48000, "stereo"),
            ("a.ac3", "ac3", 48000, "5.1"),
            ("a.mkv", "eac3", 48000, "5.1"),
            ("a.vob", "ac3", 48000, "stereo"),
            ("a.mp2", "mp2", 48000, "stereo"),
            ("a.mpg", "mp2", 48000, "mono"),
            ("a.ts", "aac", 48000, "stereo"),
            ("a.m2ts", "ac3", 48000, "stereo"),
            ("a.flv", "aac", 44100, "stereo"),
            ("a.wma", "wmav2", 44100, "stereo"),
            ("a.amr", "libopencore_amrnb", 8000, "mono"),
            ("a.wv", "wavpack", 16000, "stereo"),
            ("a.avi", "libmp3lame", 44100, "mono"),
        )
    ),
    *(
        Sound(file=file, codec=codec, rate_hz=rate, hole_s=hole_s)
        for hole_s in (1.0, 40.0, 300.0)
        for file, codec, rate in (
            ("a.mkv", "pcm_s16le", 16000),
            ("a.mp4", "aac", 48000),
            ("a.ts", "aac", 48000),
            ("a.webm", "libopus", 48000),
            ("a.flv", "aac", 44100),
        )
    ),
    *(
        Sound(file=file, codec=codec, rate_hz=48000, start_s=start_s, film_s=film_s)
        for start_s, film_s in ((0.7, 0.04), (0.0, 1.0), (2.5, 2.5))
        for file, codec in (("a.mp4", "aac"), ("a.mkv", "flac"), ("a.ts", "mp2"))
    ),
    *(
        Sound(file=file, codec=codec, rate_hz=48000, other_tracks=others)
        for others in (1, 2)
        for file, codec in (("a.mkv", "flac"), ("a.mp4", "aac"))
    ),
    *(
        Sound(file="a.wav", by="soundfile", codec=codec, fault=f"wav {fault}")
        for codec in ("PCM_16", "PCM_24", "FLOAT", "ULAW")
        for fault in ("no length", "endless", "too long", "chunks")
    ),
    *(
        Sound(file=file, by="soundfile", codec=codec, fault="cut 0.6", format=kind)
        for file, codec, kind in (
            ("a.wav", "PCM_16", "WAV"),
            ("a.w64", "PCM_16", "W64"),
            ("a.aiff", "PCM_16", "AIFF"),
            ("a.caf", "PCM_16", "CAF"),
            ("a.au", "PCM_16", "AU"),
            ("a.flac", "PCM_16", "FLAC"),
        )
    ),
    *(
        Sound(file=file, codec=codec, rate_hz=44100, layout="stereo", fault="cut 0.6")
        for file, codec in (
            ("a.mka", "aac"),
            ("a.mp3", "libmp3lame"),
            ("a.wma", "wmav2"),
            ("a.flv", "aac"),
        )
    ),
]
SOUND_TELLS = ("cut 0.6", "wav too long")
PARTS = {"whole": (None, None), "early": (0.3, 0.9), "late": (1.31, 1.87)}
SOUND_CELLS = [(sound, part) for sound in SOUNDS for part in PARTS]


@pytest.fixture(scope="module")
def sound_of(tmp_path_factory):
    """Sound -> its path and the referee's reading of it, made once."""
    made = {}

    def make(sound):
        if sound not in made:
            path = write_sound(sound, tmp_path_factory.mktemp("sound"))
            made[sound] = path, *reference_reader.sound(path)
        return made[sound]

    return make


def sound_label(sound):
    """A sound as the name of a test."""
    plain = Sound(file=sound.file)
    return " ".join(
        [sound.file]
        + [f"{k}={v}" for k, v in vars(sound).items() if k != "file" and v != getattr(plain, k)]
    )


@pytest.mark.parametrize(("sound", "part"), in_turn(SOUND_CELLS, sound_label))
def test_samples_lie_at_their_times_and_level(decoder, sound_of, sound, part):
    path, wave, rate = sound_of(sound)
    start_s, end_s = PARTS[part]
    if start_s is not None:
        behind = sound.hole_s + max(0.0, sound.start_s - 0.2) * (sound.film_s < 1)
        start_s, end_s = start_s + behind * (part == "late" or not sound.hole_s), end_s + behind
    if sound.fault == "cut 0.6" and part == "late":
        start_s, end_s = 0.5, 1.0
    decoded = decoder.decode(
        ClipSource(clip_id=1, audio=Source(str(path)), start_s=start_s, end_s=end_s),
        Needs(rates_hz=frozenset({rate})),
    )
    assert not decoded.faults
    if part == "whole":
        assert bool(decoded.partial) == (sound.fault in SOUND_TELLS), decoded.partial
    clip = decoded.clip
    first = round((clip.audio_start_s + (start_s or 0.0)) * rate)
    came = clip.waveforms[rate]
    expected = wave[first:] if end_s is None else wave[first : round(end_s * rate)]
    assert abs(len(came) - len(expected)) <= 0.005 * rate + 1
    if start_s is None:
        assert not np.abs(wave[: max(0, first - rate // 200)]).any()
    assert_same_sound(came, expected, rate)


def assert_same_sound(came, expected, rate):
    """Each tenth of a second is found within 5 ms of its place, as loud as it should be."""
    reach, size = round(0.005 * rate), round(0.1 * rate)
    length = min(len(came), len(expected))
    stops = range(reach, max(reach + 1, length - size - reach), size)
    for at in [*stops][:200] + [*stops][-20:]:
        window = expected[at : at + size]
        level = np.sqrt((window**2).mean())
        if level < 1e-3:
            assert np.sqrt((came[at + reach : at + size - reach] ** 2).mean()) < 0.02
            continue
        lags = sorted(range(-reach, reach + 1), key=abs)
        apart = (
            np.sqrt(((came[at + lag : at + lag + len(window)] - window) ** 2).mean())
            for lag in lags
            if at + lag + len(window) <= len(came)
        )
        assert any(difference < 0.12 * level + 1e-4 for difference in apart)
        there = came[at : at + size]
        assert np.sqrt((there**2).mean()) == pytest.approx(level, rel=0.2, abs=2e-3)


def test_the_matrix_is_as_large_as_it_says():
    assert len(FILM_CELLS) >= 400
    assert len(SOUND_CELLS) >= 200
    assert len({label(film) for film in FILMS}) == len(FILMS)
    assert len(set(SOUNDS)) == len(SOUNDS)

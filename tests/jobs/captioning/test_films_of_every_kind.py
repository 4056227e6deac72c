"""Films as cameras, editors and networks make them: each is annotated whole, and plays as it did before."""

import socket
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "encoders" / "matrix"))

from coded_media import Film, Sound, write_film, write_sound

from cluster import storage
from cluster.errors import ConfigError
from encoders.decoding import tracks
from encoders.media import ClipSource, Decoder, Source, probe
from encoders.spec import FramePolicy, Needs
from jobs import annotate
from jobs.annotate import Config

RATE_HZ = 16000
QUARTER_TURN = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
HALF_TURN = (-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30)
MIRROR = (-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
FILMS = {
    "turned by a quarter": Film(file="c.mp4", matrix=QUARTER_TURN, sound="aac"),
    "turned by a half": Film(file="c.mp4", matrix=HALF_TURN, sound="aac"),
    "mirrored": Film(file="c.mp4", matrix=MIRROR, sound="aac"),
    "variable rate": Film(file="c.mp4", steps="uneven", sound="aac"),
    "variable rate, out of order": Film(file="c.mkv", steps="uneven", b_frames=2, sound="aac"),
    "a hole": Film(file="c.mkv", hole_s=1.0, sound="aac"),
    "odd size": Film(file="c.mkv", codec="ffv1", size=(63, 47), sound="aac"),
    "wide pixels": Film(file="c.mp4", aspect="4/3", sound="aac"),
    "high pixels": Film(file="c.mkv", aspect="5/7", sound="aac"),
    "wide pixels, turned": Film(file="c.mp4", aspect="4/3", matrix=QUARTER_TURN, sound="aac"),
    "PCM": Film(file="c.mov", sound="pcm_s16le"),
    "FLAC": Film(file="c.mkv", sound="flac"),
    "Opus": Film(file="c.webm", codec="libvpx", sound="libopus"),
    "MP3": Film(file="c.mp4", sound="libmp3lame"),
    "MP2 in a programme stream": Film(file="c.mpg", codec="mpeg2video", sound="mp2"),
    "AAC in a transport stream": Film(file="c.ts", start_s=5.0, sound="aac"),
    "a clock that starts late": Film(file="c.mkv", start_s=5.0, sound="aac"),
    "pictures after the sound": Film(file="c.mov", late_s=0.6, sound="pcm_s16le"),
    "sound after the pictures": Film(file="c.mkv", late_s=-0.6, sound="aac"),
    "frames without times": Film(file="c.avi", codec="mpeg4", b_frames=2, sound="pcm_s16le"),
    "frames with one time": Film(file="c.mp4", fault="zero deltas", sound="aac"),
    "no sound": Film(file="c.mp4"),
    "two frames a second": Film(file="c.mp4", rate=Fraction(2), frames=6, sound="aac"),
    "ten bits": Film(file="c.mp4", codec="libx265", pixel="yuv420p10le", sound="aac"),
    "an animation": Film(file="c.gif", codec="gif", pixel="rgb8", rate=Fraction(10)),
    "an image": Film(
        file="c.png", codec="png", pixel="rgb24", frames=1, format="image2", muxing={"update": "1"}
    ),
}
QUICK = ("turned by a quarter", "variable rate", "PCM")
"""Those of every run; the others are slow."""


@pytest.fixture(scope="module")
def bundle(toys, tmp_path_factory):
    root = tmp_path_factory.mktemp("bundle")
    toys.bundle.write_bundle(root)
    return str(root / "bundles" / "b")


def annotated(clip, bundle):
    annotate.main(Config(clip=str(clip), bundle=bundle))
    return clip.with_suffix(".annotated.mp4")


def times_of(path):
    """When each frame is shown [s]."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def heard(path):
    """The sound at its times, silent around it [sample]."""
    with av.open(str(path)) as container:
        zero_s = tracks.zero_s(container)
        convert = av.AudioResampler("flt", "mono", RATE_HZ)
        wave = np.zeros(12 * RATE_HZ, np.float32)
        end = 0
        for frame in container.decode(container.streams.audio[0]):
            at = round((frame.time - zero_s) * RATE_HZ)
            frame.pts = None
            for block in convert.resample(frame):
                samples = block.to_ndarray()[0]
                begin = max(at, 0)
                wave[begin : begin + len(samples)] = samples
                at = end = begin + len(samples)
    return wave[:end]


@pytest.fixture(scope="module")
def first_picture():
    """Reads the first picture of a film as the encoders see it [height width 3]."""
    needs = Needs(frames=frozenset({FramePolicy(kind="even", count=4, size=48)}))
    with Decoder() as decoder:

        def read(path):
            decoded = decoder.decode(ClipSource(clip_id=1, video=Source(str(path))), needs)
            (frames,) = decoded.clip.frames.values()
            return frames.pixels[0].astype(float)

        yield read


def apart(one, other):
    return np.abs(one - other).mean()


@pytest.mark.parametrize(
    "kind",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FILMS],
)
def test_length_pictures_and_sound_stay_what_they_were(kind, bundle, first_picture, tmp_path):
    film = FILMS[kind]
    frame_s = float(1 / film.rate)
    clip = write_film(film, tmp_path)
    shown = annotated(clip, bundle)

    before, after = probe(str(clip)), probe(str(shown))
    assert after.duration_s == pytest.approx(before.duration_s or frame_s, abs=frame_s + 0.002)
    ticks = np.array(film.ticks) if film.fault == "" else np.arange(film.frames)
    found = np.array(times_of(shown))
    assert len(found) == film.frames
    assert np.abs((found - found[0]) - (ticks - ticks[0]) * frame_s).max() < 0.002

    small, large = first_picture(clip), first_picture(shown)
    scale = small.shape[1] / large.shape[1]
    assert large.shape[0] * scale > small.shape[0]  # the caption stands below
    height, width = large.shape[:2]
    rows = (np.arange(small.shape[0]) / scale).astype(int).clip(0, height - 1)
    columns = (np.arange(small.shape[1]) / scale).astype(int).clip(0, width - 1)
    assert apart(large[rows][:, columns], small) < 25
    assert apart(large[rows][:, columns[::-1]], small) > 2 * apart(large[rows][:, columns], small)

    assert after.has_audio is before.has_audio
    if before.has_audio:
        mine, theirs = heard(clip), heard(shown)
        assert abs(len(mine) - len(theirs)) <= max(frame_s, 0.04) * RATE_HZ
        shared = min(len(mine), len(theirs))
        around = np.pad(theirs[:shared], RATE_HZ // 25)
        likeness = np.correlate(around, mine[:shared], "valid")
        assert abs(int(likeness.argmax()) - RATE_HZ // 25) <= RATE_HZ // 50
        assert likeness.max() > 0.9 * np.sqrt((mine**2).sum() * (theirs**2).sum())


@pytest.mark.slow
def test_a_clock_that_starts_again_goes_on(bundle, tmp_path):
    clip = write_film(Film(file="c.ts", sound="aac", fault="twice"), tmp_path)
    shown = annotated(clip, bundle)
    found = np.array(times_of(shown))
    assert len(found) == 100
    assert np.diff(found).min() > 0.03
    assert len(heard(shown)) > 1.9 * len(
        heard(write_film(Film(file="d.ts", sound="aac"), tmp_path))
    )


@pytest.mark.slow
def test_a_hole_in_the_sound_stays_one(bundle, tmp_path):
    sound = Sound(file="c.mkv", codec="pcm_s16le", film_s=0.04, hole_s=1.0)
    clip = write_sound(sound, tmp_path)
    mine, theirs = heard(clip), heard(annotated(clip, bundle))
    assert len(theirs) == pytest.approx(len(mine), abs=0.05 * RATE_HZ)


def test_what_a_playlist_names_is_not_fetched(bundle, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        clip = tmp_path / "c.mp4"
        place = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        clip.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{place}\n#EXT-X-ENDLIST\n")
        with pytest.raises(ConfigError, match=r"c\.mp4"):
            annotated(clip, bundle)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody waits to be answered
            server.accept()
    assert storage.names(str(tmp_path)) == ["c.mp4"]

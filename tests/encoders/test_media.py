"""Decoding: what comes out of good files, and that a bad one costs one clip."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from encoders.media import ClipSource, Decoder, Source
from encoders.spec import FramePolicy, Needs

FPS = FramePolicy(kind="fps", rate_hz=5.0, size=64)
EVEN = FramePolicy(kind="even", count=8, size=64)
WINDOWS = FramePolicy(kind="windows", count=8, rate_hz=10.0, size=48)
NEEDS = Needs(rates_hz=frozenset({16000}), frames=frozenset({FPS}))
SOUND = Needs(rates_hz=frozenset({16000}))
ROOT = Path(__file__).resolve().parents[2]


def clip(path, clip_id=1, **fields):
    source = Source(str(path))
    return ClipSource(clip_id=clip_id, **{"video": source, "audio": source, **fields})


def shade(number):
    return 20 + number * 4 % 220


def tone(seconds, rate_hz):
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(
        np.float32
    )


def write_clip(
    path,
    *,
    codec="libx264",
    sound="aac",
    seconds=2.0,
    rate_hz=25,
    size=(160, 90),
    pixel="yuv420p",
    sample_rate=16000,
    sound_start_s=0.0,
    rotation=0,
    variable=False,
    faststart=False,
    options=None,
):
    """A real file: the grey of every frame is its number, its red corner says which way is up."""
    container = av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {})
    video = audio = None
    if codec:
        video = container.add_stream(codec, rate=rate_hz, options=options or {})
        video.width, video.height, video.pix_fmt = *size, pixel
        video.codec_context.time_base = Fraction(1, rate_hz)
        if rotation:
            video.set_display_rotation(rotation)
    if sound:
        audio = container.add_stream(sound, rate=sample_rate, layout="mono")
    for number in range(round(seconds * rate_hz) if video else 0):
        image = np.full((size[1], size[0], 3), shade(number), np.uint8)
        image[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = number + (number // 10) ** 2 if variable else number
        container.mux(video.encode(frame))
    if video:
        container.mux(video.encode(None))
    if audio:
        write_sound(
            container, audio, tone(seconds, sample_rate), round(sound_start_s * sample_rate)
        )
    container.close()
    return path


def write_sound(container, stream, samples, first):
    size = stream.codec_context.frame_size or 1024
    convert = av.AudioResampler(
        format=stream.codec_context.format.name, layout="mono", rate=stream.rate
    )
    for start in range(0, len(samples), size):
        piece = np.ascontiguousarray(samples[None, start : start + size])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = stream.rate, None
        for out in convert.resample(frame):
            out.pts, out.time_base = first + start, Fraction(1, stream.rate)
            container.mux(stream.encode(out))
    container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("media") / "good.mp4")


def assert_same(one, other):
    """The same clip was read, within what a lossy codec's warm-up changes."""
    assert not one.faults
    assert not other.faults
    for rate, samples in one.clip.waveforms.items():
        np.testing.assert_allclose(samples, other.clip.waveforms[rate], atol=2e-3)
    for policy, frames in one.clip.frames.items():
        np.testing.assert_array_equal(frames.pixels, other.clip.frames[policy].pixels)
        np.testing.assert_allclose(frames.times_s, other.clip.frames[policy].times_s)


class TestWhatComesOut:
    def test_sound_and_frames_of_one_clip_come_from_one_call(self, decoder, good):
        decoded = decoder.decode(clip(good), NEEDS)
        assert not decoded.faults
        assert not decoded.partial
        samples = decoded.clip.waveforms[16000]
        assert abs(len(samples) - 32000) < 2100  # a codec frame more or less
        assert np.abs(np.fft.rfft(samples[4000:20000])).argmax() == 440
        frames = decoded.clip.frames[FPS]
        assert frames.pixels.shape == (10, 64, 114, 3)
        np.testing.assert_allclose(frames.times_s, np.arange(10) / 5, atol=1e-3)
        greys = [int(image[-5, -5, 0]) for image in frames.pixels]
        assert greys == pytest.approx([shade(5 * k) for k in range(10)], abs=4)

    def test_text_alone_starts_no_process(self):
        with Decoder() as decoder:
            source = ClipSource(clip_id=7, text="hello", duration_s=1.5)
            assert decoder.decode(source, Needs(text=True)).clip.text == "hello"
            assert decoder.pid is None

    def test_a_missing_modality_is_absent_without_a_fault(self, decoder):
        decoded = decoder.decode(ClipSource(clip_id=7, text="hello"), NEEDS)
        assert not decoded.faults
        assert not decoded.clip.waveforms
        assert not decoded.clip.frames

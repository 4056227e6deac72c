"""Decoding: what comes out of good files, and that a bad one costs one clip."""

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from cluster.errors import Fault, MediaError
from encoders.decoding import pictures
from encoders.decoding.frames import read_frames
from encoders.decoding.sources import staged
from encoders.media import ClipSource, Decoder, Source, probe
from encoders.spec import FramePolicy, Needs

FPS = FramePolicy(kind="fps", rate_hz=5.0, size=64)
EVEN = FramePolicy(kind="even", count=8, size=64)
WINDOWS = FramePolicy(kind="windows", count=8, rate_hz=10.0, size=48)
NEEDS = Needs(rates_hz=frozenset({16000}), frames=frozenset({FPS}))
FILM = Needs(frames=frozenset({FPS}))
SOUND = Needs(rates_hz=frozenset({16000}))
ROOT = Path(__file__).resolve().parents[2]


def clip(path, clip_id=1, **fields):
    source = Source(str(path))
    return ClipSource(clip_id=clip_id, **{"video": source, "audio": source, **fields})


def shade(number):
    return 20 + number * 4 % 220


def tone(seconds, rate_hz, pitch_hz=440):
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * pitch_hz * times_s)).astype(np.float32)


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
    # SVT-AV1 makes the calling thread of root a real-time one, and all its children after it.
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
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


QUIET = {"x265-params": "log-level=none"}

FORMATS = {
    "h264 in MKV": ("a.mkv", {}),
    "10-bit HEVC": ("b.mp4", {"codec": "libx265", "pixel": "yuv420p10le", "options": QUIET}),
    "VP9 and Opus": ("c.webm", {"codec": "libvpx-vp9", "sound": "libopus", "sample_rate": 48000}),
    "AV1": ("d.mp4", {"codec": "libsvtav1", "size": (160, 96)}),
    "MPEG-4 in AVI": ("e.avi", {"codec": "mpeg4", "sound": "libmp3lame", "sample_rate": 44100}),
    "H.264 in a transport stream": ("f.ts", {"sample_rate": 48000}),
}


class TestFormats:
    @pytest.mark.parametrize("name", FORMATS)
    def test_each_gives_its_frames_and_its_tone(self, decoder, tmp_path, name):
        file, options = FORMATS[name]
        path = write_clip(tmp_path / file, **options)
        decoded = decoder.decode(clip(path), NEEDS)
        assert not decoded.faults
        assert not decoded.partial
        pixels = decoded.clip.frames[FPS].pixels
        # AVI has no place for times: its first frame stands twice as long.
        assert [int(image[-5, -5, 0]) for image in pixels][:10] == pytest.approx(
            [shade(5 * k) for k in range(10)], abs=10
        )
        samples = decoded.clip.waveforms[16000]
        assert np.abs(np.fft.rfft(samples[4000:20000])).argmax() == pytest.approx(440, abs=1)

    def test_rotation_is_applied_by_both_decoders(self, decoder, tmp_path):
        sparse = Needs(frames=frozenset({FramePolicy(kind="even", count=2, size=64)}))
        corners = {90: (-5, 5), 180: (-5, -5), 270: (5, -5)}
        for angle, corner in corners.items():
            path = write_clip(tmp_path / f"{angle}.mp4", rotation=angle)
            for needs in (NEEDS, sparse):
                [frames] = decoder.decode(clip(path), needs).clip.frames.values()
                upright = frames.pixels.shape[1] > frames.pixels.shape[2]
                assert upright == (angle != 180)
                red = frames.pixels[0][corner]
                assert red[0] > 200
                assert red[1] < 60
            seen = decoder.probe(Source(str(path)))
            assert (seen.width, seen.height, seen.rotation) == (
                *((160, 90) if angle == 180 else (90, 160)),
                angle,
            )

    def test_a_picture_with_an_orientation_in_its_exif_is_shown_upright(self, decoder, tmp_path):
        stored = np.full((48, 64, 3), 90, np.uint8)
        stored[:24, :32] = (255, 0, 0)
        image = Image.fromarray(stored)
        corners = {1: (5, 5), 6: (5, -5), 3: (-5, -5), 8: (-5, 5)}
        for orientation, corner in corners.items():
            exif = image.getexif()
            exif[0x0112] = orientation
            path = tmp_path / f"{orientation}.jpg"
            image.save(path, exif=exif, quality=95)
            decoded = decoder.decode(clip(path, audio=None), Needs(frames=frozenset({FPS})))
            [pixels] = decoded.clip.frames[FPS].pixels
            assert pixels[corner][0] > 200
            assert pixels[corner][1] < 60

    def test_what_an_edit_list_leaves_out_is_not_missed(self, decoder, tmp_path):
        for file in ("a.mp4", "a.mov"):
            with av.open(str(tmp_path / file), "w") as out:
                stream = out.add_stream("libx264", rate=25, options={"g": "12"})
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
                stream.codec_context.time_base = Fraction(1, 25)
                for number in range(50):
                    image = np.full((48, 64, 3), shade(number), np.uint8)
                    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                    frame.pts, frame.time_base = number - 15, Fraction(1, 25)
                    out.mux(stream.encode(frame))
                out.mux(stream.encode(None))
            decoded = decoder.decode(clip(tmp_path / file), Needs(frames=frozenset({FPS})))
            assert not decoded.partial
            frames = decoded.clip.frames[FPS]
            greys = [int(image[-5, -5, 0]) for image in frames.pixels]
            assert greys == pytest.approx([shade(15 + 5 * k) for k in range(7)], abs=4)
            assert decoder.probe(Source(str(tmp_path / file))).duration_s == pytest.approx(1.4)

    @pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
    def test_sound_above_full_scale_is_brought_down_and_says_so(self, decoder, tmp_path, subtype):
        wave = 5 * tone(1, 16000)
        soundfile.write(tmp_path / "loud.wav", wave, 16000, subtype=subtype)
        decoded = decoder.decode(clip(tmp_path / "loud.wav", video=None), SOUND)
        assert decoded.partial["audio"] == "sound reaches 1.50 of full scale: brought down to it"
        np.testing.assert_allclose(decoded.clip.waveforms[16000], wave / 1.5, atol=1e-5)

    def test_samples_that_are_no_numbers_are_silent(self, decoder, tmp_path):
        wave = tone(1, 16000)
        wave[[100, 200, 300]] = np.nan, np.inf, -np.inf
        soundfile.write(tmp_path / "odd.wav", wave, 16000, subtype="FLOAT")
        decoded = decoder.decode(clip(tmp_path / "odd.wav", video=None), SOUND)
        assert not decoded.partial
        assert np.abs(decoded.clip.waveforms[16000]).max() == pytest.approx(0.3, abs=1e-3)

    def test_variable_frame_rate_goes_by_true_timestamps(self, decoder, tmp_path):
        path = write_clip(tmp_path / "vfr.mp4", variable=True)
        frames = decoder.decode(clip(path), NEEDS).clip.frames[FPS]
        shown = [(number + (number // 10) ** 2) / 25 for number in range(50)]
        for image, time_s in zip(frames.pixels, frames.times_s, strict=True):
            number = int(np.argmin(np.abs(np.asarray(shown) - time_s)))
            assert abs(shown[number] - time_s) < 1e-3
            assert int(image[-5, -5, 0]) == pytest.approx(shade(number), abs=4)

    def test_sound_that_starts_late_keeps_its_place(self, decoder, tmp_path):
        for file in ("late.mp4", "late.mkv"):
            path = write_clip(tmp_path / file, sound_start_s=0.7, sample_rate=48000)
            decoded = decoder.decode(clip(path), SOUND)
            assert decoded.clip.audio_start_s == pytest.approx(0.7, abs=0.03)
            assert np.abs(decoded.clip.waveforms[16000][1000:2000]).max() > 0.2

    def test_4k_is_brought_down_to_the_wanted_size(self, decoder, tmp_path):
        path = write_clip(tmp_path / "4k.mp4", seconds=0.2, size=(3840, 2160), sound=None)
        decoded = decoder.decode(clip(path, audio=None), NEEDS)
        assert decoded.clip.frames[FPS].pixels.shape == (1, 64, 114, 3)

    def test_a_clip_of_ten_minutes_is_capped_and_says_so(self, decoder, tmp_path):
        path = write_clip(tmp_path / "long.mp4", seconds=600, rate_hz=2, size=(64, 48), sound=None)
        decoded = decoder.decode(
            clip(path, audio=None),
            Needs(
                frames=frozenset({FramePolicy(kind="fps", rate_hz=2.0, size=48, max_frames=100)})
            ),
        )
        [frames] = decoded.clip.frames.values()
        assert len(frames.times_s) == 100
        assert frames.times_s[-1] > 590
        assert decoded.partial == {"video": "100 of 1200 frames were kept"}

    def test_an_hour_of_tone_is_read_in_bounded_memory(self, decoder, tmp_path):
        path = tmp_path / "hour.flac"
        with soundfile.SoundFile(path, "w", 8000, 1) as file:
            for _ in range(360):
                file.write(tone(10, 8000, pitch_hz=1000))
        decoded = decoder.decode(clip(path, video=None, duration_s=3600.0), SOUND)
        samples = decoded.clip.waveforms[16000]
        assert len(samples) == 3600 * 16000
        assert np.abs(np.fft.rfft(samples[-16000:])).argmax() == 1000
        with Decoder(max_decoded_gb=0.05) as small:
            decoded = small.decode(clip(path, video=None), SOUND)
            assert "seconds" in decoded.partial["audio"] or "s of sound" in decoded.partial["audio"]

    def test_windows_are_runs_of_equal_length_padded_by_the_last_frame(self, decoder, good):
        needs = Needs(frames=frozenset({WINDOWS}))
        [frames] = decoder.decode(clip(good), needs).clip.frames.values()
        assert frames.pixels.shape[:2] == (24, 48)
        np.testing.assert_allclose(frames.times_s[:20], np.floor(np.arange(20) * 2.5) / 25)
        assert set(frames.times_s[20:]) == {frames.times_s[19]}

    def test_even_frames_stand_in_the_middle_of_equal_parts(self, decoder, good):
        needs = Needs(frames=frozenset({EVEN}))
        [frames] = decoder.decode(clip(good), needs).clip.frames.values()
        np.testing.assert_allclose(frames.times_s, (np.arange(8) + 0.5) / 4, atol=0.04)

    def test_a_file_of_one_frame_still_gives_the_promised_count(self, decoder, tmp_path):
        path = write_clip(tmp_path / "one.mp4", seconds=0.04, sound=None)
        needs = Needs(frames=frozenset({EVEN}))
        [frames] = decoder.decode(clip(path), needs).clip.frames.values()
        assert len(frames.pixels) == 8

    @pytest.mark.parametrize("name", ["a 1.jpg", "b%03d.JPEG", "c.png", "d.webp", "e.bmp", "f.tif"])
    def test_a_picture_is_a_film_of_one_frame(self, decoder, tmp_path, name):
        Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / name)
        assert probe(Source(str(tmp_path / name))).has_video
        decoded = decoder.decode(clip(tmp_path / name, audio=None), FILM)
        assert not decoded.faults
        frame = decoded.clip.frames[FPS].pixels[0]
        assert np.abs(frame.reshape(-1, 3).mean(0) - (200, 30, 30)).max() < 12

    def test_every_rate_is_the_same_sound(self, decoder, good):
        needs = Needs(rates_hz=frozenset({8000, 16000, 44100, 48000}))
        waves = decoder.decode(clip(good), needs).clip.waveforms
        for rate, samples in waves.items():
            assert len(samples) == pytest.approx(len(waves[16000]) * rate / 16000, abs=2)
            expected = np.abs(np.fft.rfft(samples[rate // 2 : rate]))
            assert expected.argmax() == 220


class TestWhereTheBytesLie:
    def test_a_member_of_a_tar_equals_the_loose_file(self, decoder, good, tmp_path):
        sound = tmp_path / "a.flac"
        soundfile.write(sound, tone(2, 22050), 22050)
        with tarfile.open(tmp_path / "shard.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo("empty"), io.BytesIO())
            for path in (good, sound):
                tar.add(path, path.name)
        sparse = Needs(
            rates_hz=frozenset({16000}),
            frames=frozenset({FPS, FramePolicy(kind="even", count=2, size=64)}),
        )
        with tarfile.open(tmp_path / "shard.tar") as tar:
            for path, needs in ((good, sparse), (good, NEEDS), (sound, SOUND)):
                member = tar.getmember(path.name)
                inside = Source(str(tmp_path / "shard.tar"), member.offset_data, member.size)
                kinds = {"video": inside, "audio": inside}
                assert_same(
                    decoder.decode(ClipSource(clip_id=1, **kinds), needs),
                    decoder.decode(clip(path), needs),
                ) if needs is not SOUND else assert_same(
                    decoder.decode(ClipSource(clip_id=1, audio=inside), needs),
                    decoder.decode(clip(path, video=None), needs),
                )

    def test_a_remote_file_equals_the_local_one(self, decoder, good, tmp_path):
        remote = f"simplecache::file://{good}"
        source = Source(remote)
        assert_same(
            decoder.decode(ClipSource(clip_id=1, video=source, audio=source), NEEDS),
            decoder.decode(clip(good), NEEDS),
        )
        part = Source(remote, 0, os.path.getsize(good))
        assert_same(
            decoder.decode(ClipSource(clip_id=1, video=part, audio=part), NEEDS),
            decoder.decode(clip(good), NEEDS),
        )

    def test_a_range_beyond_its_file_is_truncated(self, decoder, good):
        source = Source(str(good), 100, os.path.getsize(good))
        decoded = decoder.decode(ClipSource(clip_id=1, audio=source), SOUND)
        assert decoded.faults["audio"].fault == Fault.TRUNCATED


class TestSegments:
    @pytest.mark.parametrize("file", ["s.mp4", "s.mkv", "s.flac", "s.webm"])
    @pytest.mark.parametrize(
        ("start_s", "end_s"), [(0.0, 1.0), (3.3, 4.7), (6.02, None), (7.5, 60.0)]
    )
    def test_they_equal_the_slice_of_the_whole(self, decoder, tmp_path, file, start_s, end_s):
        path = tmp_path / file
        rates = frozenset({16000, 22050})
        needs = Needs(rates_hz=rates, frames=frozenset({FPS}))
        if file == "s.flac":
            soundfile.write(path, chirp(8, 44100), 44100)
            needs = Needs(rates_hz=rates)
        elif file == "s.webm":
            options = {"codec": "libvpx-vp9", "sound": "libopus", "sample_rate": 48000}
            write_clip(path, seconds=8, **options)
        else:
            write_clip(path, seconds=8, sample_rate=44100, options={"g": "20"})
        kinds = {"video": None} if file == "s.flac" else {}
        whole = decoder.decode(clip(path, **kinds), needs)
        part = decoder.decode(clip(path, start_s=start_s, end_s=end_s, **kinds), needs)
        assert not part.faults
        assert not part.partial
        for rate, samples in part.clip.waveforms.items():
            first, last = round(start_s * rate), len(whole.clip.waveforms[rate])
            wanted = (last if end_s is None else min(last, round(end_s * rate))) - first
            # Matroska's clock ticks once a millisecond; a seek lands within one tick.
            slack = rate // 1000 if file in ("s.mkv", "s.webm") else 1
            assert abs(len(samples) - wanted) <= slack
            length = min(wanted, len(samples)) - 2 * slack
            expected = whole.clip.waveforms[rate]
            differences = [
                np.abs(samples[slack : slack + length] - expected[at : at + length]).max()
                for at in range(first, min(first + 2 * slack, last - length) + 1)
            ]
            # Half a sample at 16 kHz changes this tone by 0.026.
            assert min(differences) < (5e-3 if slack == 1 else 0.03)
        if file != "s.flac":
            frames = part.clip.frames[FPS]
            ends = 8.0 if end_s is None else min(8.0, end_s)
            assert len(frames.times_s) == int(np.ceil((ends - start_s) * 5 - 1e-6))
            for k, image in enumerate(frames.pixels):
                number = int((start_s + k / 5) * 25 + 1e-6)
                assert int(image[-5, -5, 0]) == pytest.approx(shade(number), abs=6)

    def test_only_what_is_needed_is_decoded(self, tmp_path, monkeypatch):
        path = write_clip(tmp_path / "long.mp4", seconds=60, options={"g": "50"})
        decoded = []

        def counted(*arguments, original=pictures.PictureReader._decoded):
            for tick, frame in original(*arguments):
                decoded.append(tick)
                yield tick, frame

        monkeypatch.setattr(pictures.PictureReader, "_decoded", counted)
        with staged(Source(str(path))) as local:
            read_frames(local, [FPS], 40.0, 42.0, 1 << 30, 1)
        assert len(decoded) < 120  # two seconds, and at most a run of key frames before them

    def test_a_segment_behind_the_end_is_a_fault_of_its_clip(self, decoder, good):
        decoded = decoder.decode(clip(good, start_s=50.0, end_s=52.0), NEEDS)
        assert decoded.faults["audio"].fault == Fault.NO_AUDIO


def chirp(seconds, rate_hz):
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * (200 + 100 * time_s) * time_s)).astype(np.float32)


class TestBadFiles:
    def fault_of(self, decoder, path, needs=NEEDS, **kinds):
        decoded = decoder.decode(clip(path, **kinds), needs)
        return {modality: error.fault for modality, error in decoded.faults.items()}, decoded

    def test_a_missing_path(self, decoder, tmp_path):
        faults, decoded = self.fault_of(decoder, tmp_path / "nowhere.mp4")
        assert faults == {"audio": Fault.MISSING, "video": Fault.MISSING}
        assert str(decoded.faults["video"]).endswith("nowhere.mp4: there is no such file")

    def test_a_file_of_no_bytes(self, decoder, tmp_path):
        (tmp_path / "empty.mp4").touch()
        faults, _ = self.fault_of(decoder, tmp_path / "empty.mp4")
        assert faults == {"audio": Fault.EMPTY, "video": Fault.EMPTY}

    def test_a_text_that_is_called_a_film(self, decoder, tmp_path):
        (tmp_path / "text.mp4").write_text("dear diary, " * 300)
        faults, _ = self.fault_of(decoder, tmp_path / "text.mp4")
        assert faults == {"audio": Fault.UNREADABLE, "video": Fault.UNREADABLE}

    def test_a_film_cut_before_its_index(self, decoder, tmp_path):
        path = write_clip(tmp_path / "cut.mp4")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        faults, _ = self.fault_of(decoder, path)
        assert faults == {"audio": Fault.TRUNCATED, "video": Fault.TRUNCATED}

    def test_a_film_cut_after_its_index_keeps_what_is_there(self, decoder, tmp_path):
        path = write_clip(tmp_path / "cut.mp4", seconds=8, faststart=True, options={"g": "10"})
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
        faults, decoded = self.fault_of(decoder, path)
        assert not faults
        assert set(decoded.partial) >= {"video"}
        assert 10 < len(decoded.clip.frames[FPS].times_s) < 40

    def test_a_segment_before_the_cut_lacks_nothing(self, decoder, tmp_path):
        path = write_clip(tmp_path / "cut.mkv", seconds=8, options={"g": "10"})
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
        whole = decoder.decode(clip(path), NEEDS)
        assert set(whole.partial) == {"audio", "video"}
        end_s = float(whole.clip.frames[FPS].times_s[-1]) - 0.1
        inside = decoder.decode(clip(path, start_s=0.5, end_s=end_s), NEEDS)
        assert not inside.partial
        across = decoder.decode(clip(path, start_s=0.5, end_s=7.5), NEEDS)
        assert set(across.partial) == {"audio", "video"}

    def test_a_film_without_sound(self, decoder, tmp_path):
        path = write_clip(tmp_path / "silent.mp4", sound=None)
        faults, decoded = self.fault_of(decoder, path)
        assert faults == {"audio": Fault.NO_AUDIO}
        assert len(decoded.clip.frames[FPS].times_s) == 10

    def test_sound_asked_for_pictures(self, decoder, tmp_path):
        path = write_clip(tmp_path / "sound.m4a", codec=None)
        faults, decoded = self.fault_of(decoder, path)
        assert faults == {"video": Fault.NO_VIDEO}
        assert 16000 in decoded.clip.waveforms

    def test_silence_is_no_fault(self, decoder, tmp_path):
        soundfile.write(tmp_path / "silence.wav", np.zeros(16000, np.float32), 16000)
        faults, decoded = self.fault_of(decoder, tmp_path / "silence.wav", SOUND, video=None)
        assert not faults
        assert not decoded.clip.waveforms[16000].any()

    @pytest.mark.parametrize("rate_hz", [8000, 22050, 48000, 192000])
    def test_sound_too_short_for_a_filter_is_absent_and_says_how_short(
        self, decoder, tmp_path, rate_hz
    ):
        """From a single sample on: it is there at nearly its length, or absent by name."""
        absent = []
        for count in (1, 2, 17, 33, 64, 100, 1000):
            soundfile.write(tmp_path / "short.wav", np.full(count, 0.1, np.float32), rate_hz)
            faults, decoded = self.fault_of(decoder, tmp_path / "short.wav", SOUND, video=None)
            if faults:
                assert faults == {"audio": Fault.NO_AUDIO}
                assert f"only {count} samples" in decoded.faults["audio"].detail
                absent.append(count)
            else:
                heard = len(decoded.clip.waveforms[16000])
                assert heard == pytest.approx(count * 16000 / rate_hz, abs=20)
        assert 1 in absent
        assert 1000 not in absent

    def test_a_folder_is_no_file(self, decoder, tmp_path):
        faults, _ = self.fault_of(decoder, tmp_path)
        assert faults == {"audio": Fault.UNREADABLE, "video": Fault.UNREADABLE}

    @pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
    def test_what_would_be_waited_for_is_not_opened(self, decoder, tmp_path, kind):
        place = tmp_path / "a.mp4"
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "device":
            place.symlink_to("/dev/zero")
        else:
            with socket.socket(socket.AF_UNIX) as opened:
                opened.bind(str(place))
        faults, decoded = self.fault_of(decoder, place)
        assert faults == {"audio": Fault.UNREADABLE, "video": Fault.UNREADABLE}
        assert "is a pipe, a socket or a device" in decoded.faults["video"].detail

    def test_files_damaged_at_random_stop_nothing(self, tmp_path, good):
        draw = np.random.default_rng(7)
        sound = tmp_path / "a.flac"
        soundfile.write(sound, chirp(2, 16000), 16000)
        webm = write_clip(
            tmp_path / "a.webm", codec="libvpx-vp9", sound="libopus", sample_rate=48000
        )
        fast = write_clip(tmp_path / "b.mp4", faststart=True)
        originals = [path.read_bytes() for path in (good, sound, webm, fast)]
        with Decoder(time_limit_s=20.0, time_limit_per_s=1.0) as decoder:
            reference = decoder.decode(clip(good), NEEDS)
            pid = decoder.pid
            descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
            for number in range(30):
                content = bytearray(originals[number % 4])
                for _ in range(draw.integers(1, 40)):
                    content[draw.integers(len(content))] = draw.integers(256)
                if number % 3 == 0:
                    content = content[: draw.integers(len(content))]
                damaged = tmp_path / f"damaged{number}"
                damaged.write_bytes(content)
                kinds = {"video": None} if number % 4 == 1 else {}
                try:
                    decoded = decoder.decode(clip(damaged, **kinds), NEEDS)
                except MediaError:
                    continue  # the child died of it; the next clip shows that another took its place
                there = {*decoded.faults, *(["audio"] if decoded.clip.waveforms else [])}
                assert "audio" in there
            assert_same(decoder.decode(clip(good), NEEDS), reference)
            if descriptors:
                assert len(os.listdir("/proc/self/fd")) == descriptors
                assert pid is not None


FAULTS = json.dumps({"crash": "crash", "hang": "hang", "leak": "leak"})
FAULTY_CHILD = str(Path(__file__).parent / "faulty_child")


class TestSupervision:
    @pytest.fixture
    def fragile(self, monkeypatch):
        """A decoder whose child crashes, hangs or leaks on sources of those names."""
        monkeypatch.setenv("FAULTS_BY_NAME", FAULTS)
        monkeypatch.setenv("PYTHONPATH", FAULTY_CHILD)
        with Decoder(
            time_limit_s=2.5, time_limit_per_s=10.0, memory_limit_gb=0.5, attempts=1
        ) as decoder:
            yield decoder

    @pytest.mark.parametrize(
        ("name", "fault", "words", "length_s"),
        [
            ("crash", Fault.CRASHED, "SIGSEGV", 6.0),
            ("hang", Fault.TIMEOUT, "not decoded after 3 s", 0.05),
            ("leak", Fault.TOO_LARGE, "needs more than 0.5 GiB", 6.0),
        ],
    )
    def test_a_child_that_fails_costs_its_clip_only(
        self, fragile, good, name, fault, words, length_s
    ):
        with pytest.raises(MediaError, match=words) as caught:
            fragile.decode(clip(good.parent / name, duration_s=length_s), NEEDS)
        assert caught.value.fault == fault
        assert not fragile.decode(clip(good), NEEDS).faults

    def test_what_killed_a_child_is_tried_again_in_a_fresh_one(self, monkeypatch, good):
        monkeypatch.setenv("FAULTS_BY_NAME", FAULTS)
        monkeypatch.setenv("PYTHONPATH", FAULTY_CHILD)
        with Decoder(attempts=2) as decoder:
            decoder.decode(clip(good), NEEDS)
            first = decoder.pid
            with pytest.raises(MediaError, match="crashed"):
                decoder.decode(clip("crash"), NEEDS)
            assert decoder.pid is None
            decoder.decode(clip(good), NEEDS)
            assert decoder.pid != first

    def test_a_probe_is_supervised_too(self, fragile, good):
        with pytest.raises(MediaError, match="crashed"):
            fragile.probe(Source("crash"))
        assert fragile.probe(Source(str(good))).video_codec == "h264"

    @pytest.mark.parametrize("recycle_after", [2, 500])
    def test_many_probes_are_what_single_ones_are_whatever_one_of_them_does(
        self, monkeypatch, good, recycle_after
    ):
        monkeypatch.setenv("FAULTS_BY_NAME", FAULTS)
        monkeypatch.setenv("PYTHONPATH", FAULTY_CHILD)
        names = ["absent", "", "crash", "", "hang", "leak", *[""] * 12, "crash", "leak"]
        sources = [Source(name or str(good)) for name in names]
        limits = {"time_limit_s": 2.5, "memory_limit_gb": 0.5, "recycle_after": recycle_after}
        with Decoder(attempts=2, **limits) as decoder:
            found = list(decoder.probe_each(iter(sources)))
            alone = [outcome(decoder, source) for source in sources]
            # One that is left in the middle leaves no answers to later questions behind.
            assert next(decoder.probe_each(sources[1:2] + sources[:1] * 5)) == alone[1]
            assert outcome(decoder, sources[1]) == alone[1]
        assert [_plain(each) for each in found] == [_plain(each) for each in alone]
        assert [each.fault for each in found if isinstance(each, MediaError)] == [
            Fault.MISSING, Fault.CRASHED, Fault.TIMEOUT, Fault.TOO_LARGE, Fault.CRASHED, Fault.TOO_LARGE,
        ]  # fmt: skip

    def test_a_file_that_outlives_its_time_does_so_once(self, monkeypatch, good):
        monkeypatch.setenv("FAULTS_BY_NAME", FAULTS)
        monkeypatch.setenv("PYTHONPATH", FAULTY_CHILD)
        with Decoder(time_limit_s=2.5) as decoder:
            begun = time.monotonic()
            found = list(decoder.probe_each([Source("hang"), *[Source(str(good))] * 9]))
            assert time.monotonic() - begun < 5 + 2.5 * 2
        assert [type(each) for each in found] == [MediaError] + [type(found[-1])] * 9

    def test_names_as_long_as_a_pipe_block_neither_end(self, decoder):
        sources = [Source("/absent/" + "\u00e9" * 4000 + str(k)) for k in range(30)]
        found = list(decoder.probe_each(sources))
        assert {each.fault for each in found} == {Fault.UNREADABLE}
        assert all(source.uri in str(each) for source, each in zip(sources, found, strict=True))

    def test_the_child_is_replaced_after_so_many_clips(self, good):
        with Decoder(recycle_after=2) as decoder:
            pids = []
            for _ in range(5):
                decoder.decode(clip(good), NEEDS)
                pids.append(decoder.pid)
        assert len(set(pids)) == 3
        assert pids[0] == pids[1]

    @pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
    def test_the_child_ends_with_a_parent_that_is_killed(self, tmp_path):
        code = (
            "import os, signal, sys; from encoders.media import *; d = Decoder();"
            "d._children.ready(); print(d.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        pid = int(done.stdout)
        for _ in range(50):
            if not os.path.exists(f"/proc/{pid}") or _is_zombie(pid):
                return
            time.sleep(0.1)
        pytest.fail("the child lives on")

    def test_a_child_that_cannot_start_is_a_bug_not_a_fault_of_the_clip(self, monkeypatch, good):
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with Decoder() as decoder, pytest.raises(RuntimeError, match="does not start"):
            decoder.decode(clip(good), NEEDS)

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_memory_is_flat_over_many_clips(self, decoder, good):
        for _ in range(20):
            decoder.decode(clip(good), NEEDS)
        before = _resident_mb(decoder.pid)
        for _ in range(150):
            decoder.decode(clip(good), NEEDS)
        assert _resident_mb(decoder.pid) < before + 8


class TestProbe:
    def test_it_reads_the_facts_of_both_tracks(self, good):
        seen = probe(str(good))
        assert (seen.width, seen.height, seen.fps, seen.video_codec) == (160, 90, 25.0, "h264")
        assert (seen.rate_hz, seen.audio_codec, seen.channels) == (16000, "aac", 1)
        assert seen.duration_s == pytest.approx(2.0, abs=0.1)

    def test_a_codec_goes_by_its_own_name_not_by_its_decoders(self, tmp_path):
        for name, codecs in {"AV1": ("av1", "aac"), "VP9 and Opus": ("vp9", "opus")}.items():
            file, options = FORMATS[name]
            seen = probe(str(write_clip(tmp_path / file, **options)))
            assert (seen.video_codec, seen.audio_codec) == codecs

    def test_a_stream_without_a_length_in_its_header_is_measured(self, tmp_path):
        raw = io.BytesIO()
        container = av.open(raw, "w", format="adts")
        stream = container.add_stream("aac", rate=16000, layout="mono")
        write_sound(container, stream, tone(3, 16000), 0)
        container.close()
        (tmp_path / "a.aac").write_bytes(raw.getvalue())
        assert probe(str(tmp_path / "a.aac")).duration_s == pytest.approx(3.0, abs=0.2)

    def test_a_remote_file_is_read_where_it_lies(self, good):
        import fsspec

        memory = fsspec.filesystem("memory")
        memory.pipe("/probe/good.mp4", good.read_bytes())
        memory.pipe("/probe/empty.mp4", b"")
        assert probe("memory://probe/good.mp4") == probe(str(good))
        with pytest.raises(MediaError, match="empty"):
            probe("memory://probe/empty.mp4")
        with pytest.raises(MediaError, match="missing"):
            probe("memory://probe/nowhere.mp4")
        with pytest.raises(MediaError, match="unreadable"):
            probe("unheard-of://x/y.mp4")

    @pytest.mark.parametrize(("content", "fault"), [(b"", "empty"), (b"hello" * 50, "unreadable")])
    def test_anything_else_is_a_media_error(self, tmp_path, content, fault):
        (tmp_path / "x.mp4").write_bytes(content)
        with pytest.raises(MediaError, match=fault):
            probe(str(tmp_path / "x.mp4"))
        with pytest.raises(MediaError, match="missing"):
            probe(str(tmp_path / "y.mp4"))


def _is_zombie(pid):
    return "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def outcome(decoder, source):
    try:
        return decoder.probe(source)
    except MediaError as error:
        return error


def _plain(found):
    return (found.fault, str(found)) if isinstance(found, MediaError) else found


def _resident_mb(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20

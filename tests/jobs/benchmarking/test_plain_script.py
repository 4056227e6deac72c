"""The plain script: it decodes and encodes what the job does, one clip after the other."""

import sys
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import WeightsError
from encoders import store
from encoders.media import ClipSource, Decoder, Source
from encoders.registry import describe
from encoders.spec import FramePolicy, Needs
from jobs.benchmarking import plain_script
from jobs.benchmarking.plain_script import Plain, decoded, loaded, picked, script, some_of
from jobs.stream.job import Work

TOYS = str(Path(__file__).parents[1] / "toys")


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Six short sounds, one of them not there."""
    monkeypatch.syspath_prepend(TOYS)
    import toy_corpus

    toy_corpus.write_corpus(tmp_path, 6)
    yield [
        ClipSource(clip_id=i, audio=Source(f"{tmp_path}/media/{i}.wav"), text="a b", duration_s=0.5)
        for i in range(5)
    ] + [ClipSource(clip_id=9, audio=Source(f"{tmp_path}/none.wav"), duration_s=0.5)]
    for name in [name for name in sys.modules if name.startswith("toy_")]:
        del sys.modules[name]


class TestTheFigures:
    plain = Plain(
        clips=10, failed=0, threads=2, device="cpu", decode_s=4.0, encode_s={"a": 5.0, "b": 1.0}
    )

    def test_the_rate_counts_decoding_for_every_encoder(self):
        assert self.plain.rate == 1.0

    def test_ratios_are_the_jobs_rates_over_the_scripts(self):
        ratios = self.plain.ratios(3.0, 5.0, {"a": 4.0, "b": 20.0})
        assert ratios == {"whole": 3.0, "decode": 2.0, "a": 2.0, "b": 2.0}

    def test_a_stage_that_took_no_time_has_no_ratio(self):
        plain = Plain(clips=1, failed=0, threads=1, device="cpu", decode_s=0.0, encode_s={"a": 1.0})
        assert plain.ratios(1.0, 1.0, {"a": 1.0})["decode"] is None


class TestTheClips:
    def test_at_most_sixty_of_all_lengths_are_taken(self):
        lengths = np.random.default_rng(0).permutation(600) / 10
        many = [ClipSource(clip_id=i, duration_s=float(s)) for i, s in enumerate(lengths)]
        chosen = [source.duration_s for source in some_of(many)]
        assert len(chosen) == 60
        assert np.mean(chosen) == pytest.approx(lengths.mean(), rel=0.02)

    def test_what_does_not_fit_into_memory_is_left_out(self):
        assert some_of([ClipSource(clip_id=1, duration_s=3600.0)]) == []


class TestDecoding:
    def test_it_hears_what_the_job_hears(self, sources):
        needs = Needs(rates_hz=frozenset({16000}))
        with Decoder() as decoder:
            ours = decoder.decode(sources[4], needs).clip
        plain = decoded(sources[4], needs)
        assert len(plain.waveforms[16000]) == pytest.approx(8000, abs=40)
        np.testing.assert_allclose(
            plain.waveforms[16000][100:7000], ours.waveforms[16000][100:7000], atol=0.01
        )

    def test_it_sees_the_frames_that_the_job_sees(self):
        times = [k / 25 for k in range(50)]
        assert picked(times, FramePolicy(kind="fps", rate_hz=5.0)) == list(range(0, 50, 5))
        assert picked(times, FramePolicy(kind="even", count=2)) == [12, 37]
        windows = picked(times, FramePolicy(kind="windows", count=8, rate_hz=5.0))
        assert len(windows) == 16
        assert windows[-6:] == [49] * 6


class TestTheScript:
    def test_every_clip_goes_through_every_encoder_and_a_missing_file_is_counted(self, sources):
        toys = [describe("egemaps"), describe("logmel_stats")]
        work = Work(descriptors=tuple(toys), transcriber=None, store="nowhere")
        plain = script(work, sources, threads=1, device="cpu")
        assert (plain.clips, plain.failed) == (6, 1)
        assert plain.encode_s.keys() == {item.folder for item in toys}
        assert plain.decode_s > 0
        assert min(plain.encode_s.values()) > 0

    def test_text_that_the_transcriber_heard_is_read_on(self, sources, monkeypatch):
        from toy_encoders import EAR, TEXT

        from encoders.spec import GENERAL_OPTIONS, Descriptor

        ear, text = (Descriptor(spec=each, options=dict(GENERAL_OPTIONS)) for each in (EAR, TEXT))
        read = []
        monkeypatch.setattr(plain_script, "loaded", lambda *_: lambda clip: read.append(clip.text))
        mute = [ClipSource(**{**vars(source), "text": None}) for source in sources[:5]]
        plain = script(Work(descriptors=(text,), transcriber=ear, store="x"), mute, 1, "cpu")
        assert plain.encode_s.keys() == {"toy_ear", text.folder}
        assert set(read) == {"quiet", "loud"}


@pytest.mark.weights
class TestAsDocumented:
    """With the real offline weights."""

    def call(self, name):
        descriptor = describe(name)
        uri = store.DEFAULT_STORE
        try:
            store.mirror(descriptor.weights, uri)
        except WeightsError as error:
            pytest.skip(f"the offline weights cannot be had: {error}")
        return descriptor, loaded(descriptor, store.local_paths(descriptor.weights, uri), "cpu", 1)

    def test_whisper_reads_thirty_seconds_of_every_window(self, sources):
        descriptor, call = self.call("whisper_tiny_en")
        (states,) = call(decoded(sources[0], descriptor.needs))
        assert states.shape == (1, 1500, 384)

    def test_a_text_is_read_alone(self, sources):
        descriptor, call = self.call("minilm")
        assert call(decoded(sources[0], descriptor.needs)).shape == (1, 4, 384)

"""A few clips are timed where the stream will run; a small job, a bad clip or a second start cost nothing."""

import json
import sys
from pathlib import Path

import pytest

from cluster.resources import WorkersConfig, plan_stream
from cluster.session import Capacity, SessionConfig, ray_session
from cluster.sizing import Measured, size_stream
from encoders import ENCODERS
from jobs import encode
from jobs.catalog.features import read_features, resolve_features
from jobs.catalog.manifest import units
from jobs.stream import autotune
from jobs.stream.autotune import at_mean, lines, survey_of
from jobs.stream.clip_timing import Half, Timed
from jobs.stream.job import Todo, UnitTask

TOYS = str(Path(__file__).parents[1] / "toys")


class TestTheMeanOverTheJob:
    def test_it_lies_on_the_line_through_both_halves(self):
        assert at_mean([(2.0, 0.3, 4), (10.0, 1.1, 4)], 5.0) == pytest.approx(0.6)

    def test_a_cost_that_length_does_not_change_stays(self):
        assert at_mean([(2.0, 0.5, 4), (10.0, 0.5, 4)], 60.0) == pytest.approx(0.5)
        assert at_mean([(2.0, 0.7, 4), (10.0, 0.5, 4)], 60.0) == pytest.approx(0.6)

    def test_a_line_never_starts_below_nothing(self):
        assert at_mean([(2.0, 0.1, 4), (10.0, 1.5, 4)], 0.0) == pytest.approx(0.0)

    def test_one_half_grows_in_proportion_and_equal_lengths_say_nothing_of_others(self):
        assert at_mean([(4.0, 0.2, 8)], 8.0) == pytest.approx(0.4)
        assert at_mean([(4.0, 0.2, 4), (4.0, 0.4, 4)], 8.0) == pytest.approx(0.3)

    def test_clips_without_sound_or_pictures_cost_what_they_cost(self):
        assert at_mean([(0.0, 0.2, 8)], 0.0) == pytest.approx(0.2)


def test_what_is_printed_names_the_stages_that_changed_and_why():
    timed = Timed(
        halves=(Half(clips=7, cost=1.0, media_s=4.0, decode_s=0.9, encode_s={"v-1": 0.1}),),
        unreadable=1,
        device="a processor",
        actor_gb=1.0,
        decoder_gb=0.3,
        clip_gb=0.001,
        seconds=8.0,
    )
    measured = Measured(
        decode_s=0.9,
        encode_s={"voice": 0.1},
        actor_gb=1.0,
        decoder_gb=0.3,
        unit_gb=0.02,
        clips_per_unit=16.0,
    )
    capacity = Capacity(cpus=64, gpus=0, memory_gb=512, object_store_gb=150)
    plan = plan_stream({"voice": 0.5}, capacity)
    sizing = size_stream(plan, measured, capacity, WorkersConfig())
    first, change, last = lines(timed, measured, sizing, plan, 57600, "in 8 s")
    assert first == (
        "autotune: 7 clips in 8 s on a processor, 1 more could not be read: a clip takes decode "
        "0.9 s, voice 0.1 s; an actor holds 1.0 GB, a decode task 0.3 GB"
    )
    assert change == "autotune: encode 10 x instead of 64: models take 10% of the cores"
    assert last.startswith(
        "autotune: -> decode 64 x, encode 10 x (of 64); decoding limits: 90% of the cores' time; "
        "about 57.6 clips/s, 16:40, until "
    )


@pytest.fixture(scope="module")
def corpus():
    """The toys, importable here and on workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOYS)
        patch.setenv("PYTHONPATH", TOYS)
        patch.setenv("TOY_SLEEP_S", "0.02")
        patch.setitem(ENCODERS, "toy_audio", "toy_audio")
        patch.setitem(ENCODERS, "toy_text", "toy_text")
        import toy_corpus

        yield toy_corpus
        for name in [name for name in sys.modules if name.startswith("toy_")]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def session(corpus):
    """One Ray for all tests of this file, with a made-up GPU."""
    with ray_session(SessionConfig(num_cpus=2, num_gpus=1)):
        yield


def config(root, *encoders, **changes):
    changes.setdefault("workers", WorkersConfig(gpus_per_actor=0))
    changes.setdefault("autotune", "always")
    return encode.Config(
        root=str(root),
        encoders=encoders or ("toy_audio",),
        tracking=False,
        session=SessionConfig(num_cpus=2, num_gpus=1),
        **changes,
    )


def said_of(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if "autotune:" in line]


def kept(root):
    (file,) = (root / "encodings").glob("autotune-*.json")
    return json.loads(file.read_text())


def test_clips_are_drawn_over_the_whole_range_of_costs(corpus, tmp_path):
    corpus.write_corpus(tmp_path, 64, costs=[1 + 63 * (i * 29 % 64) / 63 for i in range(64)])
    tasks = [
        UnitTask(ref=ref, todo=Todo(encoders=(), transcribe=False)) for ref in units(str(tmp_path))
    ]
    survey = survey_of(None, tasks)
    costs = [item.cost for item in survey.drawn]
    assert costs == sorted(costs)
    assert len(costs) == 8
    assert costs[0] < 6
    assert costs[-1] > 59
    assert sum(costs) / 8 == pytest.approx(survey.cost, rel=0.02)


@pytest.mark.ray
class TestOnACpu:
    @pytest.fixture(scope="class")
    def measured(self, corpus, session, tmp_path_factory):
        root = corpus.write_corpus(tmp_path_factory.mktemp("measured"), 40)
        encode.main(config(root))
        return root

    def test_what_was_measured_is_near_what_the_encoder_takes(self, measured):
        facts = kept(measured)
        assert [half["clips"] for half in facts["halves"]] == [4, 4]
        for half in facts["halves"]:
            assert half["encode_s"].keys() == {resolve_features(str(measured), "toy_audio")}
            assert 0.02 < sum(half["encode_s"].values()) < 0.06
            assert 0 < half["decode_s"] < 1
        assert 0 < facts["actor_gb"] < 4
        assert 0 < facts["decoder_gb"] < 4

    def test_the_expected_rate_is_recorded_beside_the_real_one(self, measured):
        (file,) = (measured / "encodings").glob("*/summary.json")
        (figures,) = json.loads(file.read_text())["passes"]
        assert 10 < figures["clips_per_s_expected"] < 100
        assert figures["clips_per_s_steady"] > 0

    def test_a_started_job_goes_by_what_is_kept_and_says_the_same(
        self, measured, corpus, session, monkeypatch, capsys
    ):
        monkeypatch.setattr(autotune, "LEAST_JOB_S", 0.0)
        monkeypatch.setattr(autotune, "time_clips", None)  # it would fail if it were called
        for file in (measured / "features").rglob("*.parquet"):
            file.unlink()
        encode.main(config(measured, autotune="auto"))
        first, last = said_of(capsys)
        assert "8 clips measured before on " in first
        assert "a clip takes decode 0." in first
        assert "toy_audio 0.0" in first
        assert "-> decode 2 x, encode 2 x as planned; " in last
        assert " clips/s, 0:0" in last

    def test_other_encoders_are_measured_anew(self, measured, corpus, session, monkeypatch):
        monkeypatch.setattr(autotune, "LEAST_JOB_S", 0.0)
        encode.main(config(measured, "toy_text", autotune="auto"))
        assert len(list((measured / "encodings").glob("autotune-*.json"))) == 2

    def test_a_small_job_is_left_alone_and_says_why(self, corpus, session, tmp_path, capsys):
        corpus.write_corpus(tmp_path, 8)
        encode.main(config(tmp_path, autotune="auto"))
        (line,) = said_of(capsys)
        assert line.startswith("autotune: none; by the manifest the job takes about 0:0")
        assert "--autotune always" in line
        assert not list((tmp_path / "encodings").glob("autotune-*"))

    def test_never_means_never(self, corpus, session, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(autotune, "LEAST_JOB_S", 0.0)
        corpus.write_corpus(tmp_path, 4)
        encode.main(config(tmp_path, autotune="never"))
        assert said_of(capsys) == []

    def test_actors_of_the_users_own_stay(self, corpus, session, tmp_path, capsys):
        corpus.write_corpus(tmp_path, 8)
        workers = WorkersConfig(gpus_per_actor=0, actors=1, decoders=1)
        encode.main(config(tmp_path, workers=workers))
        assert "-> decode 1 x, encode 1 x" in said_of(capsys)[-1]

    def test_a_clip_that_cannot_be_read_is_counted_and_stops_nothing(
        self, corpus, session, tmp_path, capsys
    ):
        corpus.write_corpus(tmp_path, 8)
        (tmp_path / "media" / "3.wav").write_bytes(b"no sound")
        encode.main(config(tmp_path))
        assert "7 clips in " in (said := said_of(capsys)[0])
        assert ", 1 more could not be read: a clip takes" in said
        assert self.states(tmp_path) == {"ok": 7, "failed": 1}

    def test_clips_none_of_which_can_be_read_leave_the_plan(
        self, corpus, session, tmp_path, capsys
    ):
        corpus.write_corpus(tmp_path, 4)
        for number in range(4):
            (tmp_path / "media" / f"{number}.wav").write_bytes(b"")
        encode.main(config(tmp_path, max_failed_share=1.0))
        (line,) = said_of(capsys)
        assert line == "autotune: none of 4 clips drawn could be read; the plan stays as it is"
        assert self.states(tmp_path) == {"failed": 4}

    @pytest.mark.slow
    def test_a_clip_that_kills_the_encoder_leaves_the_plan(self, corpus, session, tmp_path, capsys):
        corpus.write_corpus(tmp_path, 4, texts=["fine", "CRASH", "fine", "fine"])
        encode.main(config(tmp_path, "toy_text", max_failed_share=1.0))
        (line,) = said_of(capsys)
        assert "a worker with clips of the job ended (ActorDiedError); the plan stays" in line
        found = read_features(str(tmp_path), resolve_features(str(tmp_path), "toy_text"))
        assert found["status"].to_pylist().count("failed") == 1

    def states(self, root):
        table = read_features(str(root), resolve_features(str(root), "toy_audio"))
        return {row["values"]: row["counts"] for row in table["status"].value_counts().to_pylist()}


@pytest.mark.ray
@pytest.mark.slow
def test_on_a_made_up_gpu_the_models_are_timed_where_the_gpu_is_held(
    corpus, session, tmp_path, capsys, monkeypatch
):
    seen = []
    monkeypatch.setattr(autotune, "size_stream", _noting(seen))
    corpus.write_corpus(tmp_path, 24)
    encode.main(config(tmp_path, workers=WorkersConfig(gpus_per_actor=1.0)))
    (plan,) = seen
    assert plan.on_gpu
    last = said_of(capsys)[-1]
    assert "-> decode 1 x, encode 1 x as planned, 16 units in hand" in last
    assert "the GPUs' time" in last or "the GPUs need" in last
    table = read_features(str(tmp_path), resolve_features(str(tmp_path), "toy_audio"))
    assert sorted(table["clip_id"].to_pylist()) == list(range(24))


def _noting(seen):
    original = autotune.size_stream

    def size(plan, *arguments):
        seen.append(plan)
        return original(plan, *arguments)

    return size

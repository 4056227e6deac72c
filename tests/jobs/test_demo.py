"""The demo: every stage once, in order, and the ensemble above every single modality."""

import itertools
import random

import pytest

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError
from cluster.session import SessionConfig, ray_session
from jobs import demo
from jobs.demonstration.corpus_rates import Rates, edits, words_of
from jobs.demonstration.stages import Stages
from jobs.demonstration.summary import gain_over_modalities


class TestWordErrors:
    def test_case_and_punctuation_do_not_count_as_errors(self):
        assert words_of("Wow, it's the TRAIN!") == words_of("wow it's the train")

    def test_a_number_is_the_word_that_was_said(self):
        assert words_of("on Monday at 10.") == words_of("on monday at ten")

    @pytest.mark.parametrize("seed", range(5))
    def test_edits_equal_the_obvious_recursion(self, seed):
        draw = random.Random(seed)
        one, other = ([draw.choice("abc") for _ in range(draw.randint(0, 6))] for _ in range(2))
        assert edits(one, other) == _slow(tuple(one), tuple(other))

    def test_edits_are_the_length_where_nothing_was_heard(self):
        assert edits(["a", "b"], []) == 2


class TestStages:
    """What is made twice, and what is not."""

    @pytest.fixture
    def stages(self, tmp_path):
        return lambda: Stages(str(tmp_path), demo.outputs(str(tmp_path)))

    def test_a_stage_with_the_same_facts_is_done_once(self, stages, capsys):
        calls = []
        for _ in range(2):
            now = stages()
            now.run("models", ("models", lambda: calls.append(1), {"a": 1}))
        assert calls == [1]
        assert now.made == []
        assert "models: nothing to do" in capsys.readouterr().out

    def test_other_facts_or_another_stage_before_it_do_it_again(self, stages):
        calls = []

        def run(first, second):
            now = stages()
            now.run("models", ("models", lambda: calls.append("models"), {"a": first}))
            now.run("evaluate", ("evaluate", lambda: calls.append("evaluate"), {"b": second}))

        run(1, 1)
        run(1, 2)
        assert calls == ["models", "evaluate", "evaluate"]
        run(2, 2)
        assert calls[3:] == ["models", "evaluate"]

    def test_a_stage_whose_output_was_deleted_is_done_again(self, stages):
        calls = []
        for _ in range(2):
            stages().run("report", ("report", lambda: calls.append(1), {}))
        assert calls == [1, 1]

    def test_a_stage_that_failed_is_not_taken_for_done(self, stages):
        def fail():
            raise NotPreparedError("no")

        with pytest.raises(NotPreparedError):
            stages().run("models", ("models", fail, {}))
        calls = []
        stages().run("models", ("models", lambda: calls.append(1), {}))
        assert calls == [1]


def test_every_net_of_the_demo_is_one_that_exists_with_options_it_has():
    from fusion.nets import net_config

    for run in demo.NETS:
        job = demo.training(demo.Config(root="demo"), run)
        net_config(job.net, job.net_options)
        assert job.folds == "speaker"


def test_each_modality_stands_alone_in_the_table_before_they_are_fused():
    alone = [set(inputs) for inputs, _, _ in demo.NETS.values() if len(inputs) < 3]
    assert set().union(*alone) == set(demo.ENCODERS)
    for one, other in itertools.combinations(alone, 2):
        assert not one & other


def test_a_root_with_another_corpus_is_refused(tmp_path):
    record = {"seed": 3, "clips": {"a": {}}}
    storage.publish_json(record, str(tmp_path / "corpus.json"))
    with pytest.raises(ConfigError, match=r"holds 1 clips of seed 3, .* type another --root"):
        demo.check_root(demo.Config(root=str(tmp_path)))


def test_a_remote_root_is_refused():
    with pytest.raises(ConfigError, match="films into a local folder"):
        demo.Config(root="s3://bucket/demo")


def test_rates_say_what_was_not_asked():
    rates = Rates(frames_found=1, clips_found=1, faces_read=0.5, word_error_rate=None)
    assert rates.lines()[-1].endswith("not asked")


def _slow(one, other):
    if not one or not other:
        return len(one) + len(other)
    if one[-1] == other[-1]:
        return _slow(one[:-1], other[:-1])
    return 1 + min(_slow(one[:-1], other), _slow(one, other[:-1]), _slow(one[:-1], other[:-1]))


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_on_another_seed_the_ensemble_gains_over_the_best_single_modality(tmp_path):
    """The real chain on a corpus of its own: filmed, recognised, encoded, trained, fused."""
    config = demo.Config(root=str(tmp_path), seed=2, clips=120, resamples=200, tracking=False)
    with ray_session(SessionConfig(num_cpus=2)):
        for name in ("prepare", "encode", "train", "ensemble"):
            _, do, _ = demo.STAGES[name](config)
            do()
    _, gain = gain_over_modalities(config.root, demo.BUNDLE, resamples=200)
    assert gain.value > 0.03, gain

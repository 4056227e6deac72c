"""A search space is five lines of YAML, and every mistake in it is found before the first trial."""

import dataclasses
from functools import partial

import optuna
import pytest

from cluster.errors import ConfigError
from fusion.nets import NETS
from jobs import train
from jobs.tuning.space import FIRST_NETS, PRESETS, default_space, read_space, subsets, with_values
from jobs.tuning.standing import Standing
from jobs.tuning.trainable import Search, sampler_of
from jobs.tuning.turns import input_cycle, inputs_of_turn

BASE = train.Config(root="r", inputs=("voice", "face"))


def drawn(values, seed: int = 0, base=BASE):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return read_space(values, base).draw(study.ask(), base.net)


class TestDrawing:
    def test_every_kind_of_dimension_gives_a_value_of_its_kind(self):
        space = {
            "lr": {"log": [1e-4, 1e-2]},
            "modality_dropout": {"float": [0, 0.4]},
            "batch_size": [16, 32],
            "inputs": [["voice"], ["voice", "face"]],
            "pool": "mean_std",
        }
        for seed in range(5):
            values = drawn(space, seed)
            config = with_values(BASE, values)
            assert 1e-4 <= config.lr <= 1e-2
            assert 0 <= config.modality_dropout <= 0.4
            assert config.batch_size in (16, 32)
            assert config.inputs in (("voice",), ("voice", "face"))
            assert config.pool == "mean_std"

    def test_an_option_of_a_net_is_drawn_with_that_net_only(self):
        space = {"lmf.rank": {"int": [1, 8]}, "net": ["lmf", "gated"]}
        found = [drawn(space, seed) for seed in range(12)]
        assert {"lmf.rank" in values for values in found} == {True, False}
        for values in found:
            assert ("lmf.rank" in values) == (values["net"] == "lmf")
            config = with_values(BASE, values)
            assert ("rank" in config.net_options) == (config.net == "lmf")

    def test_options_of_the_fixed_net_do_not_reach_another(self):
        base = train.Config(root="r", inputs=("a",), net="lmf", net_options={"rank": 2})
        assert with_values(base, {"net": "gated"}).net_options == {}
        assert with_values(base, {"lr": 0.1}).net_options == {"rank": 2}

    def test_the_default_space_is_valid(self):
        assert len(read_space(default_space(BASE, ["classification"]), BASE).dimensions) > 6

    @pytest.mark.parametrize(
        ("net", "asked", "searched"),
        [
            ("concat_mlp", "none", {"mean", "mean_std"}),
            ("concat_mlp", "mean", {"mean"}),
            ("gated", "none", {"mean", "mean_std"}),
            ("lmf", "mean_std", {"mean_std"}),
            *((net, "none", {"none"}) for net in NETS if net not in (*FIRST_NETS, "finetune")),
        ],
    )
    def test_by_default_a_clip_is_reduced_once_unless_its_net_reads_sequences(
        self, net, asked, searched
    ):
        base = dataclasses.replace(BASE, net=net, pool=asked)
        space = default_space(base, ["classification"])
        values = [drawn(space, seed, base) for seed in range(12)]
        assert {with_values(base, each).pool for each in values} == searched

    def test_subsets_stay_few(self):
        assert subsets("abc") == [["a"], ["b"], ["c"], *map(list, ("ab", "ac", "bc", "abc"))]
        assert len(subsets("abcdef")) == 6 + 15 + 1


class TestPresets:
    @pytest.mark.parametrize("net", PRESETS)
    def test_published_ranges_fit_their_net(self, net):
        assert net in NETS
        space = read_space({"preset": True, "net": [net]}, BASE)
        assert len(space.dimensions) >= 2

    def test_a_range_of_ones_own_wins(self):
        space = read_space({"preset": True, "net": ["lmf"], "lmf.rank": 2}, BASE)
        assert space.values_of("lmf.rank", None) == [2]


class TestMistakes:
    @pytest.mark.parametrize(
        ("space", "message"),
        [
            ({"lrr": [1]}, "unknown field 'lrr' in 'lrr'; did you mean 'lr'"),
            ({"net": ["lmff"]}, "there is no net 'lmff'; did you mean 'lmf'"),
            ({"net": ["lmf"], "lmf.rnk": [1]}, "lmf has no option 'rnk'; did you mean 'rank'"),
            ({"lmf.rank": [1]}, "'lmf.rank' is an option of 'lmf', which is not among the nets"),
            ({"net_options.rank": [1]}, "name the net in its place, concat_mlp.rank"),
            ({"net_options": ["rank=2"]}, "name the net in its place, concat_mlp.OPTION"),
            ({"lr": {"log": [0, 1]}}, "log takes numbers above zero, came"),
            ({"lr": {"log": [1, 0.5]}}, "takes two rising numbers, came"),
            ({"lr": {"logg": [1, 2]}}, "expected a list, a value, or one of"),
            ({"batch_size": {"int": [1.5, 3]}}, "int takes whole numbers"),
            ({"batch_size": ["many"]}, "space.batch_size: expected int, came 'many'"),
            ({"batch_size": []}, "'batch_size' has no choices"),
            ({"net": ["lmf", "finetune"]}, "a search trains no encoders: type affuse train --net"),
            ({"inputs": [["minilm:publish=inputs"]]}, "a search trains no encoders: type affuse"),
        ],
    )
    def test_each_is_named(self, space, message):
        with pytest.raises(ConfigError, match=message):
            read_space(space, BASE)


class TestTurns:
    SETS = (["a"], ["a", "b"], ["b"], ["a", "b", "c"])

    def test_every_input_alone_and_all_together_come_first(self):
        assert input_cycle(self.SETS) == [["a"], ["b"], ["a", "b", "c"], ["a", "b"]]
        assert input_cycle([["a"]]) == []

    def test_half_of_all_later_trials_take_the_sets_in_turn(self):
        turns = input_cycle(self.SETS)
        taken = [inputs_of_turn(turns, number) for number in range(4, 20)]
        assert taken[::2] == turns + turns
        assert taken[1::2] == [None] * 8
        assert inputs_of_turn([], 0) is None

    def test_a_search_gives_each_set_its_share(self, tmp_path):
        base = dataclasses.replace(BASE, root=str(tmp_path), run="t")
        values = {"inputs": [["voice"], ["face"], ["voice", "face"]], "lr": {"log": [1e-4, 1e-2]}}
        space, standing = read_space(values, base), Standing(base, 8, [])
        search = Search(space, base, partial(sampler_of, "optuna"), [], print, standing)
        drawn = [search.suggest(str(index))["values"]["inputs"] for index in range(21)]
        assert drawn[:3] == [["voice"], ["face"], ["voice", "face"]]
        for inputs in drawn[:3]:
            assert drawn.count(inputs) >= 4

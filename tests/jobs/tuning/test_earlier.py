"""A search begins where earlier ones of the same root ended, as far as its space goes."""

import dataclasses
import json

import pytest

from cluster import storage
from jobs import train
from jobs.catalog import layout
from jobs.tuning.earlier import members_of_others, params_of, starts_of
from jobs.tuning.space import read_space
from jobs.tuning.turns import input_cycle

SETS = [["voice"], ["face"], ["voice", "face"]]
SPACE = {
    "net": ["gated", "lmf"],
    "inputs": SETS,
    "lr": {"log": [1e-4, 1e-2]},
    "batch_size": [16, 32],
    "epochs": 7,
    "lmf.rank": {"int": [1, 4]},
}
GOOD = {"net": "lmf", "inputs": ["face"], "lr": 5e-3, "batch_size": 32, "epochs": 7, "lmf.rank": 3}


@pytest.fixture
def base(root):
    return train.Config(root=root, inputs=("voice", "face"), tasks=("emotion",), run="t")


def search_of(root: str, run: str, *members: tuple[float, dict], **config) -> None:
    """What a finished search leaves."""
    facts = {"net": "concat_mlp", "tasks": ["emotion"], "folds": None, "score": None, **config}
    storage.publish_json(facts, layout.run_uri(root, run, layout.CONFIG))
    storage.publish_json({}, layout.run_uri(root, run, layout.SPACE))
    summary = {"members": [{"score": score, "values": values} for score, values in members]}
    storage.publish_json(summary, layout.run_uri(root, run, layout.SUMMARY))


def starts(base, fresh=False):
    space = read_space(SPACE, base)
    return starts_of(base, space, input_cycle(SETS), score=None, fresh=fresh)


class TestStarts:
    def test_each_set_of_inputs_begins_with_the_best_that_was_found_for_it(self, base):
        other = {**GOOD, "inputs": ["voice"], "lr": 1e-3}
        search_of(base.root, "a", (0.5, GOOD), (0.7, other))
        found = starts(base)
        assert [json.loads(start["inputs"]) for start in found] == input_cycle(SETS)
        assert [start["lr"] for start in found] == [1e-3, 5e-3, 5e-3]

    def test_the_list_is_kept_from_the_first_start_on(self, base):
        search_of(base.root, "a", (0.5, GOOD))
        found = starts(base)
        search_of(base.root, "b", (0.1, {**GOOD, "lr": 2e-3}))
        assert starts(base) == found
        assert starts(base, fresh=True) == found

    def test_a_fresh_search_looks_at_none(self, base):
        search_of(base.root, "a", (0.5, GOOD))
        assert starts(base, fresh=True) == []

    def test_the_first_search_of_a_root_has_none(self, base):
        assert starts(base) == []


class TestOthers:
    @pytest.mark.parametrize(
        "config", [{"tasks": ["arousal"]}, {"score": "accuracy"}, {"folds": "speaker"}]
    )
    def test_a_search_for_something_else_says_nothing(self, base, config):
        search_of(base.root, "a", (0.5, GOOD), **config)
        assert members_of_others(base, None) == []

    def test_best_first_and_without_baselines_and_itself(self, base):
        search_of(base.root, "a", (0.5, GOOD), (0.2, {"net": "linear", "inputs": ["face"]}))
        search_of(base.root, "b", (0.4, {**GOOD, "lr": 1e-3}))
        search_of(base.root, "t", (0.1, GOOD))
        assert [values["lr"] for values in members_of_others(base, None)] == [1e-3, 5e-3]

    def test_a_run_of_train_is_no_search(self, base):
        search_of(base.root, "a", (0.5, GOOD))
        storage.remove(layout.run_uri(base.root, "a", layout.SPACE))
        assert members_of_others(base, None) == []


class TestParams:
    @pytest.mark.parametrize(
        ("change", "gone"),
        [
            ({"lr": 1.0}, "lr"),
            ({"lr": True}, "lr"),
            ({"batch_size": 64}, "batch_size"),
            ({"inputs": ["words"]}, "inputs"),
            ({"lmf.rank": 9}, "lmf.rank"),
            ({"lmf.rank": 1.5}, "lmf.rank"),
        ],
    )
    def test_a_value_outside_of_the_space_is_left_to_the_sampler(self, base, change, gone):
        space = read_space(SPACE, base)
        whole = params_of(GOOD, space, base.net)
        found = params_of({**GOOD, **change}, space, base.net)
        assert {**found, gone: whole[gone]} == whole
        assert gone not in found

    def test_a_net_that_is_not_searched_gives_nothing(self, base):
        assert params_of({**GOOD, "net": "tfn"}, read_space(SPACE, base), base.net) == {}

    def test_what_is_fixed_and_options_of_other_nets_are_not_drawn(self, base):
        space = read_space(SPACE, base)
        assert "epochs" not in params_of(GOOD, space, base.net)
        assert "lmf.rank" not in params_of({**GOOD, "net": "gated"}, space, base.net)

    def test_a_trial_of_optuna_takes_them(self, base):
        import optuna

        space = read_space(SPACE, base)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.enqueue_trial(params_of(GOOD, space, base.net))
        assert space.draw(study.ask(), base.net) == GOOD


def test_a_run_of_another_name_does_not_share_the_list(base):
    search_of(base.root, "a", (0.5, GOOD))
    assert starts(base)
    assert starts(dataclasses.replace(base, run="u"), fresh=True) == []

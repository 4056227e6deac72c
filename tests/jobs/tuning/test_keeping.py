"""Members of a search: what a trial has to beat to be one, and the seeds that there is time for."""

import dataclasses
import random
from types import SimpleNamespace

import pytest

from cluster import storage
from cluster.clock import command, command_began
from jobs import train
from jobs.catalog import layout
from jobs.training.run import claim, grown, is_complete, parts_of
from jobs.tuning.deadline import Deadline
from jobs.tuning.keeping import Reserve, affordable, need_s, tidy
from jobs.tuning.member_selection import members_of
from jobs.tuning.space import BASELINE, with_values
from jobs.tuning.standing import Standing
from jobs.tuning.trial_records import Record, member_config


@pytest.fixture
def base(root):
    return train.Config(
        root=root, inputs=("voice", "face"), tasks=("emotion",), folds="speaker", run="t",
        net="lmf", pool="mean", epochs=2, tracking=False, workers=0,
    )  # fmt: skip


def record(number: int, score: float, inputs=("voice",), net="lmf", seconds=3.0) -> Record:
    return Record(
        number=number, state="finished", score=score, steps=3, seconds=seconds,
        values={"net": net, "inputs": list(inputs)},
    )  # fmt: skip


def some_trials(seed: int) -> list[Record]:
    draw = random.Random(seed)
    sets = [("voice",), ("face",), ("voice", "face")]
    nets = [BASELINE, "lmf", "gated"]
    return [
        record(number, round(draw.random(), 2), draw.choice(sets), draw.choice(nets))
        for number in range(draw.randint(1, 20))
    ]


class TestMembers:
    @pytest.mark.parametrize("seed", range(30))
    def test_the_best_baseline_is_among_any_two_or_more(self, seed):
        trials = some_trials(seed)
        scores = {trial.number: trial.score for trial in trials}
        linear = [trial for trial in trials if trial.values["net"] == BASELINE]
        for keep in (2, 3, 8):
            chosen = members_of(trials, scores, keep)
            assert len(chosen) == min(keep, len(trials)) == len(set(chosen))
            assert chosen == sorted(chosen, key=lambda number: scores[number])
            if linear:
                assert min(trial.score for trial in linear) in [
                    trial.score for trial in linear if trial.number in chosen
                ]

    @pytest.mark.parametrize("seed", range(30))
    def test_a_trial_that_does_not_reach_the_bar_would_be_no_member(self, seed):
        trials = some_trials(seed)
        base = train.Config(root="r", inputs=("voice", "face"), run="t")
        for keep in (2, 3, 8):
            standing = Standing(base, keep, trials)
            for inputs in (["voice"], ["face"], ["voice", "face"]):
                bar = standing.bar(inputs)
                if bar == float("inf"):  # there is room, or it would be the first of its inputs
                    continue
                late = record(99, bar + 0.001, inputs)
                scores = {trial.number: trial.score for trial in [*trials, late]}
                assert 99 not in members_of([*trials, late], scores, keep)

    def test_nets_of_one_that_is_no_longer_a_member_are_removed(self, base):
        standing = Standing(base, 1, [])
        for number, score in ((0, 0.5), (1, 0.4), (2, 0.6)):
            one = record(number, score)
            folder = layout.run_uri(base.root, f"t-{number:05d}")
            storage.publish_json({}, storage.join(folder, "fold=0/seed=0", layout.CARD))
            standing.see(one, has_run=True)
        assert storage.names(layout.run_uri(base.root, "")) == ["t-00001"]

    def test_runs_that_an_earlier_start_left_go_and_those_of_others_stay(self, base):
        finished = [record(0, 0.5), record(1, 0.4)]
        ours = member_config(with_values(base, finished[0].values), 0)
        theirs = dataclasses.replace(
            member_config(with_values(base, finished[1].values), 1), lr=0.5
        )
        for each in (ours, theirs):
            claim(each)
        tidy(base, finished, members=[])
        assert storage.names(layout.run_uri(base.root, "")) == ["t-00001"]


class TestTime:
    def test_as_many_seeds_as_all_members_have_time_for(self, base):
        records = [record(0, 0.5), record(1, 0.6)]
        configs = {item.number: with_values(base, item.values) for item in records}
        # A net takes 1 s: two members, each with a refit of its own seed, and 3 folds and a refit a seed.
        assert [need_s(records, configs, seeds) for seeds in ((0,), (0, 1), (0, 1, 2))] == [
            2,
            10,
            18,
        ]
        for left, seeds in ((17, (0, 1)), (18, (0, 1, 2)), (9, (0,)), (1, ()), (-5, ())):
            assert affordable(records, configs, (0, 1, 2), left) == seeds

    def test_a_linear_model_has_one_seed_and_takes_no_time_once_it_is_there(self, base):
        linear = [record(0, 0.5, net=BASELINE)]
        configs = {0: with_values(base, linear[0].values)}
        assert need_s(linear, configs, (0, 1, 2)) == 1

    def test_trials_leave_time_for_members_and_fusion_but_never_for_the_first_answer(self, base):
        standing = Standing(base, 2, [record(0, 0.5), record(1, 0.6)])
        how = SimpleNamespace(seeds=(0, 1), parallel=2)
        first = SimpleNamespace(is_waiting=False, fusing_s=7.0)
        deadline = SimpleNamespace(budget_s=1000.0, left_s=lambda reserve: 500.0 - reserve)
        reserve = Reserve(base, standing, how, deadline)
        assert reserve.left_s(first) == pytest.approx(500 - 7 - 1.2 * 10 / 2)
        first.is_waiting = True
        assert reserve.left_s(first) == float("inf")
        first.is_waiting, deadline.budget_s = False, None
        assert reserve.left_s(first) == float("inf")

    def test_a_budget_counts_from_the_typed_command(self):
        began = command_began() - 90.0
        with command(began):
            deadline = Deadline.of_minutes(2.0)
        assert 0 < deadline.left_s() <= 30
        assert Deadline.of_minutes(2.0).left_s() > 60
        assert Deadline.of_minutes(None).left_s(1e9) == float("inf")
        assert "of 120 s" in deadline.said


class TestGrown:
    def test_a_run_gets_its_further_seeds_and_keeps_the_nets_it_has(self, base):
        train.main(base)
        more = dataclasses.replace(base, seeds=(0, 1))
        card = storage.read_bytes(layout.part_uri(base.root, "t", 0, 0, layout.WEIGHTS))
        assert grown(more) == more
        assert not is_complete(more)
        train.main(more)
        assert is_complete(more)
        assert storage.read_bytes(layout.part_uri(base.root, "t", 0, 0, layout.WEIGHTS)) == card
        assert grown(base) == more  # what is there stays

    def test_refits_take_their_epoch_from_all_seeds(self, base):
        train.main(base)
        grown(dataclasses.replace(base, seeds=(0, 1)))
        refits = [part for part in parts_of(base) if part.fold is None]
        assert not any(storage.exists(part.commit(base.root, "t")) for part in refits)

    @pytest.mark.parametrize("change", [{"lr": 0.5}, {"inputs": ("voice",)}])
    def test_a_run_of_another_config_is_not_touched(self, base, change):
        claim(dataclasses.replace(base, **change))
        asked = dataclasses.replace(base, seeds=(0, 1))
        before = storage.read_json(layout.run_uri(base.root, "t", layout.IDENTITY))
        assert grown(asked) == asked
        assert storage.read_json(layout.run_uri(base.root, "t", layout.IDENTITY)) == before

    def test_a_name_that_is_free_stays_free(self, base):
        assert grown(base) == base
        assert not storage.names(layout.run_uri(base.root, "t"))

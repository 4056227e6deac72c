"""Training is deterministic, resumable, and the same on one worker and on two."""

import dataclasses
import importlib.util
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from fusion.training.loop import Course, Group, RowSplit, fit
from fusion.training.objective import Objective
from fusion.training.ordering import epoch_steps, share_of
from fusion.training.predicting import predict
from fusion.training.recipe import Recipe

spec = importlib.util.spec_from_file_location(
    "training_data", Path(__file__).with_name("training_data.py")
)
made_up = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made_up)

RECIPE = Recipe(epochs=6, patience=0, batch_size=16, lr=5e-3)
TRAIN, VALID = torch.arange(45), torch.arange(45, 60)


def train(recipe=RECIPE, *, resume=None, on_epoch=None, group=None, net="concat_mlp", **options):
    feed = made_up.MadeUp()
    return fit(
        made_up.new_predictor(feed, TRAIN, net, **options),
        feed,
        RowSplit(train=TRAIN, valid=VALID),
        recipe,
        tasks=made_up.TASKS,
        group=group,
        course=Course(seed=3, resume=resume, on_epoch=on_epoch),
    )


def weights(fitted):
    return fitted.predictor.state_dict()


def assert_equal(ours, theirs, *, tolerance: float = 0.0):
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=tolerance, atol=tolerance, msg=name)


class Seen(made_up.MadeUp):
    """The same clips with views: louder and louder. Only training rows may be looked at so."""

    def __init__(self, num_views: int, rows=TRAIN) -> None:
        super().__init__()
        self.num_views, self.allowed = num_views, set(rows.tolist())
        self.drawn: list[tuple[int, int]] = []

    def batch_in_views(self, rows, views):
        assert self.allowed.issuperset(rows.tolist())
        self.drawn += zip(rows.tolist(), views.tolist(), strict=True)
        batch = self.batch(rows)
        louder = (1 + 0.5 * views).reshape(-1, 1, 1)
        inputs = {
            name: dataclasses.replace(item, values=item.values * louder)
            for name, item in batch.inputs.items()
        }
        return dataclasses.replace(batch, inputs=inputs)


class Large(made_up.MadeUp):
    """The same clips, said to be large."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.sizes = torch.full((60,), size)
        self.read: list[int] = []

    def batch(self, rows):
        self.read.append(len(rows))
        return super().batch(rows)


class TestLargeRows:
    """Where nothing is trained a few of them are read at a time."""

    @pytest.mark.parametrize(("size", "most"), [(1, 128), (2**24, 4), (2**26, 1), (2**40, 1)])
    def test_say_what_they_say_together(self, size, most):
        feed = Large(size)
        predictor = made_up.new_predictor(feed, TRAIN)
        expected = predict(predictor, made_up.MadeUp(), torch.arange(60)).logits
        feed.read.clear()
        found = predict(predictor, feed, torch.arange(60)).logits
        assert max(feed.read) == min(60, most)
        for task, values in expected.items():
            torch.testing.assert_close(found[task], values)

    def test_of_a_net_that_nobody_has_asked_yet_too(self):
        feed = Large(2**26)
        rows = RowSplit(train=TRAIN, valid=VALID[:0])
        predictor = made_up.new_predictor(feed, TRAIN)
        feed.read.clear()
        fit(predictor, feed, rows, RECIPE, tasks=made_up.TASKS)
        assert feed.read[-1] == 1


class TestViews:
    """Training rows are drawn among the original and its views; nothing else ever is."""

    def fit(self, feed, **how):
        return fit(
            made_up.new_predictor(feed, TRAIN),
            feed,
            RowSplit(train=TRAIN, valid=VALID),
            RECIPE,
            tasks=made_up.TASKS,
            course=Course(seed=3, **how),
        )

    def test_every_epoch_draws_each_row_once_and_all_views_come_up(self):
        feed = Seen(2)
        self.fit(feed)
        assert len(feed.drawn) == RECIPE.epochs * len(TRAIN)
        assert {view for _, view in feed.drawn} == {0, 1, 2}
        first, second = feed.drawn[: len(TRAIN)], feed.drawn[len(TRAIN) : 2 * len(TRAIN)]
        assert dict(first) != dict(second)

    def test_the_same_seed_gives_the_same_weights_and_other_ones_than_without_views(self):
        once = weights(self.fit(Seen(2)))
        assert_equal(once, weights(self.fit(Seen(2))))
        plain = weights(train())
        assert any(not torch.equal(once[name], plain[name]) for name in plain)

    def test_without_views_a_feed_that_could_have_some_changes_nothing(self):
        assert_equal(weights(self.fit(Seen(0))), weights(train()))

    def test_a_run_that_was_stopped_goes_on_to_the_same_weights(self):
        states = []

        def stop(record, state):
            states.append(state())
            return record["epoch"] == 3

        self.fit(Seen(2), on_epoch=stop)
        assert_equal(weights(self.fit(Seen(2), resume=states[-1])), weights(self.fit(Seen(2))))


class TestLearning:
    def test_it_learns_what_there_is_to_learn(self):
        found = train(dataclasses.replace(RECIPE, epochs=20)).history
        assert found[-1]["train/loss"] < 0.5 * found[0]["train/loss"]
        assert found[-1]["valid/emotion/accuracy"] > 0.6

    @pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
    @pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
    def test_every_optimiser_and_schedule_gives_finite_weights(self, optimiser, schedule):
        recipe = dataclasses.replace(RECIPE, epochs=2, optimiser=optimiser, schedule=schedule)
        assert all(value.isfinite().all() for value in weights(train(recipe)).values())

    def test_bfloat16_stays_near_float32(self):
        low = train(dataclasses.replace(RECIPE, precision="bfloat16")).history[-1]
        assert low["train/loss"] == pytest.approx(train().history[-1]["train/loss"], rel=0.1)

    def test_what_makes_training_harder_changes_the_weights(self):
        plain = weights(train())
        for change in (
            {"modality_dropout": 0.3},
            {"feature_noise": 0.5},
            {"mixup": 0.4},
            {"class_weights": True},
            {"balanced": True},
            {"clip_norm": 0.01},
            {"lr_factors": {"heads": 0.1}},
            {"task_weights": {"arousal": 3.0}},
        ):
            changed = weights(train(dataclasses.replace(RECIPE, **change)))
            assert any(not torch.equal(value, changed[name]) for name, value in plain.items())

    def test_the_best_epoch_is_kept_and_patience_ends_the_run(self):
        recipe = dataclasses.replace(RECIPE, epochs=60, patience=3, lr=5e-2)
        fitted = train(recipe)
        losses = [record["valid/loss"] for record in fitted.history]
        assert fitted.best_epoch == 1 + losses.index(min(losses))
        assert len(losses) == fitted.best_epoch + 3

    def test_a_metric_can_choose_the_epoch(self):
        fitted = train(dataclasses.replace(RECIPE, patience=50, monitor="macro_f1"))
        scores = [record["valid/emotion/macro_f1"] for record in fitted.history]
        assert fitted.best_epoch == 1 + scores.index(max(scores))


class TestWrongRecipes:
    def test_an_option_the_loss_does_not_take_is_refused(self):
        with pytest.raises(
            ValueError, match="loss 'cross_entropy' of task 'emotion' takes no gamma"
        ):
            train(dataclasses.replace(RECIPE, loss_options={"gamma": 2.0}))

    def test_smoothing_is_of_classifications_only(self):
        train(dataclasses.replace(RECIPE, epochs=1, label_smoothing=0.1))
        tasks = {"arousal": made_up.TASKS["arousal"]}
        with pytest.raises(ValueError, match="label_smoothing takes a classification"):
            Objective(tasks, label_smoothing=0.1)

    def test_an_unknown_metric_is_refused(self):
        with pytest.raises(ValueError, match="there is no metric 'acuracy'"):
            Recipe(monitor="acuracy")

    def test_a_prefix_that_fits_no_parameter_is_refused(self):
        with pytest.raises(ValueError, match="no parameter's name starts with nothing"):
            train(dataclasses.replace(RECIPE, lr_factors={"nothing": 0.1}))


class TestSameSeedSameWeights:
    def test_two_runs_of_one_seed_are_equal(self):
        assert_equal(weights(train()), weights(train()))

    @pytest.mark.parametrize(
        "change",
        [
            {},
            {"schedule": "cosine", "modality_dropout": 0.2, "feature_noise": 0.1, "mixup": 0.3},
            {"schedule": "plateau", "patience": 2, "optimiser": "sgd"},
        ],
    )
    def test_a_run_that_goes_on_from_any_epoch_ends_like_an_undisturbed_one(self, change):
        recipe = dataclasses.replace(RECIPE, **change)
        states = []

        def keep(_record, state):
            states.append(state())
            return False

        whole = train(recipe, on_epoch=keep, dropout=0.3)
        for state in (states[0], states[len(states) // 2]):
            again = train(recipe, resume=state, dropout=0.3)
            assert_equal(weights(whole), weights(again))
            assert again.history == whole.history
            assert again.best_epoch == whole.best_epoch

    def test_parts_of_a_step_add_up_to_the_step(self):
        apart = train(dataclasses.replace(RECIPE, accumulation_steps=3))
        assert_equal(weights(train()), weights(apart), tolerance=2e-5)


class TestOrder:
    def test_every_row_comes_once_an_epoch(self):
        rows, lengths = torch.arange(100, 141), torch.arange(41) % 7 + 1
        steps = epoch_steps(rows, lengths, step_rows=8, seed=1, epoch=0)
        assert torch.equal(torch.cat(steps).sort().values, rows)
        assert max(map(len, steps)) - min(map(len, steps)) <= 1

    def test_rows_of_similar_length_come_together(self):
        lengths = torch.randint(1, 100, (512,), generator=torch.Generator().manual_seed(0))
        steps = epoch_steps(torch.arange(512), lengths, step_rows=32, seed=1, epoch=0)
        padded = sum(int(lengths[step].max()) * len(step) for step in steps)
        assert padded < 1.15 * int(lengths.sum())

    def test_rows_that_only_fill_up_weigh_nothing(self):
        rows = torch.arange(5)
        shares = [share_of(rows, rank=rank, world=3) for rank in range(3)]
        assert [len(share) for share, _ in shares] == [2, 2, 2]
        real = torch.cat([share[weight > 0] for share, weight in shares])
        assert torch.equal(real.sort().values, rows)


def _worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    fitted = train(group=Group.joined())
    torch.save({"weights": weights(fitted), "history": fitted.history}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


class TestTwoWorkers:
    def test_two_workers_equal_one_with_the_same_rows_a_step(self, tmp_path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("fork")
        workers = [
            context.Process(target=_worker, args=(rank, port, str(tmp_path))) for rank in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
            assert worker.exitcode == 0
        ours, theirs = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
        assert_equal(ours["weights"], theirs["weights"])
        alone = train()
        assert_equal(ours["weights"], weights(alone), tolerance=2e-5)
        for one, two in zip(alone.history, ours["history"], strict=True):
            assert two == pytest.approx(one, rel=1e-3)

"""The linear net: scikit-learn's solution, whatever the shape, and a penalty chosen by held-out groups."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from fusion.batch import Batch, Steps
from fusion.predictor import Card, build
from fusion.scaling import Scaler
from fusion.tasks import Task
from fusion.training import convex
from fusion.training.convex import fit_convex, folds_of
from fusion.training.penalised import held_out_error, held_out_loss, rotate
from fusion.training.recipe import Recipe

EMOTION = Task(kind="classification", classes=("a", "b", "c", "d"))
LABELS = Task(kind="multilabel", classes=("x", "y", "z"))
AROUSAL = Task(kind="regression")
SHAPES = [(60, 150), (90, 12), (70, 68)]
"""Rows and features: more features, more rows, about as many."""


class Pooled:
    """Rows of one step an input, some of them without it."""

    def __init__(self, inputs, targets, known=None, present=None):
        self.inputs, self._targets = inputs, targets
        self._known = {
            name: torch.ones_like(value, dtype=torch.bool) for name, value in targets.items()
        } | (known or {})
        self.present = present or {}
        self.lengths = torch.ones(len(next(iter(inputs.values()))), dtype=torch.int64)

    def batch(self, rows):
        every = torch.ones(len(self.lengths), dtype=torch.bool)
        return Batch(
            inputs={
                name: Steps(
                    values[rows].float().unsqueeze(1), self.present.get(name, every)[rows, None]
                )
                for name, values in self.inputs.items()
            },
            clip_id=rows,
        )

    def targets(self, rows):
        known = {name: flags[rows] for name, flags in self._known.items()}
        return {name: values[rows] for name, values in self._targets.items()}, known


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(count, width, seed=0):
    """Features, and targets of each kind that depend on them."""
    rows = draw(count, width, seed=seed)
    signal = rows @ draw(width, 4, seed=seed + 1) / width**0.5 * 2
    noisy = signal + draw(count, 4, seed=seed + 2)
    return rows, noisy.argmax(1), (noisy[:, :3] > 0.5).float(), noisy[:, 3].float()


def fitted(feed, tasks, groups=None, recipe=None, train=None, **options):
    """The net, and the record of its fit."""
    train = torch.arange(len(feed.lengths)) if train is None else train
    dims = {name: values.shape[1] for name, values in feed.inputs.items()}
    predictor = build(Card(net="linear", config=options, tasks=tasks, dims=dims))
    predictor.scaler.load_state_dict(Scaler.fitted([feed.batch(train)], dims).state_dict())
    groups = train % 9 if groups is None else groups
    found = fit_convex(
        predictor, feed, tasks=tasks, train=train, groups=groups, recipe=recipe or Recipe()
    )
    return found.predictor, found.history[0]


def behind_scaler_of(other, feed, tasks, groups, options):
    """A fit on all rows behind another one's scaler, which has seen fewer of them."""
    dims = {name: values.shape[1] for name, values in feed.inputs.items()}
    predictor = build(Card(net="linear", config=options, tasks=tasks, dims=dims))
    predictor.scaler.load_state_dict(other.scaler.state_dict())
    rows = torch.arange(len(feed.lengths))
    return fit_convex(
        predictor, feed, tasks=tasks, train=rows, groups=groups, recipe=Recipe()
    ).predictor


def scaled(predictor, feed):
    """What the weights are multiplied with, without the flags of presence."""
    batch = predictor.scaler(feed.batch(torch.arange(len(feed.lengths))))
    return np.concatenate([s.values[:, 0].double().numpy() for s in batch.inputs.values()], 1)


def logits(predictor, feed, name):
    with torch.no_grad():
        return predictor(feed.batch(torch.arange(len(feed.lengths)))).logits[name].double()


TASKS = {"emotion": EMOTION, "labels": LABELS, "arousal": AROUSAL}


class Viewed(Pooled):
    """The same rows with views: shifted ones. Only training rows may be looked at so."""

    def __init__(self, *given, shifts, allowed, **more):
        super().__init__(*given, **more)
        self.shifts, self.allowed, self.num_views = shifts, set(allowed.tolist()), len(shifts)

    def batch_in_views(self, rows, views):
        assert self.allowed.issuperset(rows.tolist())
        batch = self.batch(rows)
        shift = torch.stack([torch.zeros_like(self.shifts[0]), *self.shifts])[views]
        inputs = {
            name: Steps(item.values + shift.float().unsqueeze(1), item.mask)
            for name, item in batch.inputs.items()
        }
        return Batch(inputs=inputs, clip_id=rows)


class TestViews:
    """A net is solved on every training row and its views alike, scaled as the originals are."""

    def feed(self, kind, **more):
        rows, emotion, labels, value = made(60, 12)
        return kind({"a": rows}, dict(zip(TASKS, (emotion, labels, value), strict=True)), **more)

    @pytest.mark.parametrize("groups", [torch.arange(40) % 9, torch.zeros(40, dtype=torch.int64)])
    @pytest.mark.parametrize("options", [{}, {"penalty": "shared"}])
    def test_it_is_the_solution_of_all_of_them_as_rows(self, groups, options):
        shifts, train = draw(2, 12, seed=5), torch.arange(40)
        viewed = self.feed(Viewed, shifts=shifts, allowed=train)
        ours, _ = fitted(viewed, TASKS, groups, train=train, **options)

        plain = self.feed(Pooled)
        rows = plain.inputs["a"]
        flat = Pooled(
            {"a": torch.cat([rows[train], *(rows[train] + shift for shift in shifts)])},
            {
                name: value[train].repeat(3, *[1] * (value.ndim - 1))
                for name, value in plain._targets.items()
            },
        )
        one = groups if len(groups.unique()) > 1 else train
        theirs = behind_scaler_of(ours, flat, TASKS, one.repeat(3), options)
        for name in TASKS:
            torch.testing.assert_close(
                logits(ours, plain, name), logits(theirs, plain, name), rtol=0, atol=1e-5
            )

    def test_what_differs_between_views_of_a_row_counts_less(self):
        """A feature that every view has with another sign tells nothing."""
        emotion = torch.arange(60) % 2
        rows = torch.stack([2.0 * emotion - 1, 2.0 * emotion - 1], 1).double() + draw(60, 2) / 4
        train = torch.arange(60)
        without = Pooled({"a": rows}, {"emotion": emotion})

        class Turned(Viewed):
            def batch_in_views(self, rows, views):
                batch = self.batch(rows)
                turned = batch.inputs["a"].values * torch.tensor([1.0, -1.0])
                return Batch(inputs={"a": Steps(turned, batch.inputs["a"].mask)}, clip_id=rows)

        turned = Turned({"a": rows}, {"emotion": emotion}, shifts=[rows[0]], allowed=train)
        task = {"emotion": Task(kind="classification", classes=("a", "b"))}
        for feed, most in ((without, None), (turned, 0.2)):
            weight = fitted(feed, task)[0].net.heads.task["emotion"].weight[1].detach().abs()
            share = float(weight[1] / weight[0])
            assert share > 0.5 if most is None else share < most


class TestSolution:
    @pytest.mark.parametrize(("count", "width"), SHAPES)
    @pytest.mark.parametrize("penalty", [1e-4, 1e-2, 0.5])
    @pytest.mark.parametrize("balanced", [False, True])
    def test_a_classification_is_scikit_learns(self, count, width, penalty, balanced):
        rows, emotion, _, _ = made(count, width)
        feed = Pooled({"a": rows}, {"emotion": emotion})
        predictor, record = fitted(
            feed,
            {"emotion": EMOTION},
            recipe=Recipe(class_weights=balanced),
            path=1,
            strongest=penalty,
            weakest=penalty,
        )
        assert record["emotion/penalty"] == pytest.approx(penalty)
        x = scaled(predictor, feed)
        reference = LogisticRegression(
            C=1 / (penalty * x.var(0).sum() * count),
            class_weight="balanced" if balanced else None,
            tol=1e-9,
            max_iter=10_000,
        ).fit(x, emotion.numpy())
        ours = logits(predictor, feed, "emotion").softmax(1).numpy()
        np.testing.assert_allclose(ours, reference.predict_proba(x), atol=1e-5)

    @pytest.mark.parametrize(("count", "width"), SHAPES)
    @pytest.mark.parametrize("penalty", [1e-3, 0.1])
    def test_each_label_is_scikit_learns_logistic_on_the_rows_that_have_it(
        self, count, width, penalty
    ):
        rows, _, labels, _ = made(count, width)
        known = draw(count, 3, seed=8) > -1
        feed = Pooled({"a": rows}, {"labels": labels}, {"labels": known})
        options = {"path": 1, "strongest": penalty, "weakest": penalty}
        predictor, _ = fitted(feed, {"labels": LABELS}, **options)
        x = scaled(predictor, feed)
        ours = logits(predictor, feed, "labels").sigmoid().numpy()
        for label in range(3):
            at = known[:, label].numpy()
            strength = penalty * x[known.any(1).numpy()].var(0).sum() * at.sum()
            reference = LogisticRegression(C=1 / strength, tol=1e-9, max_iter=10_000)
            reference.fit(x[at], labels[at, label].numpy())
            np.testing.assert_allclose(ours[:, label], reference.predict_proba(x)[:, 1], atol=1e-5)

    @pytest.mark.parametrize(("count", "width"), SHAPES)
    @pytest.mark.parametrize("penalty", [1e-4, 0.1])
    def test_a_regression_is_scikit_learns_ridge(self, count, width, penalty):
        rows, _, _, value = made(count, width)
        feed = Pooled({"a": rows}, {"arousal": value})
        options = {"path": 1, "strongest": penalty, "weakest": penalty}
        predictor, _ = fitted(feed, {"arousal": AROUSAL}, **options)
        x = scaled(predictor, feed)
        reference = Ridge(alpha=penalty * x.var(0).sum() * count).fit(x, value.numpy())
        ours = logits(predictor, feed, "arousal")[:, 0].numpy()
        np.testing.assert_allclose(ours, reference.predict(x), atol=1e-4)

    def test_several_tasks_are_each_what_they_are_alone(self):
        rows, emotion, labels, value = made(60, 80)
        targets = {"emotion": emotion, "labels": labels, "arousal": value}
        known = {"emotion": draw(60, seed=5) > -1}
        tasks = {"emotion": EMOTION, "labels": LABELS, "arousal": AROUSAL}
        feed = Pooled({"a": rows}, targets, known)
        together, _ = fitted(feed, tasks)
        for name, task in tasks.items():
            alone, _ = fitted(feed, {name: task})
            torch.testing.assert_close(logits(together, feed, name), logits(alone, feed, name))

    @pytest.mark.parametrize("penalty", ["shared", "each"])
    def test_it_is_the_same_whatever_weights_it_had_before(self, penalty):
        rows, emotion, _, _ = made(50, 30)
        feed = Pooled({"a": rows[:, :10], "b": rows[:, 10:]}, {"emotion": emotion})
        found = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            predictor, _ = fitted(feed, {"emotion": EMOTION}, penalty=penalty)
            found.append(logits(predictor, feed, "emotion"))
        assert torch.equal(*found)


class TestPath:
    @pytest.mark.parametrize(("count", "width"), SHAPES)
    def test_held_out_losses_are_those_of_a_slow_loop(self, count, width):
        rows, emotion, _, _ = made(count, width)
        fold = torch.arange(count) % 4
        path = torch.logspace(0.5, -2, 4, dtype=torch.float64)
        mass = torch.nn.functional.one_hot(emotion, 4).double().unsqueeze(1) / count
        ours, _ = held_out_loss(rotate(rows), mass, fold, path)
        for at, penalty in enumerate(path.tolist()):
            losses = []
            for held in range(4):
                seen, judged = (fold != held).numpy(), (fold == held).numpy()
                model = LogisticRegression(C=1 / (penalty * count), tol=1e-9, max_iter=10_000)
                model.fit(rows[seen].numpy(), emotion[seen].numpy())
                said = model.predict_log_proba(rows[judged].numpy())
                losses += list(-said[np.arange(judged.sum()), emotion[judged].numpy()])
            left_out = bool(ours[at].isinf())
            assert left_out or float(ours[at, 0]) == pytest.approx(np.mean(losses), rel=1e-3)

    @pytest.mark.parametrize(("count", "width"), SHAPES)
    def test_held_out_errors_of_ridge_are_those_of_a_slow_loop(self, count, width):
        rows, _, _, value = made(count, width)
        value = value.double()
        fold = torch.arange(count) % 4
        path = torch.logspace(1, -3, 4, dtype=torch.float64)
        ours = held_out_error(rotate(rows), value, fold, path)
        for at, penalty in enumerate(path.tolist()):
            errors = []
            for held in range(4):
                seen, judged = (fold != held).numpy(), (fold == held).numpy()
                model = Ridge(alpha=penalty * count).fit(rows[seen].numpy(), value[seen].numpy())
                errors += list((model.predict(rows[judged].numpy()) - value[judged].numpy()) ** 2)
            assert float(ours[at]) == pytest.approx(np.mean(errors), rel=1e-6)

    def test_weaker_penalties_are_left_out_once_nothing_gains(self):
        rows, _, _, _ = made(40, 100)
        noise = torch.arange(40) % 4
        mass = torch.nn.functional.one_hot(noise, 4).double().unsqueeze(1) / 40
        path = torch.logspace(2, -4, 7, dtype=torch.float64)
        losses, starts = held_out_loss(rotate(rows), mass, torch.arange(40) % 5, path)
        assert losses[:3].isfinite().all()
        assert losses[-1].isinf().all()
        assert len(starts) == 7

    def test_the_penalty_is_chosen_by_groups_and_not_by_rows(self):
        """Each person has a mood and a face: rows of people that were seen need no penalty."""
        person = torch.arange(120) // 6
        rows = draw(20, 40)[person] + 0.1 * draw(120, 40, seed=1)
        emotion = torch.randint(4, (20,), generator=torch.Generator().manual_seed(2))[person]
        feed = Pooled({"a": rows}, {"emotion": emotion})
        by_person = fitted(feed, {"emotion": EMOTION}, groups=person)[1]
        by_row = fitted(feed, {"emotion": EMOTION}, groups=torch.arange(120))[1]
        assert by_person["emotion/penalty"] > 10 * by_row["emotion/penalty"]

    def test_folds_keep_groups_whole_and_are_about_equal(self):
        groups = torch.randint(30, (400,), generator=torch.Generator().manual_seed(0))
        fold = folds_of(groups, 5)
        assert all(len(fold[groups == group].unique()) == 1 for group in groups.unique())
        assert fold.bincount().float().std() < 5
        assert folds_of(groups[groups < 2], 5).unique().tolist() == [0, 1]
        assert folds_of(torch.zeros(10, dtype=torch.int64), 5).bincount().tolist() == [2] * 5


class TestRows:
    def test_rows_without_a_label_or_without_any_input_have_no_say(self):
        rows, emotion, _, _ = made(80, 10)
        left_out = torch.arange(80) % 5 == 0
        spoilt = torch.where(left_out, 3, emotion)
        options = {"path": 3}
        task = {"emotion": EMOTION}
        kept = (~left_out).nonzero().squeeze(1)
        groups = torch.arange(80) % 7
        feed = Pooled({"a": rows}, {"emotion": emotion})
        expected = fitted(feed, task, groups[kept], train=kept, **options)[0]
        unlabelled = Pooled({"a": rows}, {"emotion": spoilt}, {"emotion": ~left_out})
        absent = Pooled({"a": rows}, {"emotion": spoilt}, present={"a": ~left_out})
        for other in (unlabelled, absent):
            found = behind_scaler_of(expected, other, task, groups, options)
            torch.testing.assert_close(
                logits(found, feed, "emotion"), logits(expected, feed, "emotion")
            )

    def test_that_an_input_is_missing_is_used_where_it_means_something(self):
        rows, emotion, _, _ = made(200, 6)
        present = emotion != 0
        feed = Pooled({"a": rows, "b": draw(200, 5, seed=4)}, {"emotion": emotion})
        without, full = fitted(feed, {"emotion": EMOTION})
        feed.present = {"b": present}
        _, hinted = fitted(feed, {"emotion": EMOTION})
        assert hinted["emotion/inner_loss"] < 0.7 * full["emotion/inner_loss"]
        flags = without.net.heads.task["emotion"].weight[:, [6, 12]]
        assert float(flags.detach().abs().max()) < 1e-9

    def test_a_class_that_training_never_saw_is_improbable_and_finite(self):
        rows, emotion, labels, _ = made(60, 100)
        labels[:, 1] = 0
        feed = Pooled({"a": rows}, {"emotion": emotion.clamp(max=2), "labels": labels})
        predictor, _ = fitted(feed, {"emotion": EMOTION, "labels": LABELS})
        never = logits(predictor, feed, "emotion").softmax(1)[:, 3]
        assert 0.001 < float(never.mean()) < 0.02
        never = logits(predictor, feed, "labels").sigmoid()[:, 1]
        assert 0.001 < float(never.mean()) < 0.02

    @pytest.mark.parametrize("kind", ["one row", "two rows", "constant", "one class", "twins"])
    def test_rows_with_little_to_learn_from_give_finite_answers(self, kind):
        rows, emotion, labels, value = made({"one row": 1, "two rows": 2}.get(kind, 30), 8)
        if kind == "constant":
            rows = torch.ones_like(rows)
        if kind == "one class":
            emotion, labels, value = emotion * 0, labels * 0, value * 0
        if kind == "twins":
            rows = rows[:1].expand(30, -1).clone()
        feed = Pooled({"a": rows}, {"emotion": emotion, "labels": labels, "arousal": value})
        tasks = {"emotion": EMOTION, "labels": LABELS, "arousal": AROUSAL}
        for penalty in ("shared", "each"):
            predictor, _ = fitted(feed, tasks, penalty=penalty)
            for name in tasks:
                assert bool(logits(predictor, feed, name).isfinite().all())

    def test_nothing_to_learn_from_is_refused(self):
        rows, emotion, _, _ = made(20, 5)
        nothing = torch.zeros(20, dtype=torch.bool)
        feed = Pooled({"a": rows}, {"emotion": emotion}, {"emotion": nothing})
        with pytest.raises(ValueError, match="no training row has a label of 'emotion'"):
            fitted(feed, {"emotion": EMOTION})
        with pytest.raises(ValueError, match="no training rows"):
            fitted(feed, {"emotion": EMOTION}, train=torch.arange(0))


class TestOwnPenalties:
    def test_a_modality_of_noise_is_held_back_by_a_penalty_of_its_own(self):
        rows, emotion, _, _ = made(150, 8)
        inputs = {"noise": draw(150, 60, seed=9), "signal": rows}
        feed = Pooled(inputs, {"emotion": emotion})
        of_noise = {}
        losses = {}
        for penalty in ("shared", "each"):
            predictor, record = fitted(feed, {"emotion": EMOTION}, penalty=penalty)
            weight = predictor.net.heads.task["emotion"].weight.detach()
            of_noise[penalty] = float(weight[:, :60].norm() / weight[:, 61:69].norm())
            losses[penalty] = record["emotion/inner_loss"]
        assert of_noise["each"] < 0.5 * of_noise["shared"]
        assert losses["each"] < losses["shared"]

    @pytest.mark.parametrize("kind", ["emotion", "labels", "arousal"])
    def test_penalties_remembered_from_other_sets_change_nothing(self, kind):
        rows, emotion, labels, arousal = made(90, 20)
        tasks = {kind: {"emotion": EMOTION, "labels": LABELS, "arousal": AROUSAL}[kind]}
        target = {kind: {"emotion": emotion, "labels": labels, "arousal": arousal}[kind]}
        inputs = {"a": rows[:, :12], "b": rows[:, 12:], "c": draw(90, 5, seed=3)}
        sets = (["a"], ["b"], ["a", "b"], ["a", "b", "c"], ["b", "c"])

        def weights(names):
            feed = Pooled({name: inputs[name] for name in names}, target)
            return fitted(feed, tasks)[0].net.heads.task[kind].weight.detach()

        cold = []
        for names in sets:
            convex._alone.clear()
            cold.append(weights(names))
        for names, alone in zip(sets, cold, strict=True):
            assert torch.equal(weights(names), alone)

    def test_only_so_many_penalties_are_remembered(self, monkeypatch):
        monkeypatch.setattr(convex, "KNOWN", 3)
        for seed in range(5):
            rows, emotion, _, _ = made(40, 6, seed=seed)
            fitted(Pooled({"a": rows[:, :3], "b": rows[:, 3:]}, {"emotion": emotion}),
                   {"emotion": EMOTION})  # fmt: skip
        assert len(convex._alone) == 3

    def test_options_out_of_range_are_refused(self):
        for options in ({"path": 0}, {"folds": 1}, {"weakest": 0.0}, {"weakest": 1.0}):
            with pytest.raises(ValueError, match=r"expected (path of )?1 or more"):
                fitted(Pooled({"a": draw(9, 2)}, {}), {"emotion": EMOTION}, **options)

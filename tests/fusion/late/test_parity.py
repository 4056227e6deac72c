"""Late fusion equals the original authors' values and scikit-learn."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import VotingClassifier

from fusion.late import rule_class
from fusion.late._candidates import CandidateLosses
from fusion.late._margins import ClassMargins
from fusion.late.calibration import Calibration, temperature
from fusion.late.caruana import pooled
from fusion.late.members import Members
from fusion.metrics import metric

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = Path(os.environ.get("AFFUSE_GOLDEN", ROOT.parent / "shared" / "golden"))
METRICS = {
    "log_loss": "nll",
    "accuracy": "accuracy",
    "mean_absolute_error": "mae",
    "root_mean_squared_error": "rmse",
}


def golden(name):
    path = GOLDEN / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no golden values at {path}; set AFFUSE_GOLDEN")
    return np.load(path, allow_pickle=False)


def members_of(scores, kind):
    scores = torch.from_numpy(scores)
    if kind == "regression":
        scores = scores.unsqueeze(2)
    elif scores.ndim == 2:
        scores = torch.stack([1 - scores, scores], 2)
    names = [f"m{i}" for i in range(len(scores))]
    return Members.from_probabilities(names, kind, scores)


class TestCaruanaEqualsAutoGluon:
    @pytest.mark.parametrize("ties", ["random", "second_metric"])
    @pytest.mark.parametrize(
        ("case", "theirs"),
        [(i, m) for i in range(3) for m in ("log_loss", "accuracy")]
        + [(3, "mean_absolute_error"), (3, "root_mean_squared_error")],
    )
    def test_in_order_weights_and_trajectory(self, case, theirs, ties):
        data = golden("ensemble_selection")
        key = f"output/{case}/{theirs}/{ties}"
        if f"{key}/weights" not in data:
            pytest.skip("the second metric has no meaning for values")
        kind = "regression" if case == 3 else "classification"
        members = members_of(data[f"input/{case}/predictions"], kind)
        target = torch.from_numpy(data[f"input/{case}/truth"])
        rule = rule_class("caruana")
        size = int(data[f"hyper/{case}/ensemble_size"])
        config = rule.Config(size=size, metric=METRICS[theirs], ties=ties)
        fitted = rule.fit(config, members, target)
        part = fitted.parts[0]
        assert part["order"].int().tolist() == data[f"{key}/order"].tolist()
        np.testing.assert_allclose(part["weights"], data[f"{key}/weights"], atol=1e-9)
        # Losses of values are in standard deviations of the targets, and so are their six decimals.
        trajectory, close = part["trajectory"] * fitted.scale.unit, 1e-9 if case < 3 else 1e-6
        np.testing.assert_allclose(trajectory, data[f"{key}/trajectory"], atol=close)
        fused = fitted.combine(members)
        fused = fused.squeeze(1) if case == 3 else fused.exp()
        fused = fused[:, 1] if case == 2 else fused
        np.testing.assert_allclose(fused, data[f"{key}/prediction"], atol=1e-9)


class TestTemperature:
    @pytest.mark.parametrize("case", range(3))
    def test_equals_the_exact_minimum_and_autogluon(self, case):
        data = golden("temperature")
        logits = torch.from_numpy(data[f"input/{case}/logits"])
        truth = torch.from_numpy(data[f"input/{case}/truth"])
        found = temperature(logits, truth)
        assert found == pytest.approx(float(data[f"output/{case}/temperature_exact"]), rel=1e-6)
        assert found == pytest.approx(float(data[f"output/{case}/temperature_autogluon"]), rel=1e-3)
        fitted = Calibration.fit("temperature", "classification", logits, truth)
        assert fitted.temperature == (pytest.approx(found, rel=1e-9),)
        np.testing.assert_allclose(
            fitted.apply(logits).exp(), data[f"output/{case}/prob_exact"], atol=1e-6
        )


class TestVotes:
    @pytest.mark.parametrize("weighting", ["equal", "weighted"])
    @pytest.mark.parametrize("case", range(3))
    def test_hard_and_soft_equal_scikit_learn(self, case, weighting):
        data = golden("voting")
        members = members_of(data[f"input/{case}/prob"], "classification")
        truth = torch.zeros(members.num_rows, dtype=torch.int64)
        weights = tuple(data[f"input/{case}/weights"].tolist()) if weighting == "weighted" else ()
        vote, mean = rule_class("vote"), rule_class("mean")
        mode = "weighted" if weights else "hard"
        hard = vote.fit(vote.Config(mode=mode, weights=weights), members, truth)
        soft = mean.fit(mean.Config(weights=weights), members, truth)
        labels = hard.combine(members).argmax(1)
        assert labels.tolist() == data[f"output/{case}/hard/{weighting}/label"].tolist()
        p = soft.combine(members).exp()
        np.testing.assert_allclose(p, data[f"output/{case}/soft/{weighting}/prob"], atol=1e-12)
        assert p.argmax(1).tolist() == data[f"output/{case}/soft/{weighting}/label"].tolist()

    def test_equal_a_voting_classifier_on_fitted_models(self):
        from sklearn.datasets import make_classification
        from sklearn.linear_model import LogisticRegression
        from sklearn.naive_bayes import GaussianNB

        x, y = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
        models = [("a", LogisticRegression(max_iter=500)), ("b", GaussianNB())]
        theirs = VotingClassifier(models, voting="soft", weights=[2, 1]).fit(x, y)
        p = np.stack([model.predict_proba(x) for model in theirs.estimators_])
        members = members_of(p, "classification")
        mean = rule_class("mean")
        ours = mean.fit(mean.Config(weights=(2.0, 1.0)), members, torch.from_numpy(y))
        np.testing.assert_allclose(ours.combine(members).exp(), theirs.predict_proba(x), atol=1e-12)


class TestStacking:
    @pytest.mark.parametrize("classes", [2, 3])
    def test_equals_a_stacking_classifier_over_the_same_models(self, classes):
        from sklearn.datasets import make_classification
        from sklearn.ensemble import StackingClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.naive_bayes import GaussianNB

        x, y = make_classification(200, 6, n_informative=4, n_classes=classes, random_state=1)
        models = [("a", LogisticRegression(max_iter=500)), ("b", GaussianNB())]
        fitted = [(name, model.fit(x[:100], y[:100])) for name, model in models]
        final = LogisticRegression(tol=1e-10, max_iter=5000)
        theirs = StackingClassifier(fitted, final, cv="prefit", stack_method="predict_proba")
        theirs.fit(x[100:], y[100:])
        p = np.stack([model.predict_proba(x[100:]) for _, model in fitted])
        members = members_of(p, "classification")
        stacking = rule_class("stacking")
        config = stacking.Config(features="probabilities", C=1.0)
        ours = stacking.fit(config, members, torch.from_numpy(y[100:]))
        np.testing.assert_allclose(
            ours.combine(members).exp(), theirs.predict_proba(x[100:]), atol=1e-5
        )

    def test_of_values_equals_ridge_on_values_in_standard_deviations_of_the_targets(self):
        from sklearn.linear_model import Ridge

        x = np.random.default_rng(0).normal(size=(80, 3))
        y = x @ [0.5, 0.3, 0.0] + 1
        members = members_of(x.T, "regression")
        stacking = rule_class("stacking")
        ours = stacking.fit(stacking.Config(C=0.5), members, torch.from_numpy(y))
        theirs = Ridge(alpha=2.0 * y.var()).fit(x, y)
        np.testing.assert_allclose(ours.combine(members)[:, 0], theirs.predict(x), atol=1e-9)


class TestWeighted:
    def test_by_log_loss_reaches_the_convex_minimum(self):
        from scipy.optimize import minimize

        rng = np.random.default_rng(0)
        p = rng.dirichlet([1, 1, 1], size=(4, 300))
        y = np.array([rng.choice(3, p=row) for row in 0.7 * p[0] + 0.3 * p[1]])
        members = members_of(p, "classification")
        weighted = rule_class("weighted")
        ours = weighted.fit(weighted.Config(candidates=512), members, torch.from_numpy(y))
        truth = p[:, np.arange(300), y]
        theirs = minimize(
            lambda w: -np.log(w @ truth).mean(),
            np.full(4, 0.25),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        )
        loss = -np.log(np.array(list(ours.member_weights().values())) @ truth).mean()
        assert loss <= theirs.fun + 1e-6

    def test_by_a_metric_of_labels_is_never_worse_than_equal_weights_or_a_member(self):
        rng = np.random.default_rng(1)
        p = rng.dirichlet([1, 1, 1], size=(4, 300))
        y = torch.from_numpy(np.array([rng.choice(3, p=row) for row in 0.7 * p[0] + 0.3 * p[1]]))
        members = members_of(p, "classification")
        weighted = rule_class("weighted")
        for space in ("linear", "log"):
            config = weighted.Config(metric="macro_f1", space=space, candidates=256)
            fused = weighted.fit(config, members, y).combine(members).exp()
            score = metric("macro_f1")(fused, y)
            assert score >= max(metric("macro_f1")(torch.from_numpy(m), y) for m in p)


class TestTheInnerSolver:
    @pytest.mark.parametrize("space", ["linear", "log"])
    @pytest.mark.parametrize("measure", ["nll", "accuracy", "macro_f1"])
    @pytest.mark.parametrize("gaps", [False, True])
    def test_scores_every_weighting_as_the_rule_would(self, measure, space, gaps):
        rng = np.random.default_rng(3)
        p = torch.from_numpy(rng.dirichlet([1, 1, 1], size=(4, 101)))
        y = torch.from_numpy(rng.integers(3, size=101))
        present = torch.from_numpy(rng.random((4, 101)) > 0.3) if gaps else None
        members = Members.from_probabilities("abcd", "classification", p, present)
        keep = members.present.any(0)
        members, y = members.rows(keep).cleaned(), y[keep]
        objective = CandidateLosses(
            members=members,
            target=y,
            weights=torch.ones(len(y), dtype=torch.float64),
            metric=measure,
            space=space,
        )
        weightings = torch.from_numpy(rng.dirichlet([1, 1, 1, 1], size=20))
        found = metric(measure)
        slow = [found.loss(found(pooled(w, members, space).exp(), y)) for w in weightings]
        # Accuracy is judged by its error rate, as selections round it.
        slow = np.array(slow) + (measure == "accuracy")
        np.testing.assert_allclose(objective.losses(weightings), slow, rtol=1e-9)
        np.testing.assert_allclose(objective.screen(weightings), slow, rtol=1e-5)


def rivals_case(*, classes=4, rows=151, ties=False, seed=0):
    """An objective by accuracy, its members' probabilities in plain NumPy, and the targets."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), size=(6, rows))
    if ties:
        p = np.round(p * 4) / 4
        p[..., 0] += 1e-3 * (p.sum(2) == 0)
    y = rng.integers(classes, size=rows)
    members = Members.from_probabilities("abcdef", "classification", torch.from_numpy(p))
    weights = torch.from_numpy(rng.integers(1, 4, size=rows)).double()
    target = torch.from_numpy(y)
    return CandidateLosses(
        members=members.cleaned(), target=target, weights=weights, metric="accuracy"
    ), y


class TestClassMargins:
    @pytest.mark.parametrize("classes", [2, 4, 9])
    @pytest.mark.parametrize("ties", [False, True])
    @pytest.mark.parametrize("picks", [0, 1, 4, 30])
    def test_one_more_member_is_judged_as_a_plain_loop_judges_it(self, classes, ties, picks):
        objective, y = rivals_case(classes=classes, ties=ties)
        terms, weights = objective.sums[0].numpy(), objective.weights.numpy()
        total = np.zeros_like(terms[0])
        for pick in range(picks):
            total = total + terms[pick % 5]
        slow = []
        for member in terms:
            wrong = (total + member).argmax(1) != y
            slow.append(sum(w for w, error in zip(weights, wrong, strict=True) if error))
        found = ClassMargins(objective).errors(torch.from_numpy(total))
        np.testing.assert_allclose(found, np.array(slow) / weights.sum(), atol=1e-12)

    def test_rows_of_equal_weight_give_whole_numbers_of_errors(self):
        objective, _ = rivals_case()
        even = dataclasses.replace(objective, weights=torch.ones(151, dtype=torch.float64))
        found = ClassMargins(even).errors(torch.zeros(151, 4, dtype=torch.float64))
        assert torch.equal(found, even.judge(even.terms))

    @pytest.mark.parametrize("classes", [2, 5])
    def test_every_point_of_a_line_is_judged_as_its_own_weighting(self, classes):
        objective, _ = rivals_case(classes=classes)
        draws = torch.from_numpy(np.random.default_rng(1).dirichlet(np.ones(6), size=8))
        found = ClassMargins(objective).along(draws[0], draws[1:], 33)
        for end, errors in zip(draws[1:], found, strict=True):
            share = torch.linspace(0, 1, 33, dtype=torch.float64).unsqueeze(1)
            each = objective.losses((1 - share) * draws[0] + share * end)
            np.testing.assert_allclose(errors, each, atol=1e-9)

    def test_a_line_of_one_weighting_is_that_weighting_everywhere(self):
        objective, _ = rivals_case()
        even = torch.full((6,), 1 / 6, dtype=torch.float64)
        found = ClassMargins(objective).along(even, even.unsqueeze(0), 5)
        np.testing.assert_allclose(
            found[0], objective.losses(even.unsqueeze(0)).expand(5), atol=1e-12
        )

    def test_the_search_by_accuracy_is_never_worse_than_any_member_or_equal_weights(self):
        objective, _ = rivals_case(rows=400, seed=3)
        weighted = rule_class("weighted")
        config = weighted.Config(metric="accuracy", candidates=512)
        fused = weighted.fit(config, objective.members, objective.target).combine(objective.members)
        score = metric("accuracy")(fused.exp(), objective.target)
        alone = [
            (m.argmax(1) == objective.target).double().mean() for m in objective.members.scores
        ]
        even = objective.members.scores.exp().mean(0).argmax(1) == objective.target
        assert score >= max(*alone, even.double().mean()) - 1e-12

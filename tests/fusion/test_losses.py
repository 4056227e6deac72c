"""Losses: masked, weighted sums with a referee for every formula."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fusion.losses import KINDS as OF_KINDS
from fusion.losses import LOSSES, loss_function, losses_for
from fusion.losses.triplet import adaptive_triplet
from fusion.tasks import Task
from fusion.training.objective import DEFAULT_LOSS, Objective

GOLDEN = Path(
    os.environ.get("AFFUSE_GOLDEN", Path(__file__).resolve().parents[3] / "shared/golden")
)
KINDS = {
    "bce": "multilabel",
    "ccc": "regression",
    "cross_entropy": "classification",
    "focal": "classification",
    "huber": "regression",
    "kl": "distribution",
    "l1": "regression",
    "mse": "regression",
    "triplet": "classification",
}


def example(kind, rows=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    if kind == "classification":
        return torch.randn(rows, 4, generator=g), torch.arange(rows) % 4
    if kind == "distribution":
        return torch.randn(rows, 4, generator=g), torch.rand(rows, 4, generator=g).softmax(-1)
    if kind == "multilabel":
        return torch.randn(rows, 3, generator=g), torch.randint(2, (rows, 3), generator=g).float()
    return torch.randn(rows, 1, generator=g), torch.randn(rows, generator=g)


def mean(name, *args, **kwargs):
    total, weight = loss_function(name)(*args, **kwargs)
    return total / weight


@pytest.mark.parametrize("name", list(LOSSES))
class TestEveryLoss:
    def test_masked_targets_count_for_nothing_whatever_they_hold(self, name):
        logits, target = example(KINDS[name])
        mask = torch.ones_like(target, dtype=torch.bool)
        mask[8:] = False
        spoilt = target.clone()
        spoilt[8:] = -1 if name in ("cross_entropy", "focal", "triplet") else torch.nan
        logits.requires_grad_()
        total, weight = loss_function(name)(logits, spoilt, mask=mask)
        kept, kept_weight = loss_function(name)(logits[:8], target[:8])
        torch.testing.assert_close((total, weight), (kept, kept_weight))
        total.backward()
        assert logits.grad.isfinite().all()
        assert (logits.grad[8:] == 0).all()

    def test_without_any_known_target_both_sums_are_zero_and_the_gradient_is_finite(self, name):
        logits, target = example(KINDS[name])
        logits.requires_grad_()
        mask = torch.zeros_like(target, dtype=torch.bool)
        total, weight = loss_function(name)(logits, target, mask=mask)
        total.backward()
        assert total == 0
        assert weight == 0
        assert logits.grad.isfinite().all()

    def test_a_weight_of_zero_is_a_mask(self, name):
        logits, target = example(KINDS[name])
        weights = torch.ones(12)
        weights[8:] = 0
        total, weight = loss_function(name)(logits, target, weights=weights)
        kept, kept_weight = loss_function(name)(logits[:8], target[:8])
        torch.testing.assert_close((total, weight), (kept, kept_weight))

    def test_rows_of_a_dialogue_are_rows(self, name):
        logits, target = example(KINDS[name])
        flat = loss_function(name)(logits, target)
        shaped = loss_function(name)(
            logits.unflatten(0, (3, 4)), target.unflatten(0, (3, 4)), weights=torch.ones(3, 4)
        )
        torch.testing.assert_close(flat, shaped)


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "triplet"])
def test_a_better_prediction_costs_less(name):
    logits, target = example(KINDS[name])
    good = {
        "classification": lambda: 4.0 * F.one_hot(target, 4),
        "distribution": target.log,
        "multilabel": lambda: 8 * target - 4,
        "regression": lambda: target[:, None] + 0.01,
    }[KINDS[name]]()
    assert mean(name, good, target) < mean(name, logits, target)


@pytest.mark.parametrize("name", [n for n in LOSSES if n not in ("ccc", "triplet")])
def test_parts_of_a_batch_add_up_to_the_whole(name):
    logits, target = example(KINDS[name])
    whole = loss_function(name)(logits, target)
    parts = [loss_function(name)(logits[s], target[s]) for s in (slice(0, 5), slice(5, 12))]
    torch.testing.assert_close(whole, (parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]))


class TestAgainstPyTorch:
    def test_divergence_from_a_distribution(self):
        logits, target = example("distribution")
        theirs = F.kl_div(logits.log_softmax(-1), target, reduction="batchmean")
        torch.testing.assert_close(mean("kl", logits, target), theirs)

    def test_divergence_from_a_single_class_is_the_cross_entropy(self):
        logits, target = example("classification")
        single = F.one_hot(target, 4).float()
        torch.testing.assert_close(mean("kl", logits, single), F.cross_entropy(logits, target))

    def test_regression_losses(self):
        logits, target = example("regression")
        p = logits[:, 0]
        torch.testing.assert_close(mean("l1", logits, target), F.l1_loss(p, target))
        torch.testing.assert_close(mean("mse", logits, target), F.mse_loss(p, target))
        torch.testing.assert_close(
            mean("huber", logits, target, delta=0.7), F.huber_loss(p, target, delta=0.7)
        )

    def test_cross_entropy_with_class_weights_and_with_smoothing(self):
        logits, target = example("classification")
        weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
        torch.testing.assert_close(
            mean("cross_entropy", logits, target, class_weights=weights),
            F.cross_entropy(logits, target, weight=weights),
        )
        torch.testing.assert_close(
            mean("cross_entropy", logits, target, label_smoothing=0.1),
            F.cross_entropy(logits, target, label_smoothing=0.1),
        )

    def test_bce_with_positive_weights(self):
        logits, target = example("multilabel")
        positive = torch.tensor([1.0, 2.0, 5.0])
        torch.testing.assert_close(
            mean("bce", logits, target, positive_weights=positive),
            F.binary_cross_entropy_with_logits(logits, target, pos_weight=positive),
        )


class TestFormulas:
    def test_focal_belongs_to_the_row(self):
        logits, target = example("classification")
        alpha = [0.5, 1.0, 2.0, 1.5]
        slow = 0.0
        for row, y in zip(logits.softmax(-1).tolist(), target.tolist(), strict=True):
            slow += -alpha[y] * (1 - row[y]) ** 2 * np.log(row[y])
        assert float(mean("focal", logits, target, alpha=alpha)) == pytest.approx(slow / 12, 1e-5)

    def test_focal_with_gamma_zero_is_cross_entropy(self):
        logits, target = example("classification")
        torch.testing.assert_close(
            mean("focal", logits, target, gamma=0.0), mean("cross_entropy", logits, target)
        )

    def test_ccc_is_lins_coefficient(self):
        logits, target = example("regression")
        p, y = logits[:, 0].double().numpy(), target.double().numpy()
        expected = 2 * np.cov(p, y, bias=True)[0, 1]
        expected /= p.var() + y.var() + (p.mean() - y.mean()) ** 2
        assert float(mean("ccc", logits, target)) == pytest.approx(1 - expected, rel=1e-5)

    def test_ccc_of_two_rows_by_hand(self):
        # predictions 0, 1 and truths 0, 2: covariance 1/2, variances 1/4 and 1, means 1/2 and 1.
        value = mean("ccc", torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 2.0]))
        assert float(value) == pytest.approx(1 - 2 * 0.5 / (0.25 + 1 + 0.25), rel=1e-5)

    def test_triplets_need_two_classes_with_a_pair(self):
        total, weight = loss_function("triplet")(torch.randn(3, 5), torch.tensor([0, 1, 2]))
        assert total == 0
        assert weight == 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "kwargs", "match"),
        [
            ("cross_entropy", {"class_weights": [1.0]}, "1 class weights for 4 classes"),
            ("cross_entropy", {"label_smoothing": 1.0}, "label_smoothing is 1.0"),
            ("focal", {"gamma": -1.0}, "gamma is -1.0"),
            ("focal", {"alpha": [1.0]}, "1 alphas for 4 classes"),
            ("bce", {"positive_weights": [1.0]}, "1 positive weights for 3 labels"),
            ("huber", {"delta": 0.0}, "delta is 0.0"),
            ("l1", {"mask": torch.ones(3, dtype=torch.bool)}, "mask"),
        ],
    )
    def test_a_wrong_option_is_named(self, name, kwargs, match):
        logits, target = example(KINDS[name])
        with pytest.raises(ValueError, match=match):
            loss_function(name)(logits, target, **kwargs)

    def test_wrong_shapes_say_what_was_expected(self):
        with pytest.raises(ValueError, match=r"takes \[\*rows 1\]"):
            loss_function("mse")(torch.zeros(3, 2), torch.zeros(3))
        with pytest.raises(ValueError, match="class indices"):
            loss_function("cross_entropy")(torch.zeros(3, 2), torch.zeros(4, dtype=torch.long))
        with pytest.raises(ValueError, match="expected the same"):
            loss_function("bce")(torch.zeros(3, 2), torch.zeros(3))

    def test_an_unknown_loss_names_those_there_are(self):
        with pytest.raises(ValueError, match=r"no loss 'l2'.*mse"):
            loss_function("l2")


@pytest.mark.skipif(not (GOLDEN / "m2fnet_losses.npz").exists(), reason="no golden values here")
def test_the_adaptive_triplet_equals_the_public_code():
    z = np.load(GOLDEN / "m2fnet_losses.npz", allow_pickle=False)
    names = ("anchor", "positive", "negative")
    for dtype, output, grad, tolerance in (
        (torch.float64, "output64", "grad64", 1e-9),
        (torch.float32, "output", "grad", 1e-5),
    ):
        inputs = [torch.tensor(z[f"input/{n}"]).to(dtype).requires_grad_() for n in names]
        shares = tuple(float(z[f"hyper/{n}"]) for n in ("w_triplet", "w_covariance", "w_variance"))
        terms = adaptive_triplet(
            *inputs, shares=shares, deviation=float(z["hyper/gamma"]), eps=float(z["hyper/eps"])
        )
        for key in ("total", "triplet", "covariance", "variance"):
            expected = torch.tensor(z[f"{output}/{key}"])
            torch.testing.assert_close(terms[key], expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            terms["each"], torch.tensor(z[f"{output}/triplet_each"]), rtol=tolerance, atol=tolerance
        )
        terms["total"].backward()
        for x, n in zip(inputs, names, strict=True):
            expected = torch.tensor(z[f"{grad}/{n}"])
            limit = tolerance if dtype == torch.float64 else 2e-5
            atol = limit * (1 + float(expected.abs().max()))
            torch.testing.assert_close(x.grad, expected, rtol=0, atol=atol)


def test_every_loss_says_for_which_kinds_of_tasks_it_is():
    assert list(OF_KINDS) == list(LOSSES)
    for kind in ("classification", "multilabel", "regression"):
        assert losses_for(kind) == [name for name, kinds in OF_KINDS.items() if kind in kinds]
        assert DEFAULT_LOSS[kind] in losses_for(kind)


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_a_loss_is_not_bound_to_a_kind_it_has_no_meaning_for(name, kind):
    classes = () if kind == "regression" else ("a", "b", "c")
    tasks = {"t": Task(kind=kind, classes=classes)}
    if kind in OF_KINDS[name]:
        Objective(tasks, loss=name)
        return
    with pytest.raises(ValueError, match=f"loss '{name}' has no meaning for the {kind} 't'"):
        Objective(tasks, loss=name)

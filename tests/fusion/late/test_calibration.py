"""Calibration lowers the NLL, travels as JSON, and leaves decisions to themselves."""

import json

import pytest
import torch

from fusion.late.calibration import (
    Calibration,
    Decision,
    apply_members,
    calibrate_members,
    temperature,
)
from fusion.late.members import Members, probabilities
from fusion.metrics import metric


def drawn(*, temperature=3.0, bias=(0.0, 0.0, 0.0), rows=4000, seed=0):
    """Over-confident logits and the classes that were drawn from the honest ones."""
    generator = torch.Generator().manual_seed(seed)
    honest = 1.5 * torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    p = torch.softmax(honest + torch.tensor(bias).double(), 1)
    target = torch.multinomial(p, 1, generator=generator).squeeze(1)
    return temperature * honest, target


def labels(rows=3000):
    generator = torch.Generator().manual_seed(2)
    honest = torch.randn(rows, 2, generator=generator, dtype=torch.float64) - 1.0
    target = (torch.rand(rows, 2, generator=generator) < torch.sigmoid(honest)).double()
    target[::5, 0] = torch.nan
    return honest, target


class TestCalibration:
    def test_temperature_finds_the_factor_of_over_confidence(self):
        scores, target = drawn()
        found = Calibration.fit("temperature", "classification", scores, target)
        assert found.temperature[0] == pytest.approx(3.0, rel=0.1)

    def test_bias_finds_the_offsets_that_class_weights_left(self):
        scores, target = drawn(temperature=1.0, bias=(1.0, 0.0, -1.0))
        found = Calibration.fit("bias", "classification", scores, target)
        offsets = torch.tensor(found.bias[0])
        assert offsets[0] - offsets[2] == pytest.approx(2.0, abs=0.25)

    @pytest.mark.parametrize("method", ["temperature", "bias", "vector"])
    def test_each_lowers_the_nll_and_keeps_probabilities(self, method):
        scores, target = drawn(bias=(1.0, 0.0, -1.0))
        fitted = Calibration.fit(method, "classification", scores, target)
        fresh, truth = drawn(bias=(1.0, 0.0, -1.0), seed=5)
        after = fitted.apply(fresh)
        assert torch.allclose(after.exp().sum(1), torch.ones(len(truth)).double())
        before = metric("nll")(torch.softmax(fresh, 1), truth)
        assert metric("nll")(after.exp(), truth) < before - 0.1

    @pytest.mark.parametrize("method", ["temperature", "bias", "vector"])
    def test_labels_are_calibrated_one_by_one_on_what_is_known(self, method):
        honest, target = labels()
        sharp = honest * torch.tensor([4.0, 1.0])
        fitted = Calibration.fit(method, "multilabel", sharp, target)
        loss = metric("multilabel_nll")
        after = loss(probabilities("multilabel", fitted.apply(sharp)), target)
        assert after <= loss(torch.sigmoid(honest), target) + 1e-3
        if method == "temperature":
            assert fitted.temperature == (pytest.approx(4, rel=0.15), pytest.approx(1, rel=0.15))

    @pytest.mark.parametrize("method", ["none", "temperature", "bias", "vector"])
    def test_travels_as_json(self, method):
        scores, target = drawn(rows=300)
        fitted = Calibration.fit(method, "classification", scores, target)
        again = Calibration.from_state(json.loads(json.dumps(fitted.state())))
        assert again == fitted
        assert torch.equal(again.apply(scores), fitted.apply(scores))

    def test_rows_without_scores_are_left_out_and_stay_nan(self):
        scores, target = drawn(rows=300)
        holed = scores.clone()
        holed[::3] = torch.nan
        kept = ~holed.isnan().any(1)
        fitted = Calibration.fit("temperature", "classification", holed, target)
        assert fitted == Calibration.fit(
            "temperature", "classification", scores[kept], target[kept]
        )
        assert fitted.apply(holed).isnan().any(1).equal(~kept)

    def test_a_temperature_of_separable_rows_stays_finite(self):
        scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        assert 0 < temperature(scores, torch.tensor([0, 1])) < 1e-3

    def test_values_are_refused(self):
        with pytest.raises(ValueError, match="no confidence to calibrate"):
            Calibration.fit("temperature", "regression", torch.zeros(3, 1), torch.zeros(3))

    def test_of_members_calibrates_each_where_it_is_present(self):
        scores, target = drawn(rows=600)
        present = torch.ones(2, 600, dtype=torch.bool)
        present[1, ::2] = False
        members = Members.from_logits(
            ["a", "b"], "classification", torch.stack([scores, scores / 6]), present
        )
        each = calibrate_members("temperature", members, target)
        assert each["a"].temperature[0] > 1 > each["b"].temperature[0]
        after = apply_members(each, members)
        for name, member in zip(after.names, after.scores, strict=True):
            there = after.present[after.names.index(name)]
            assert temperature(member[there], target[there]) == pytest.approx(1, rel=1e-6)


class TestDecision:
    def test_offsets_serve_the_metric_and_leave_probabilities_alone(self):
        scores, target = drawn(temperature=1.0, bias=(2.0, 0.0, -1.5))
        biased = torch.softmax(scores, 1).log()
        fitted = Decision.fit("classification", biased, target, metric="macro_f1")
        plain = Decision.plain("classification", 3)
        judge = metric("macro_f1")
        assert judge(fitted.decide(biased), target) > judge(plain.decide(biased), target)
        assert torch.equal(plain.decide(biased), biased.argmax(1))

    def test_thresholds_are_swept_per_label(self):
        honest, target = labels()
        fitted = Decision.fit("multilabel", honest, target, metric="multilabel_macro_f1")
        judge = metric("multilabel_macro_f1")
        assert judge(fitted.decide(honest), target) > judge(torch.sigmoid(honest), target)
        assert all(0 < threshold < 0.5 for threshold in fitted.offsets)

    def test_nothing_moves_where_nothing_is_gained(self):
        scores = torch.eye(3, dtype=torch.float64).repeat(20, 1) * 5
        fitted = Decision.fit("classification", scores, torch.arange(3).repeat(20))
        assert fitted.offsets == (0.0, 0.0, 0.0)

    def test_travels_as_json(self):
        honest, target = labels(300)
        fitted = Decision.fit("multilabel", honest, target)
        assert Decision.from_state(json.loads(json.dumps(fitted.state()))) == fitted

    def test_a_metric_of_probabilities_is_refused(self):
        scores, target = drawn(rows=50)
        with pytest.raises(ValueError, match="a metric of classification labels, came nll"):
            Decision.fit("classification", scores, target, metric="nll")
        with pytest.raises(ValueError, match="need no decision"):
            Decision.fit("regression", scores[:, :1], scores[:, 0])

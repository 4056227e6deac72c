"""Random Fourier features: the Gaussian kernel, within the error of their number, and what it is for."""

import pytest
import torch

from fusion.batch import Batch, Steps
from fusion.nets import net_class, net_config
from fusion.predictor import Card, build
from fusion.training.convex import fit_convex
from fusion.training.recipe import Recipe
from tests.fusion.test_convex import EMOTION, Pooled, draw


def net(dims, **options):
    return net_class("fourier")(net_config("fourier", options), dims=dims, outputs={"y": 4})


def batch(present=None, **inputs):
    rows = len(next(iter(inputs.values())))
    every = torch.ones(rows, dtype=torch.bool)
    return Batch(
        inputs={
            name: Steps(values.float().unsqueeze(1), (present or {}).get(name, every)[:, None])
            for name, values in inputs.items()
        },
        clip_id=torch.arange(rows),
    )


class TestKernel:
    @pytest.mark.parametrize("dim", [2, 3, 35, 88, 300])
    @pytest.mark.parametrize("width", [0.05, 0.3, 1.0])
    def test_products_of_features_are_the_gaussian_kernel(self, dim, width):
        rows = draw(40, dim)
        features = net({"a": dim}, width=width, waves=4096).features(batch(a=rows))[:, :-1].double()
        kernel = torch.exp(-width * torch.cdist(rows, rows).square() / dim)
        apart = (features @ features.T - kernel).abs()
        assert apart.max() < 0.12
        assert apart.mean() < 0.02
        assert apart.diagonal().max() < 1e-5

    def test_the_error_falls_with_the_number_of_waves(self):
        rows = draw(40, 35)
        kernel = torch.exp(-0.3 * torch.cdist(rows, rows).square() / 35)
        errors = []
        for waves in (16, 256, 4096):
            found = net({"a": 35}, waves=waves).features(batch(a=rows))[:, :-1].double()
            errors.append(float((found @ found.T - kernel).abs().mean()))
        assert errors[0] > 2 * errors[1] > 4 * errors[2]

    @pytest.mark.parametrize("waves", [1, 63, 64, 65])
    def test_any_number_of_waves_is_made(self, waves):
        made = net({"a": 35, "b": 3}, waves=waves)
        found = made.features(batch(a=draw(5, 35), b=draw(5, 3)))
        assert found.shape == (5, sum(made.widths)) == (5, 2 * (2 * waves + 1))


class TestNet:
    def test_it_reads_what_no_linear_model_of_one_modality_can(self):
        rows = draw(300, 6)
        target = (rows[:, 0] * rows[:, 1] > 0).long()
        feed = Pooled({"a": rows}, {"y": target})
        train, held = torch.arange(200), torch.arange(200, 300)
        right = {}
        for name in ("linear", "fourier"):
            made = build(Card(net=name, config={}, tasks={"y": EMOTION}, dims={"a": 6}))
            found = fit_convex(
                made, feed, tasks={"y": EMOTION}, train=train, groups=train % 9, recipe=Recipe()
            ).predictor
            with torch.no_grad():
                said = found(feed.batch(held)).logits["y"].argmax(1)
            right[name] = float((said == target[held]).double().mean())
        assert right["linear"] < 0.65
        assert right["fourier"] > 0.85

    def test_the_signs_travel_with_the_weights(self):
        first, second = net({"a": 35}, waves=64), net({"a": 35}, waves=64, seed=1)
        rows = batch(a=draw(5, 35))
        assert not torch.equal(first(rows).logits["y"], second(rows).logits["y"])
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(rows).logits["y"], second(rows).logits["y"])

    def test_one_wild_feature_moves_an_answer_no_further_than_any_other(self):
        made, rows = net({"a": 35}, waves=64), draw(5, 35)
        rows[0, 3] = 1e6
        assert made.features(batch(a=rows))[:, :-1].norm(dim=1).allclose(torch.ones(5), atol=1e-4)

    def test_what_stands_in_a_missing_modality_is_not_read(self):
        made = net({"a": 5, "b": 3}, waves=64)
        there = {"b": torch.tensor([True, False])}
        rows, other = draw(2, 5), draw(2, 3)
        said = [made.features(batch(there, a=rows, b=scale * other))[1] for scale in (1, 7)]
        assert torch.equal(*said)
        assert not said[0][-129:].any()

    @pytest.mark.parametrize(
        "options", [{"width": 0.0}, {"width": -1}, {"width": float("inf")}, {"waves": 0}]
    )
    def test_a_kernel_that_is_none_is_refused(self, options):
        said = "expected (a width above 0 and waves of 1 or more|a finite number|1 or more)"
        with pytest.raises(ValueError, match=said):
            net_config("fourier", options)

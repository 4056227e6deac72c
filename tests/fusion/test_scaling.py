"""Scaling is fitted on real steps of the training part and on nothing else."""

import numpy as np
import pytest
import torch

from fusion.batch import Batch, Steps
from fusion.scaling import Scaler, principal_directions


def batches(seed: int = 0, count: int = 6, dim: int = 5):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        values = torch.randn(7, 4, dim, generator=generator) * 3 + 100
        mask = torch.rand(7, 4, generator=generator) > 0.3
        yield Batch(inputs={"audio": Steps(values, mask)})


def real_steps(items):
    return torch.cat([b.inputs["audio"].values[b.inputs["audio"].mask] for b in items])


class TestScaling:
    def test_real_steps_come_out_with_mean_zero_and_spread_one(self):
        scaler = Scaler.fitted(batches(), {"audio": 5})
        rows = real_steps(scaler(batch) for batch in batches())
        np.testing.assert_allclose(rows.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(rows.std(0, correction=0), 1, atol=1e-4)

    def test_what_is_masked_changes_nothing(self):
        loud = []
        for batch in batches():
            sequence = batch.inputs["audio"]
            values = torch.where(sequence.mask.unsqueeze(-1), sequence.values, 1e9)
            loud.append(Batch(inputs={"audio": Steps(values, sequence.mask)}))
        ours, theirs = Scaler.fitted(batches(), {"audio": 5}), Scaler.fitted(loud, {"audio": 5})
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name])

    def test_a_feature_that_never_varies_comes_out_as_zero(self):
        constant = Batch(inputs={"audio": Steps(torch.full((3, 2, 1), 7.0), torch.ones(3, 2) > 0)})
        scaler = Scaler.fitted([constant], {"audio": 1})
        strange = Batch(inputs={"audio": Steps(torch.full((1, 1, 1), 9.0), torch.ones(1, 1) > 0)})
        assert scaler(strange).inputs["audio"].values.item() == 0

    def test_an_input_nobody_has_is_left_finite(self):
        empty = Batch(inputs={"audio": Steps(torch.ones(2, 2, 3), torch.zeros(2, 2) > 0)})
        scaler = Scaler.fitted([empty], {"audio": 3})
        assert scaler(empty).inputs["audio"].values.isfinite().all()


class TestPca:
    @pytest.mark.parametrize("shape", [(200, 6), (5, 40)], ids=["more rows", "more features"])
    def test_directions_are_those_of_the_singular_values(self, shape):
        rows = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double()
        basis = principal_directions(rows, 3)
        expected = np.linalg.svd((rows - rows.mean(0)).numpy())[2][:3].T
        np.testing.assert_allclose(np.abs(basis), np.abs(expected), atol=1e-6)
        np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-8)

    def test_the_net_behind_it_sees_the_components(self):
        scaler = Scaler.fitted(batches(), {"audio": 5}, pca={"audio": 2})
        assert scaler.out_dims == {"audio": 2}
        assert scaler(next(batches())).inputs["audio"].values.shape == (7, 4, 2)

    def test_more_components_than_features_are_refused(self):
        with pytest.raises(ValueError, match="pca of 'audio' to 9: expected one of"):
            Scaler({"audio": 5}, {"audio": 9})

"""What training adds to a batch, and what it leaves alone."""

import pytest
import torch

from fusion.augment import augment, mixup
from fusion.batch import Batch, Steps


def batch(rows=64):
    g = torch.Generator().manual_seed(0)
    mask = torch.ones(rows, 5, dtype=torch.bool)
    mask[:, 3:] = False
    return Batch(
        inputs={
            name: Steps(torch.randn(rows, 5, dim, generator=g), mask.clone())
            for name, dim in (("audio", 3), ("text", 4), ("video", 2))
        },
        targets={"y": torch.arange(rows)},
        target_masks={"y": torch.arange(rows) % 2 == 0},
        soft={"y": torch.nn.functional.one_hot(torch.arange(rows), rows).float()},
    )


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


class TestModalityDropout:
    def test_never_hides_all_that_a_row_has(self):
        rows = batch()
        only = rows.inputs["audio"].mask.clone()
        only[10:] = False
        rows.inputs["audio"].mask[10:] = False
        rows.inputs["video"].mask[:] = False
        rows.inputs["text"].mask[:10] = False
        out = augment(rows, modality_dropout=0.99, generator=seeded())
        assert out.inputs["audio"].present[:10].all()
        assert out.inputs["text"].present[10:].all()
        assert not out.inputs["video"].present.any()

    def test_hides_about_the_share_it_was_asked_for(self):
        out = augment(batch(4000), modality_dropout=0.3, generator=seeded())
        hidden = 1 - torch.stack([s.present for s in out.inputs.values()]).float().mean()
        # Rows that lost all three (0.3^3) get one back: 0.3 - 0.027 / 3.
        assert abs(float(hidden) - 0.291) < 0.02

    def test_leaves_the_batch_it_was_given_alone(self):
        rows = batch()
        before = rows.inputs["text"].mask.clone()
        augment(rows, modality_dropout=0.9, feature_noise=1.0, generator=seeded())
        assert (rows.inputs["text"].mask == before).all()

    def test_the_same_generator_gives_the_same_rows(self):
        one, two = (augment(batch(), modality_dropout=0.5, generator=seeded(4)) for _ in range(2))
        assert all((one.inputs[n].mask == two.inputs[n].mask).all() for n in one.inputs)


class TestFeatureNoise:
    def test_has_the_deviation_it_was_asked_for_and_spares_what_is_masked(self):
        rows = batch(2000)
        out = augment(rows, feature_noise=0.2, generator=seeded())
        change = out.inputs["text"].values - rows.inputs["text"].values
        assert (change[:, 3:] == 0).all()
        assert abs(float(change[:, :3].std()) - 0.2) < 0.01


class TestMixup:
    def test_is_the_weighted_mean_of_a_row_and_its_partner(self):
        rows = batch()
        own, other = mixup(rows, alpha=0.4, generator=seeded())
        partner = other.batch.targets["y"]
        for name, sequence in rows.inputs.items():
            values = sequence.values * sequence.mask.unsqueeze(-1)
            expected = own.share * values + other.share * values[partner]
            torch.testing.assert_close(own.batch.inputs[name].values, expected)
            assert other.batch.inputs[name] is own.batch.inputs[name]
        assert (own.batch.targets["y"] == rows.targets["y"]).all()
        assert (other.batch.target_masks["y"] == (partner % 2 == 0)).all()
        assert (other.batch.soft["y"].argmax(1) == partner).all()
        assert (own.batch.soft["y"] == rows.soft["y"]).all()
        assert 0.5 <= own.share <= 1
        assert own.share + other.share == 1

    def test_rows_of_different_length_have_the_steps_of_both(self):
        rows = batch(2)
        rows.inputs["text"].mask[0, 1:] = False
        mixed, _ = mixup(rows, alpha=1.0, generator=seeded(0))
        assert (mixed.batch.inputs["text"].mask | ~rows.inputs["text"].mask).all()

    def test_inside_a_net_the_inputs_stay_and_the_mixing_goes_with_them(self):
        rows = batch()
        own, other = mixup(rows, alpha=0.4, generator=seeded(), inside=True)
        outside, _ = mixup(rows, alpha=0.4, generator=seeded())
        assert own.share == outside.share
        assert other.batch.mixing is own.batch.mixing
        for name, steps in rows.inputs.items():
            assert own.batch.inputs[name] is steps
            mixed = own.batch.mixing(steps)
            assert (mixed.values == outside.batch.inputs[name].values).all()
            assert (mixed.mask == outside.batch.inputs[name].mask).all()


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="modality_dropout is 1"):
        augment(batch(), modality_dropout=1.0)
    with pytest.raises(ValueError, match="feature_noise is -1"):
        augment(batch(), feature_noise=-1.0)
    with pytest.raises(ValueError, match="alpha > 0"):
        mixup(batch(), alpha=0.0)

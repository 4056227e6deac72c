"""Regularisation of training rows: modality dropout, feature noise, mixup.

None of it touches a row in evaluation; the caller decides when it trains. Noise and draws come from the
given generator, so that a seed and an epoch name them.
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from fusion.batch import Batch, Mixing, Steps


def augment(
    batch: Batch,
    *,
    modality_dropout: float = 0.0,
    feature_noise: float = 0.0,
    generator: Generator | None = None,
) -> Batch:
    """The same rows with hidden modalities and noise.

    Args:
        batch: rows in training.
        modality_dropout: chance that a modality of a row is hidden [0..1); one that is there stays.
        feature_noise: standard deviation of Gaussian noise on the real steps, in units of the features
            (they are scaled to a standard deviation of about one before).
        generator: where the draws come from; on the device of the batch.

    Raises:
        ValueError: a share outside [0, 1) or a negative deviation.
    """
    if not 0 <= modality_dropout < 1 or feature_noise < 0:
        raise ValueError(
            f"modality_dropout is {modality_dropout}, expected [0, 1); feature_noise is "
            f"{feature_noise}, expected 0 or more"
        )
    inputs = dict(batch.inputs)
    if modality_dropout:
        kept = _kept(batch, modality_dropout, generator)
        for column, name in enumerate(batch.modalities):
            mask = inputs[name].mask & kept[:, column, None]
            inputs[name] = Steps(inputs[name].values, mask)
    if feature_noise:
        for name in batch.modalities:
            values, mask = inputs[name].values, inputs[name].mask
            noise = torch.empty_like(values).normal_(0.0, feature_noise, generator=generator)
            inputs[name] = Steps(values + noise * mask.unsqueeze(-1), mask)
    return replace(batch, inputs=inputs)


def _kept(batch: Batch, share: float, generator: Generator | None) -> Tensor:
    """Which modalities of each row stay [batch modality]; a row keeps one of those it has."""
    present = torch.stack([batch.inputs[name].present for name in batch.modalities], 1)
    draws = torch.rand(present.shape, device=present.device, generator=generator)
    kept = (draws >= share) & present
    rescued = torch.nn.functional.one_hot(
        draws.masked_fill(~present, -1.0).argmax(1), present.shape[1]
    ).bool()
    return torch.where(kept.any(1, keepdim=True), kept, rescued)


@dataclass(frozen=True, kw_only=True)
class Side:
    """Inputs with one set of targets, and how much the loss against them counts [0..1]."""

    batch: Batch
    share: float


def mixup(
    batch: Batch, *, alpha: float, generator: Generator | None = None, inside: bool = False
) -> tuple[Side, Side]:
    """Rows mixed with a random permutation of themselves (Zhang et al., https://arxiv.org/abs/1710.09412).

    The loss is share * loss(own targets) + (1 - share) * loss(the partners' targets). A step that only one
    of the two rows has keeps that row's share of it. Clip batches only: utterances of two dialogues have
    nothing to do with each other.

    Args:
        batch: rows in training.
        alpha: shares are drawn from Beta(alpha, alpha).
        generator: where the draws come from; on the device of the batch.
        inside: the inputs stay as they are, and the net mixes what its encoders make of them (manifold
            mixup: Verma et al., https://arxiv.org/abs/1806.05236).

    Returns:
        The same mixed inputs twice: with each row's own targets, which count for at least half, and with
        its partner's.

    Raises:
        ValueError: a dialogue batch, or alpha that is not positive.
    """
    if batch.axis != "clip" or alpha <= 0:
        raise ValueError(f"mixup takes clip batches and alpha > 0; came {batch.axis}, {alpha}")
    device = next(iter(batch.inputs.values())).values.device
    # The larger of two gamma draws keeps the first row in front, so targets are never swapped.
    draws = torch._standard_gamma(torch.full((2,), alpha, device=device), generator=generator)
    share = float(draws.max() / draws.sum().clamp(min=1e-12))
    share = min(max(share, 0.5), 1.0)
    partner = torch.randperm(len(batch), device=device, generator=generator)
    mixing = Mixing(share, partner)
    if inside:
        own = replace(batch, mixing=mixing)
    else:
        own = replace(batch, inputs={name: mixing(each) for name, each in batch.inputs.items()})
    partners = replace(
        own,
        targets={task: target[partner] for task, target in batch.targets.items()},
        target_masks={task: mask[partner] for task, mask in batch.target_masks.items()},
        soft={task: votes[partner] for task, votes in batch.soft.items()},
    )
    return Side(batch=own, share=share), Side(batch=partners, share=1 - share)

"""Whether the features of a clip lie where those of the training clips did, input by input.

A clip's distance is the mean size of its scaled features, the mean over its steps first: scaled as the net
scales them, by the mean and spread of its training rows. Beyond the distance that 99 % of the training clips
keep within, an input is unusual.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fusion.predictor import Pool
from jobs.catalog.branches import publishes_inputs
from jobs.scoring.member_nets import MemberNets
from jobs.training.feeds import Clips, Store
from jobs.training.net_input import make_store
from jobs.training.stores import StoredTable

INSIDE = 0.99
"""Share of the training clips within the limit."""

USUAL_PEOPLE = 0.95
"""Share of the training people who have no more unusual clips than is called usual."""

MOST_CLIPS = 4096
"""Training clips that limits are found on; of more, some drawn at random."""

FAR = 10.0
"""Scaled features count up to this size: one that never varied in training decides nothing alone."""

CHUNK = 256
"""Clips whose steps are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Where one input's features lay in training."""

    run: str
    """Member whose scaler is used."""

    input: str
    """Its name in that member's batches."""

    limit: float
    """Largest usual distance."""

    usual: float
    """Share of clips beyond it that nearly all training people keep below."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Range":
        """The range that wrote `state`."""
        return cls(**{name: state[name] for name in cls.__dataclass_fields__})

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def fitted_ranges(root: str, members: Sequence[MemberNets], clips: Clips) -> dict[str, Range]:
    """Feature table -> the range of its features in training.

    Args:
        root: the dataset.
        members: the nets that ship.
        clips: training clips, in the order of their ids.
    """
    found: dict[str, Range] = {}
    people = np.unique(np.array([str(name) for name in clips.group]), return_inverse=True)[1]
    for member in members:
        for name, facts in member.card.inputs.items():
            if facts["features"] in found or publishes_inputs(facts) or "column" in facts:
                continue
            # The mean of a clip's steps is all that is looked at, so no more is held in memory.
            pool: Pool = "mean" if facts["pool"] == "none" else facts["pool"]
            table = StoredTable(root, facts["features"], clips.clip_id)
            store = make_store(table, clips, pool, member.card.normalise)
            distance = distances(member, name, store).numpy()
            there = ~np.isnan(distance)
            if there.any():
                limit, usual = _limit(distance[there], people[there])
                found[facts["features"]] = Range(
                    run=member.name, input=name, limit=limit, usual=usual
                )
    return found


def _limit(distance: np.ndarray, people: np.ndarray) -> tuple[float, float]:
    """The largest usual distance, and the share beyond it that nearly all people keep below."""
    limit = float(np.quantile(distance, INSIDE))
    names, code = np.unique(people, return_inverse=True)
    shares = np.bincount(code, distance > limit, len(names)) / np.bincount(code)
    return limit, float(np.quantile(shares, USUAL_PEOPLE))


def distances(member: MemberNets, name: str, store: Store) -> Float[Tensor, " clip"]:
    """Distance of each clip's features from those of training; NaN where a clip has none."""
    mean, scale = member.nets[0].scaler.moments(name)
    found = torch.full((len(store.lengths),), torch.nan, dtype=torch.float64)
    for begin in range(0, len(found), CHUNK):
        rows = torch.arange(begin, min(begin + CHUNK, len(found)))
        steps = store.gather(rows)
        scaled = (steps.mean().double() - mean.double()) * scale.double()
        size = scaled.abs().clamp(max=FAR).mean(1)
        found[rows] = size.masked_fill(~steps.present, torch.nan)
    return found

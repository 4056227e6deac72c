"""The one place that makes the input of a net: training, evaluation and scoring all come here.

What a net was trained on is what it must be given later: the same tables under the same names, pooled and
normalised the same way, the same axis, as causal as it was. A request says how a training set is made, the
card of a net how its own was (both are a `fusion.predictor.Feeding`); here it makes no difference which.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fusion.batch import Axis
from fusion.nets import net_axis
from fusion.predictor import Card, Feeding, Pool
from jobs.training.feeds import ClipFeed, Clips, DialogueFeed, Store
from jobs.training.mapped import in_memory
from jobs.training.speaker_norm import enrolment, remove_speakers
from jobs.training.stores import VALUES, Allocate, FeatureTable, store_of

Feed = ClipFeed | DialogueFeed


class Tables(Protocol):
    """Source of the stored features of some clips: a root, or the tables of a unit in memory."""

    def store(self, folder: str, pool: Pool, normalise: str, column: str) -> Store:
        """The steps of all clips of one feature table (a column of it), pooled and normalised."""


def feed_for(
    how: Feeding,
    axis: Axis,
    inputs: Mapping[str, Mapping[str, Any]],
    clips: Clips,
    tables: Tables,
    *,
    views: Mapping[str, Sequence[str]] | None = None,
) -> Feed:
    """The rows of a net.

    Args:
        how: the request of a training set, or the card of a net.
        axis: what a row is.
        inputs: name in a batch -> the table (`features`), its reduction (`pool`, see `pool_of`), and the
            `column` that is read in place of its values.
        clips: the clips of the tables.
        tables: what `inputs` name.
        views: name in a batch -> tables that training rows may be drawn from instead.
    """

    def store(folder: str, facts: Mapping[str, Any]) -> Store:
        # A dialogue net takes one step a clip, also of a clip that has more than those of training had.
        pool: Pool = facts["pool"]
        one: Pool = "mean" if axis == "dialogue" and pool == "none" else pool
        return tables.store(folder, one, how.normalise, facts.get("column", VALUES))

    stores = {name: store(facts["features"], facts) for name, facts in inputs.items()}
    others = {
        name: tuple(store(folder, inputs[name]) for folder in folders)
        for name, folders in (views or {}).items()
    }
    if axis == "dialogue":
        return DialogueFeed(stores, clips, how.causal, others)
    return ClipFeed(stores, clips, others)


def feed_of_card(card: Card, clips: Clips, tables: Tables) -> Feed:
    """The rows of a trained net, made exactly as its training rows were."""
    return feed_for(card, net_axis(card.net), card.inputs, clips, tables)


def make_store(
    table: FeatureTable,
    clips: Clips,
    pool: Pool,
    normalise: str,
    allocate: Allocate = in_memory,
    column: str = VALUES,
) -> Store:
    """The steps of one feature table, pooled and normalised.

    Args:
        table: its rows, from wherever.
        clips: in whose order the steps come.
        pool: reduction of a clip's steps.
        normalise: none, speaker or speaker:K.
        allocate: where the steps are written.
        column: what is read of a step.
    """
    if normalise == "none":
        return store_of(table, clips.clip_id, pool, allocate, column=column)
    store = store_of(table, clips.clip_id, pool, allocate, writable=True, column=column)
    remove_speakers(store, clips, enrolment(normalise))
    return store


def has_input(feed: Feed) -> Tensor:
    """Whether each clip has a valid step of any input: bool [clip]."""
    return torch.stack([store.present for store in feed.stores.values()]).any(0)


def check_inputs(feed: Feed, train: np.ndarray) -> None:
    """Refuse to train on clips of which none has anything that a net would read.

    Args:
        feed: the inputs.
        train: whether each clip is trained on, bool [clip].

    Raises:
        ValueError: naming the inputs.
    """
    if train.any() and not bool(has_input(feed)[torch.from_numpy(train)].any()):
        raise ValueError(
            f"none of the {int(train.sum())} clips to train on has anything of {', '.join(feed.stores)}; "
            "type other --inputs"
        )


def pool_of(asked: Pool, axis: Axis, *, single: bool) -> Pool:
    """How one input is reduced; decided once, in training, and kept on the card.

    Args:
        asked: what the request says.
        axis: dialogue nets take one step a clip.
        single: no clip has more than one step: their spread would be zero everywhere.

    >>> pool_of("mean_std", "clip", single=True)
    'mean'
    """
    if axis == "dialogue" and asked == "none":
        return "mean"
    return "mean" if single and asked == "mean_std" else asked

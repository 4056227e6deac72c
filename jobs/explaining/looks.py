"""What nets with gates or attention show of themselves.

How much they let of each input through, and where in a dialogue they look. It is what a net does, not what
its answer rests on; for that there are the values.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from fusion.batch import Batch
from jobs.scoring.member_nets import MemberNets, TablesInHand, clips_without_labels
from jobs.training.net_input import feed_of_card

BATCH = 64


def looks_of(
    members: Sequence[MemberNets],
    facts: Sequence[Mapping[str, Any]],
    tables: Mapping[str, pa.Table],
) -> list[dict[str, Any]]:
    """Of each clip: member -> gates {input: weight} and attention {clip: weight}, the mean of its seeds.

    Args:
        members: the nets.
        facts: of the clips, in the order of their ids.
        tables: FEATURES of the same clips.
    """
    found: list[dict[str, Any]] = [{} for _ in facts]
    place = {fact["clip_id"]: at for at, fact in enumerate(facts)}
    clips, in_hand = clips_without_labels(facts), None
    for member in members:
        in_hand = in_hand or TablesInHand(clips, tables)
        feed = feed_of_card(member.card, clips, in_hand)
        for rows in torch.split(feed.rows_of(np.ones(len(clips), bool)), BATCH):
            batch = feed.batch(rows)
            for clip_id, look in _looks(member, batch, facts, place).items():
                found[place[clip_id]][member.name] = look
    return found


def _looks(
    member: MemberNets,
    batch: Batch,
    facts: Sequence[Mapping[str, Any]],
    place: Mapping[int, int],
) -> dict[int, dict[str, dict[str, float]]]:
    """Clip id -> what the nets show of it."""
    with torch.no_grad():
        shown = [cast(Any, net.net.eval()).explain(net.scaler(batch)) for net in member.nets]
    found: dict[int, dict[str, dict[str, float]]] = {}
    for key in shown[0]:
        if not key.startswith(("gates", "attention")):
            continue
        mean = torch.stack([each[key].double() for each in shown]).mean(0)
        names = sorted(batch.inputs)
        for clip_id, weights, others in _per_clip(batch, mean, key.startswith("attention")):
            over = [facts[place[each]]["name"] for each in others] if others else names
            found.setdefault(clip_id, {})[key] = dict(zip(over, weights, strict=True))
    return found


def _per_clip(
    batch: Batch, values: Tensor, over_clips: bool
) -> list[tuple[int, list[float], list[int]]]:
    """(clip id, weights, clips of its dialogue that they are over; none: they are over the inputs)."""
    assert batch.clip_id is not None
    if batch.steps is None:
        return [(int(c), v.tolist(), []) for c, v in zip(batch.clip_id, values, strict=True)]
    found = []
    for ids, real, rows in zip(batch.clip_id, batch.steps, values, strict=True):
        clips = ids[real].tolist()
        for clip_id, row in zip(clips, rows[real], strict=True):
            weights = row[real] if over_clips else row
            found.append((int(clip_id), weights.tolist(), clips if over_clips else []))
    return found

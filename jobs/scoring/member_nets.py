"""Predict clips with the nets of one ensemble member, from features that are there.

Seeds are averaged as probabilities, as they were when the fusion was fitted; a clip that has none of a net's
inputs is absent for it.
"""

import copy
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster import storage
from cluster.devices import worker_device
from fusion import predictor
from fusion.late import rule_from_state
from fusion.late.calibration import Calibration, Decision, apply_members
from fusion.late.members import Members, mean_of_seeds
from fusion.late.presence import ByPresence
from fusion.nets import net_axis
from fusion.predictor import Card, Pool, Predictor
from fusion.shift import Expectation
from fusion.tasks import Task
from fusion.training.predicting import predict
from jobs.catalog import layout
from jobs.catalog.branches import branches_of, store_of_net
from jobs.catalog.bundles import nets_of_member
from jobs.catalog.judged_files import check_weights
from jobs.training.feeds import Clips, Store
from jobs.training.net_input import Feed, has_input, make_store
from jobs.training.stores import HeldTable

ROWS, ROWS_OF_ONE_STEP = 128, 1024
"""Rows that a net is given at a time; of one step each they are small, and a net's own calls take longest."""

FACTS = pa.schema(
    [
        ("clip_id", pa.int64()),
        *((name, pa.string()) for name in ("name", "dialogue", "speaker", "group")),
        ("turn", pa.int64()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
    ]
)
"""What nets and scores need of a clip beside its features; columns that nobody fills may lack."""

Facts: TypeAlias = "pa.Table | Sequence[Mapping[str, Any]]"
"""Columns of `FACTS`, as a table or as rows."""


@dataclass(frozen=True, kw_only=True)
class MemberNets:
    """One member: the nets of its seeds, which share one card."""

    name: str
    card: Card
    nets: tuple[Predictor, ...]

    @functools.cached_property
    def at_work(self) -> tuple[str, tuple[Predictor, ...]]:
        """The device that they predict on, and the nets there.

        An encoder that a net owns wants the GPU; of features the CPU is done before they were copied.
        """
        device = worker_device() if any(one.net.owns_encoders for one in self.nets) else "cpu"
        if device == "cpu":
            return device, self.nets
        return device, tuple(copy.deepcopy(one).to(device) for one in self.nets)


def load_bundled(uri: str, member: Mapping[str, Any], store: str = "") -> MemberNets:
    """Read the nets of a member of the bundle in a folder.

    Raises:
        NotPreparedError: one is not the net that the bundle names: its making was stopped.
    """
    named = member.get("sha256", {})
    return load_member(member["run"], nets_of_member(uri, member), store, named)


def load_member(
    name: str, folders: Mapping[str, str], store: str = "", named: Mapping[str, str] | None = None
) -> MemberNets:
    """Read the nets of a member.

    Args:
        name: of the run.
        folders: `seed=S` -> where each lies.
        store: of the weights that nets were fine-tuned from; by default that of the nets' root.
        named: `seed=S` -> hash of its weights, where a bundle names it.
    """
    nets = []
    for seed, folder in folders.items():
        card = Card.from_json(storage.read_json(storage.join(folder, layout.CARD)))
        content = storage.read_bytes(storage.join(folder, layout.WEIGHTS))
        check_weights(folder, content, (named or {}).get(seed))
        branches = branches_of(card, store or store_of_net(card, folder, name))
        nets.append(predictor.from_bytes(content, card, branches))
    if _was_causal(card, folder):
        print(f"{name}: its card does not say that it was trained with --causal; taken as causal")
        card = dataclasses.replace(card, causal=True)
    return MemberNets(name=name, card=card, nets=tuple(nets))


def untrained_member(name: str, card: Mapping[str, Any]) -> MemberNets:
    """A member whose net holds no weights."""
    own = Card.from_json(card)
    return MemberNets(name=name, card=own, nets=(predictor.build(own).eval(),))


def _was_causal(card: Card, folder: str) -> bool:
    """Whether a net was trained as causal though its card, as those of old runs, says that it was not.

    Args:
        card: of the net.
        folder: where it lies, below `<root>/runs/` or `<root>/bundles/`.
    """
    if card.causal or net_axis(card.net) != "dialogue" or "run" not in card.facts:
        return False
    config = layout.run_uri(layout.root_of_net(folder), card.facts["run"], layout.CONFIG)
    return storage.exists(config) and bool(storage.read_json(config).get("causal"))


def facts_table(facts: Facts) -> pa.Table:
    """Facts as a table with all of its columns."""
    if isinstance(facts, pa.Table):
        columns = {
            field.name: facts[field.name].cast(field.type)
            if field.name in facts.column_names
            else pa.nulls(facts.num_rows, field.type)
            for field in FACTS
        }
        return pa.table(columns, schema=FACTS)
    rows = [{name: fact.get(name) for name in FACTS.names} for fact in facts]
    return pa.Table.from_pylist(rows, FACTS)


class TablesInHand:
    """The features of some clips that were just made or read; each is made a net's input once."""

    def __init__(self, clips: Clips, features: Mapping[str, pa.Table]) -> None:
        self._clips, self._features = clips, features
        self._stores: dict[tuple[str, Pool, str, str], Store] = {}

    def store(self, folder: str, pool: Pool, normalise: str, column: str) -> Store:
        """One input of all clips."""
        key = (folder, pool, normalise, column)
        if key not in self._stores:
            table = HeldTable(folder, self._features[folder])
            self._stores[key] = make_store(table, self._clips, pool, normalise, column=column)
        return self._stores[key]


def clips_without_labels(facts: Facts) -> Clips:
    """The clips of some facts, in their order: that of their ids."""
    table = facts_table(facts)

    def column(key: str) -> np.ndarray:
        known = table[key]
        if known.null_count == len(known):
            return np.full(len(known), None, object)
        return np.array(known.to_pylist(), object)

    return Clips(
        clip_id=np.array(table["clip_id"].to_numpy()),
        split=np.full(len(table), None, object),
        fold=np.zeros(len(table), np.int64),
        group=column("group"),
        speaker=column("speaker"),
        dialogue=column("dialogue"),
        turn=column("turn"),
        targets={},
        known={},
    )


def predict_member(
    member: MemberNets,
    feed: Feed,
    name: str,
    task: Task,
    parts: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores [clip outputs] of all clips of a feed, and whether each has one of the inputs [clip].

    Args:
        member: the nets.
        feed: their rows.
        name: of the task.
        task: what it is.
        parts: bool [clip] each: clips that are given to the nets apart from the others; by default all at
            once. Of the same numbers in another batch the last bit may be another.
    """
    device, nets = member.at_work
    said = [np.zeros((len(feed.clips), task.outputs)) for _ in nets]
    for part in [np.ones(len(feed.clips), bool)] if parts is None else parts:
        rows = feed.rows_of(part)
        small = not len(rows) or int(feed.lengths[rows].max()) <= 1
        small = small and not any(one.net.owns_encoders for one in nets)
        at_once = ROWS_OF_ONE_STEP if small else ROWS
        for net, scores in zip(nets, said, strict=True):
            found = predict(net, feed, rows, batch_size=at_once, device=device)
            assert np.array_equal(found.clip_id.numpy(), feed.clips.clip_id[part]), (
                "clips lie by their ids"
            )
            scores[part] = found.logits[name].double().numpy()
    return mean_of_seeds(said, task.kind), has_input(feed).numpy()


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """The late fusion of a predictor."""

    task: str
    kind: Task
    members: Mapping[str, Calibration]
    """Calibration of each member, applied before the rule."""

    rule: Any
    calibration: Calibration
    decision: Decision
    """From scores to labels: plain, or fitted for a metric."""

    conformal: ByPresence | None
    """From scores to sets and intervals; bundles of old have none."""

    expectation: Expectation | None
    """From signals to the probability of a right answer; values and bundles of old have none."""

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Fusion":
        """The fusion that a `predictor.json` describes."""
        task = Task.from_json(facts)
        decided, promised, expected = map(facts.get, ("decision", "conformal", "expectation"))
        each = facts.get("member_calibration", {})
        return cls(
            task=facts["task"],
            kind=task,
            members={name: Calibration.from_state(state) for name, state in each.items()},
            rule=rule_from_state(facts["rule"]),
            calibration=Calibration.from_state(facts["calibration"]),
            decision=(
                Decision.from_state(decided) if decided else Decision.plain(task.kind, task.outputs)
            ),
            conformal=ByPresence.from_state(promised) if promised else None,
            expectation=Expectation.from_state(expected) if expected else None,
        )

    def combine(self, members: Members) -> Tensor:
        """Fused, calibrated scores [row outputs]; NaN where no member is present."""
        known = [name for name in members.names if name in self.rule.names]
        if not known:
            rows = (members.num_rows, members.outputs)
            return torch.full(rows, torch.nan, dtype=torch.float64)
        members = apply_members(self.members, members.only(known))
        return self.calibration.apply(self.rule.combine(members))

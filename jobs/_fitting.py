"""Trains the net of one fold and seed and publishes what came of it; shared by train and tune.

A part is one (fold, seed), or the refit of one seed on all rows. Its folder appears file by file and its last
file is the commit: `predictions.parquet` of a fold, `model.safetensors` of a refit.
"""

import dataclasses
import json
import logging
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster import settings, storage
from cluster.errors import ConfigError
from fusion import bundle
from fusion.bundle import Card, Predictor
from fusion.nets import NETS, net_config
from fusion.ordering import seed_of
from fusion.predicting import Predicted, joined, predict
from fusion.recipe import Recipe
from fusion.scaling import Scaler
from fusion.training import Fitted, Group, OnEpoch, fit
from jobs._feeding import Data
from jobs._feeds import Clips
from jobs._predictions import predictions_uri, write_predictions

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NetChoice:
    """A net and how its rows are cut: what a part needs of a config besides the recipe."""

    net: str
    net_options: Mapping[str, Any]
    pca: Mapping[str, int]
    scale: Literal["none", "standard"]
    valid_share: float
    has_folds: bool
    share: float = 1.0
    """Of the training groups [0..1]."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Clips by role, as masks; every clip has at most one."""

    train: np.ndarray
    valid: np.ndarray
    oof: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Part:
    """One net to train."""

    seed: int
    fold: int | None
    """None: the refit on all rows."""

    def folder(self, root: str, run: str) -> str:
        """Where it is published."""
        fold = "refit" if self.fold is None else f"fold={self.fold}"
        return storage.join(root, "runs", run, fold, f"seed={self.seed}")

    def commit(self, root: str, run: str) -> str:
        """The file whose existence means that the part is done."""
        if self.fold is None:
            return storage.join(self.folder(root, run), "model.safetensors")
        return predictions_uri(root, run, self.fold, self.seed)

    @property
    def title(self) -> str:
        """How progress names it."""
        return f"{'refit' if self.fold is None else f'fold {self.fold}'} seed {self.seed}"


def split_of(
    clips: Clips, part: Part, *, valid_share: float, has_folds: bool, share: float = 1.0
) -> Split:
    """Roles of the clips in one part.

    With folds the part's fold is held out and some groups of the rest choose the epoch; each seed draws its
    own, so that the seeds of a fold together see all of its rows. A valid share of 0 keeps nobody back: the
    net trains on all of the rest and its last epoch counts. Without folds the valid split chooses (or,
    where the dataset has none, some groups of the rest, the same for every seed).

    A share leaves out training groups, and with folds groups that choose the epoch; judged rows stay.
    """
    split = _whole_split(clips, part, valid_share, has_folds)
    if share == 1.0:
        return split
    order = seed_of("share", "refit" if part.fold is None else part.fold, part.seed)
    train = share_of_groups(clips, split.train, share, order)
    valid = share_of_groups(clips, split.valid, share, order) if has_folds else split.valid
    return Split(train=train, valid=valid, oof=split.oof)


def _whole_split(clips: Clips, part: Part, valid_share: float, has_folds: bool) -> Split:
    nobody = np.zeros(len(clips), bool)
    if part.fold is None:
        return Split(train=~nobody, valid=nobody, oof=nobody)
    if has_folds:
        oof = clips.fold == part.fold
        if valid_share == 0:
            return Split(train=~oof, valid=nobody, oof=oof)
        valid = some_groups(clips, ~oof, valid_share, seed_of("inner", part.fold, part.seed))
        return Split(train=~oof & ~valid, valid=valid, oof=oof)
    valid = clips.split == "valid"
    if not valid.any():
        valid = some_groups(clips, ~nobody, valid_share, seed_of("inner"))
    return Split(train=~valid, valid=valid, oof=nobody)


def some_groups(clips: Clips, among: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Whole groups drawn at random until they hold a share of the rows.

    Raises:
        ConfigError: there is only one group.
    """
    group = _groups(clips)
    names, counts = np.unique(group[among], return_counts=True)
    if len(names) < 2:
        raise ConfigError(
            f"the rows to train on are all of one group ({names.tolist()}): nothing is left to "
            "choose the epoch by"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    wanted = max(1, int(np.searchsorted(counts[order].cumsum(), share * counts.sum()) + 1))
    return among & np.isin(group, names[order[: min(wanted, len(names) - 1)]])


def share_of_groups(clips: Clips, among: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The first groups of a random order, at least one; those of a smaller share are among them."""
    group = _groups(clips)
    names = np.unique(group[among])
    order = np.random.default_rng(seed).permutation(len(names))
    return among & np.isin(group, names[order[: max(1, round(share * len(names)))]])


def _groups(clips: Clips) -> np.ndarray:
    """Name of each clip's group; a clip without one stands for itself."""
    pairs = zip(clips.group, clips.clip_id, strict=True)
    return np.array([f"clip {clip}" if name is None else str(name) for name, clip in pairs])


def new_predictor(choice: NetChoice, data: Data, train: Tensor, seed: int) -> Predictor:
    """A fresh net behind a scaler that was fitted on the training rows."""
    order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]
    batches = (data.feed.batch(rows) for rows in torch.split(order, 256))
    pca = {name: width for name, width in choice.pca.items() if name in data.dims}
    scaler = Scaler.fitted(batches, data.dims, pca=pca, scale=choice.scale)
    card = card_of(choice, data, {})
    torch.manual_seed(seed_of("init", seed))
    predictor = bundle.build(card)
    predictor.scaler.load_state_dict(scaler.state_dict())
    return predictor


def card_of(choice: NetChoice, data: Data, facts: Mapping[str, Any]) -> Card:
    """All that is needed to build the net again, and to make its input as it was made for training."""
    config = net_config(choice.net, choice.net_options)
    return Card(
        net=choice.net,
        config=dataclasses.asdict(config),
        tasks=data.tasks,
        dims=data.dims,
        pca={name: width for name, width in choice.pca.items() if name in data.dims},
        inputs=data.inputs,
        facts=facts,
        **bundle.feeding_fields(data.how),
    )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained part before it is published."""

    part: Part
    fitted: Fitted
    roles: Mapping[str, Predicted]
    """Role -> predictions; empty for a refit."""

    seconds: float


def train_part(
    choice: NetChoice,
    data: Data,
    part: Part,
    recipe: Recipe,
    *,
    group: Group | None = None,
    resume: bytes | None = None,
    on_epoch: OnEpoch | None = None,
    roles: tuple[str, ...] = ("train", "valid", "oof"),
) -> Trained:
    """Train one net and predict the rows of the wanted roles.

    Raises:
        ConfigError: a net that takes another axis, or a choice that does not suit the data.
    """
    start = time.monotonic()
    group = group or Group()
    split = split_of(
        data.clips,
        part,
        valid_share=choice.valid_share,
        has_folds=choice.has_folds,
        share=choice.share,
    )
    rows = {name: data.feed.rows_of(getattr(split, name)) for name in ("train", "valid", "oof")}
    try:
        predictor = new_predictor(choice, data, rows["train"], part.seed)
        fitted = fit(
            predictor,
            data.feed,
            tasks=data.tasks,
            train=rows["train"],
            valid=rows["valid"],
            recipe=recipe,
            seed=part.seed,
            group=group,
            resume=resume,
            on_epoch=on_epoch,
        )
    except ValueError as error:
        raise ConfigError(f"{choice.net}, {part.title}: {error}") from error
    found = {}
    if part.fold is not None and not fitted.stopped:
        for role in roles:
            mine = rows[role][group.rank :: group.world]
            got = predict(fitted.predictor, data.feed, mine, batch_size=256, device=group.device)
            found[role] = joined(got, group.world)
    return Trained(part=part, fitted=fitted, roles=found, seconds=time.monotonic() - start)


def until(epoch: int) -> OnEpoch:
    """Stops a refit after the epoch that its folds found best."""

    def stop(record: dict[str, float], _state: Callable[[], bytes]) -> bool:
        return record["epoch"] >= epoch

    return stop


def publish_part(root: str, run: str, trained: Trained, data: Data, card: Card) -> None:
    """Write a part's folder; the commit comes last."""
    part = trained.part
    folder = part.folder(root, run)
    lines = [json.dumps(record, sort_keys=True) + "\n" for record in trained.fitted.history]
    storage.publish_bytes("".join(lines).encode(), storage.join(folder, "history.jsonl"))
    storage.publish_json(card.to_json(), storage.join(folder, "model.json"))
    weights = bundle.to_bytes(trained.fitted.predictor)
    storage.publish_bytes(weights, storage.join(folder, "model.safetensors"))
    if part.fold is not None:
        table = predictions_table(run, part, trained.roles, data)
        write_predictions(root, run, part.fold, part.seed, table)
    storage.remove(storage.join(folder, "checkpoint.pt"))


def predictions_table(run: str, part: Part, roles: Mapping[str, Predicted], data: Data) -> pa.Table:
    """Rows whose target is known; scores are null for a clip that has none of the inputs."""
    has_input = torch.stack([_present(store) for store in data.feed.stores.values()]).any(0)
    parts = []
    for role, got in roles.items():
        at = np.searchsorted(data.clips.clip_id, got.clip_id.numpy())
        for name, task in data.tasks.items():
            if name not in got.logits:
                continue
            target, known = got.targets[name].double(), got.known[name]
            if task.kind == "multilabel":
                target = torch.where(known, target, torch.nan)
                kept = known.any(1)
            else:
                target, kept = target.unsqueeze(1), known
            rows = at[kept.numpy()]
            scores = got.logits[name][kept].double().tolist()
            said = has_input[torch.from_numpy(rows)].tolist()
            columns = {
                "clip_id": data.clips.clip_id[rows],
                "run": pa.array([run] * len(rows)),
                "split": pa.array(data.clips.split[rows].tolist(), pa.string()),
                "fold": pa.array([part.fold] * len(rows), pa.int64()),
                "seed": pa.array([part.seed] * len(rows), pa.int64()),
                "task": pa.array([name] * len(rows), pa.string()),
                "target": pa.array(target[kept].tolist(), pa.list_(pa.float64())),
                "role": pa.array([role] * len(rows), pa.string()),
                "scores": pa.array(
                    [row if there else None for row, there in zip(scores, said, strict=True)],
                    pa.list_(pa.float64()),
                ),
            }
            parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def read_history(folder: str) -> list[dict[str, float]]:
    """The records of one part's epochs."""
    text = storage.read_bytes(storage.join(folder, "history.jsonl")).decode()
    return [json.loads(line) for line in text.splitlines()]


def median_epoch(root: str, run: str, parts: list[Part]) -> int:
    """The median of the best epochs of the folds of a run."""
    best = []
    for part in parts:
        card = storage.read_json(storage.join(part.folder(root, run), "model.json"))
        best.append(int(card["facts"]["best_epoch"]))
    return int(statistics.median_high(best))


def check_net(net: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown net or option before anything is loaded.

    Raises:
        ConfigError: naming the nearest known one.
    """
    if net not in NETS:
        raise ConfigError(f"there is no net {net!r}; {settings.nearest(net, list(NETS))}")
    try:
        net_config(net, options)
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def _present(store: Any) -> Tensor:
    """Which clips have at least one valid step."""
    clip = torch.arange(len(store.lengths)).repeat_interleave(store.lengths)
    counts = torch.zeros(len(store.lengths), dtype=torch.int64)
    return counts.index_add_(0, clip, store.valid.long()) > 0

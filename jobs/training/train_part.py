"""Train the net of one fold and seed and publish it; shared by train and tune.

A part is one (fold, seed), or the refit of one seed on all rows. Its folder appears file by file and its last
file is the commit: `predictions.parquet` of a fold, `model.safetensors` of a refit.
"""

import dataclasses
import hashlib
import json
import logging
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster import settings, storage
from cluster.errors import ConfigError, DivergedError
from fusion import predictor as bundle
from fusion.nets import NETS, is_convex, net_config
from fusion.predictor import Card, Predictor
from fusion.scaling import Scaler
from fusion.training.convex import fit_convex
from fusion.training.head_first import begins_solved, solve_head
from fusion.training.loop import Course, FittedNet, Group, NotFiniteError, RowSplit, fit
from fusion.training.ordering import seed_of
from fusion.training.predicting import Predicted, joined, predict
from fusion.training.recipe import Recipe
from fusion.training.rows import at_once
from jobs.catalog import layout
from jobs.catalog.branches import branches_of
from jobs.catalog.groups import group_names
from jobs.catalog.predictions import write_predictions
from jobs.training.feeds import Clips
from jobs.training.loading import Data
from jobs.training.net_input import check_inputs, has_input
from jobs.training.parts import Part, Split, split_of

log = logging.getLogger(__name__)

ROLES = ("train", "valid", "oof")
"""What a net of a run predicts."""


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
    """Share of the training groups to train on [0..1]."""

    store: str = ""
    """Folder or URI of pretrained weights, for a net that trains encoders."""

    def split(self, clips: Clips, part: Part) -> Split:
        """Roles of the clips in one part."""
        return split_of(
            clips,
            part,
            valid_share=self.valid_share,
            has_folds=self.has_folds,
            share=self.share,
        )


def new_predictor(choice: NetChoice, data: Data, train: Tensor, seed: int) -> Predictor:
    """A fresh net behind a scaler that was fitted on the training rows."""
    card = card_of(choice, data, {})
    branches = branches_of(card, choice.store)
    pca = {name: width for name, width in choice.pca.items() if name in data.dims}

    def fitted() -> Scaler:
        order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]
        size = at_once(data.feed, order, 256)
        batches = (data.feed.batch(rows) for rows in torch.split(order, size))
        return Scaler.fitted(batches, data.dims, pca=pca, scale=choice.scale, raw=branches)

    rows = hashlib.blake2b(train.numpy().data, digest_size=16).digest()
    scaler = data.scalers.of((rows, choice.scale, *pca.items()), fitted)
    torch.manual_seed(seed_of("init", seed))
    predictor = bundle.build(card, branches)
    predictor.scaler.load_state_dict(scaler.state_dict())
    return predictor


def card_of(choice: NetChoice, data: Data, facts: Mapping[str, Any]) -> Card:
    """Card of a net: all that is needed to build it again and to make its input as in training."""
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
    fitted: FittedNet
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
    course: Course | None = None,
    roles: tuple[str, ...] = ROLES,
) -> Trained:
    """Train one net and predict the rows of the wanted roles.

    Raises:
        ConfigError: a net that takes another axis, or a choice that does not suit the data.
        DivergedError: a loss, weight or prediction is not finite.
    """
    start = time.monotonic()
    group = group or Group()
    course = dataclasses.replace(course or Course(), seed=part.seed)
    split = choice.split(data.clips, part)
    rows = {name: data.feed.rows_of(getattr(split, name)) for name in ("train", "valid")}
    try:
        check_inputs(data.feed, split.train)
        predictor = new_predictor(choice, data, rows["train"], part.seed)
        if is_convex(choice.net):
            fitted = solved(predictor, data, rows["train"], recipe, group)
        else:
            if begins_solved(predictor) and course.resume is None:
                _solve_head(predictor, data, rows["train"], recipe, group)
            fitted = fit(
                predictor,
                data.feed,
                RowSplit(train=rows["train"], valid=rows["valid"]),
                recipe,
                tasks=data.tasks,
                group=group,
                course=course,
            )
    except NotFiniteError as error:
        raise diverged(choice, part, error) from error
    except ValueError as error:
        raise ConfigError(f"{choice.net}, {part.title}: {error}") from error
    found = {}
    if part.fold is not None and not fitted.stopped:
        found = predicted(choice, data, part, fitted, roles, group)
    return Trained(part=part, fitted=fitted, roles=found, seconds=time.monotonic() - start)


def predicted(
    choice: NetChoice,
    data: Data,
    part: Part,
    fitted: FittedNet,
    roles: Iterable[str],
    group: Group,
) -> dict[str, Predicted]:
    """Predictions of the rows of some roles, equal on every worker.

    Raises:
        DivergedError: one is not finite.
    """
    split, found = choice.split(data.clips, part), {}
    for role in roles:
        mine = data.feed.rows_of(getattr(split, role))[group.rank :: group.world]
        got = predict(fitted.predictor, data.feed, mine, batch_size=256, device=group.device)
        found[role] = joined(got, group.world)
        if not all(bool(logits.isfinite().all()) for logits in found[role].logits.values()):
            best = fitted.best_epoch
            reason = NotFiniteError(
                best, fitted.history[best - 1]["lr"], f"a prediction of {role} rows"
            )
            raise diverged(choice, part, reason)
    return found


def solved(
    predictor: Predictor, data: Data, train: Tensor, recipe: Recipe, group: Group
) -> FittedNet:
    """The one solution of a convex net; each worker of a group finds it by itself."""
    codes = _group_codes(data)[train]
    fitted = fit_convex(
        predictor, data.feed, tasks=data.tasks, train=train, groups=codes, recipe=recipe
    )
    predictor.to(group.device)
    return fitted


def _solve_head(
    predictor: Predictor, data: Data, train: Tensor, recipe: Recipe, group: Group
) -> None:
    solve_head(
        predictor,
        data.feed,
        tasks=data.tasks,
        train=train,
        groups=_group_codes(data)[train],
        recipe=recipe,
        group=group,
    )


def _group_codes(data: Data) -> Tensor:
    names = group_names(data.clips.group, data.clips.clip_id)
    return torch.from_numpy(np.unique(names, return_inverse=True)[1])


def diverged(choice: NetChoice, part: Part, reason: NotFiniteError) -> DivergedError:
    """Error for a net whose loss is no longer finite, with the flags to type."""
    return DivergedError(
        f"{choice.net}, {part.title}: training diverged, {reason}; nothing of this net is kept; "
        f"type a smaller --lr, e.g. {reason.lr / 10:g}, another --clip-norm, or --precision float32"
    )


def facts_of(run: str, trained: Trained, data: Data) -> dict[str, Any]:
    """What the card of a net says of its making."""
    return {
        "run": run,
        "fold": trained.part.fold,
        "seed": trained.part.seed,
        "best_epoch": trained.fitted.best_epoch,
        "epochs": len(trained.fitted.history),
        "seconds": round(trained.seconds, 3),
        "manifest": data.dataset.manifest_hash,
    }


def publish_part(root: str, run: str, trained: Trained, data: Data, card: Card) -> None:
    """Write a part's folder; the commit comes last."""
    part = trained.part
    folder = part.folder(root, run)
    lines = [json.dumps(record, sort_keys=True) + "\n" for record in trained.fitted.history]
    storage.publish_bytes("".join(lines).encode(), storage.join(folder, layout.HISTORY))
    storage.publish_json(card.to_json(), storage.join(folder, layout.CARD))
    weights = bundle.to_bytes(trained.fitted.predictor)
    storage.publish_bytes(weights, storage.join(folder, layout.WEIGHTS))
    if part.fold is not None:
        table = predictions_table(run, part, trained.roles, data)
        write_predictions(root, run, part.fold, part.seed, table)
    storage.remove(part.checkpoint(root, run))


def predictions_table(run: str, part: Part, roles: Mapping[str, Predicted], data: Data) -> pa.Table:
    """Rows whose target is known; scores are null for a clip that has none of the inputs."""
    heard = has_input(data.feed).numpy()
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
            said = heard[rows].tolist()
            columns = {
                "clip_id": data.clips.clip_id[rows],
                "run": pa.array([run] * len(rows), pa.string()),
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
    text = storage.read_bytes(storage.join(folder, layout.HISTORY)).decode()
    return [json.loads(line) for line in text.splitlines()]


def median_epoch(root: str, run: str, parts: list[Part]) -> int:
    """The median of the best epochs of the folds of a run."""
    best = []
    for part in parts:
        card = storage.read_json(storage.join(part.folder(root, run), layout.CARD))
        best.append(int(card["facts"]["best_epoch"]))
    return int(statistics.median_high(best))


def median_rates(root: str, run: str, parts: list[Part]) -> tuple[float, ...]:
    """The learning rate in each epoch as a share of the first, the median of the folds that came so far."""
    folds = [[one["lr"] for one in read_history(part.folder(root, run))] for part in parts]
    longest = max(map(len, folds))
    return tuple(
        statistics.median_low(rates[epoch] / rates[0] for rates in folds if len(rates) > epoch)
        for epoch in range(longest)
    )


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

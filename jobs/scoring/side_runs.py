"""What encoders say themselves as runs: members of an ensemble that nobody trains.

A run as any other, with nets that hold no weights (`jobs.scoring.pretrained`) and predictions of held-out
rows: so it is fused, judged, bundled and scores raw clips like the others.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cluster import storage
from cluster.console import readable
from cluster.errors import ConfigError, NotPreparedError
from encoders import ENCODERS
from encoders.registry import find
from fusion import predictor
from fusion.predictor import Card
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.branches import publishes_inputs
from jobs.catalog.features import FeatureReader, feature_folders, resolve_features
from jobs.catalog.manifest import read_dataset, read_folds
from jobs.catalog.run_names import owner
from jobs.scoring.member_nets import MemberNets, predict_member
from jobs.scoring.pretrained import answers_of, card_of, said
from jobs.training.given_scores import SEED, judged_clips, publish_predictions, publish_summary
from jobs.training.loading import Request, load


def side_runs(
    root: str, tables: Sequence[str], beside: Sequence[str], name: str, task: Task
) -> list[str]:
    """Publish what some encoders say as runs; one that is there already is kept.

    Args:
        root: of the dataset.
        tables: their feature tables, as encoders are typed.
        beside: runs whose folds they share.
        name: of the task.
        task: the task.

    Returns:
        Their names.

    Raises:
        ConfigError: an encoder says nothing of the task, or a name is that of another run.
        NotPreparedError: features are not there.
    """
    folds, runs = _folds_of(root, beside), []
    for table in tables:
        for run, card in _cards(root, table, name, task).items():
            if run in runs:
                raise ConfigError(f"--side {' '.join(tables)}: {run} is there twice; name it once")
            _publish(root, run, card, folds, task)
            runs.append(run)
    return runs


def _folds_of(root: str, runs: Sequence[str]) -> str | None:
    """The name of the folds that runs were judged by; None: the validation split."""
    configs = (layout.run_uri(root, run, layout.CONFIG) for run in runs)
    known = [storage.read_json(uri).get("folds") for uri in configs if storage.exists(uri)]
    return next(filter(None, known), None)


def _cards(root: str, table: str, name: str, task: Task) -> dict[str, Card]:
    """Run -> card of the net of each column of a feature table that says something of a task.

    Raises:
        ConfigError: none does; with the encoders that have such columns.
        NotPreparedError: the table was encoded before the encoder had the column.
    """
    folder = resolve_features(root, table)
    facts = feature_folders(root)[folder]
    encoder = str(facts.get("name"))
    cards = {}
    for column in {} if publishes_inputs(facts) else answers_of(encoder):
        source = {key: facts.get(key) for key in ("name", "options", "fingerprint")}
        card = card_of({"features": folder, **source, "column": column}, name, task)
        if card is not None:
            cards[column] = card
    if not cards:
        others = " ".join(each for each in ENCODERS if find(each).answers)
        labels = f" ({', '.join(task.classes)})" if task.classes else ""
        raise ConfigError(
            f"--side {table}: {encoder} says nothing of {name!r}{labels} by itself; encoders with answers of "
            f"their own: {others}"
        )
    if absent := cards.keys() - set(FeatureReader(root, folder).schema.names):
        raise NotPreparedError(
            f"{folder} has no column {', '.join(sorted(absent))}; remove features/{folder}, then type: "
            f"affuse encode --root {shlex.quote(root)} --encoders {shlex.quote(table)}"
        )
    end = f"-{name}" if len(read_dataset(root).tasks) > 1 else ""
    return {
        f"side-{encoder}{f'-{column}' if len(cards) > 1 else ''}{end}": card
        for column, card in cards.items()
    }


def _publish(root: str, run: str, card: Card, folds: str | None, task: Task) -> None:
    """Write a run, unless it is there.

    Raises:
        ConfigError: the name is that of a run which was trained.
    """
    base, (name,) = layout.run_uri(root, run), card.tasks
    own = {"identity": _identity(root, card, folds)}
    print(readable(f"{run}: {said(card)}"))
    if storage.exists(storage.join(base, layout.SUMMARY)) and owner(base) == own:
        return
    if storage.names(base):
        if not storage.exists(storage.join(base, layout.ANSWERS)):
            raise ConfigError(f"run {run!r} is there already, and was trained; rename its folder")
        storage.remove_tree(base)
    source = next(iter(card.inputs.values()))
    storage.publish_json(
        {"features": source["features"], "column": source["column"]},
        storage.join(base, layout.ANSWERS),
    )
    storage.publish_json({"folds": folds}, storage.join(base, layout.CONFIG))
    storage.publish_json(own, storage.join(base, layout.IDENTITY))
    judged = judged_clips(root, name, task, folds)
    if not len(judged.rows):
        raise ConfigError(f"no held-out clip has a label of {name!r}; name other --runs, or --task")
    _publish_nets(root, run, card, np.unique(judged.clips.fold[judged.rows]).tolist(), folds)
    publish_predictions(root, run, name, task, judged, _scores(root, run, card, folds))
    publish_summary(root, run, name, task, {"net": card.net})


def _identity(root: str, card: Card, folds: str | None) -> str:
    """Eight hex digits over all that shapes the rows of a run."""
    cut = None if folds is None else sorted(read_folds(root, folds).items())
    meaning = [card.to_json(), read_dataset(root).manifest_hash, cut]
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:8]


def _publish_nets(root: str, run: str, card: Card, cut: Sequence[int], folds: str | None) -> None:
    """The same net for every fold, and for clips outside them."""
    manifest = read_dataset(root).manifest_hash
    for fold in (*cut, *([] if folds is None else [None])):
        facts = {"run": run, "fold": fold, "seed": SEED, "manifest": manifest}
        own, folder = replace(card, facts=facts), layout.part_uri(root, run, fold, SEED)
        weights = predictor.to_bytes(predictor.build(own))
        storage.publish_bytes(weights, storage.join(folder, layout.WEIGHTS))
        storage.publish_json(own.to_json(), storage.join(folder, layout.CARD))


def _scores(root: str, run: str, card: Card, folds: str | None) -> dict[int, list[float]]:
    """Clip -> what the encoder says; clips in which it found nothing are absent. None of the test split."""
    ((name, task),) = card.tasks.items()
    source = next(iter(card.inputs.values()))
    inputs = (str(source["features"]),)
    request = Request(root=root, inputs=inputs, tasks=(name,), folds=folds)
    feed = load(request, card.inputs).feed
    nets = (predictor.build(card).eval(),)
    scores, present = predict_member(MemberNets(name=run, card=card, nets=nets), feed, name, task)
    return dict(zip(feed.clips.clip_id[present].tolist(), scores[present].tolist(), strict=True))

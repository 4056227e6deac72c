"""Train one fusion net: all folds and seeds of a command in one group of workers.

Reads:  <root>/manifest/, <root>/features/<encoder>/, <root>/folds/  (never a row of the test split)
Writes: <root>/runs/<run>/  config.json, summary.json, history.jsonl, and for each fold and seed
        model.safetensors, model.json and predictions.parquet (roles train, valid, oof)

Laptop:   affuse train --root data/ravdess --inputs whisper_tiny_en egemaps --folds subject
One GPU:  affuse train --root data/mosei --inputs roberta_base wavlm_base --net lmf --workers 1 --seeds 0 1 2
Cluster:  affuse submit --address URL -- train --root s3://bucket/mosei --inputs bert_base
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from cluster import settings, storage
from cluster.tracking import run_tracker
from fusion.number_format import figure_text
from jobs.catalog import layout
from jobs.catalog.manifest import read_dataset
from jobs.catalog.run_names import check_owner, owner
from jobs.catalog.tasks import pick_tasks
from jobs.evaluation.leaks import warn_of_leaks
from jobs.training import train_part
from jobs.training.buildable import check_built
from jobs.training.ignored import say_what_is_ignored
from jobs.training.input_names import check_option_names
from jobs.training.labels import check_labels
from jobs.training.loading import read_clips
from jobs.training.parts import Part
from jobs.training.run import (
    TrainConfig,
    check_name,
    choice_of,
    claimed,
    missing,
    parts_of,
    request_of,
    resolved,
    run_uri,
)
from jobs.training.suited import check_suited
from jobs.training.summary import show, summarise
from jobs.training.workers import launch

Config = TrainConfig
"""Its fields are in `jobs.training.run`, since a trial of a search has the same."""


def main(config: Config) -> None:
    """Train the missing parts of a run, then write its summary."""
    config = resolved(config)
    if owner(run_uri(config)) is None:
        # A run that is there may be of a search, whose options name inputs of its other sets as well.
        options = {**config.net_options, "pca": config.pca}
        check_option_names(config.root, [config.inputs], options.items())
    train(config)


def train(config: Config) -> None:
    """Train the missing parts of a run whose options were checked."""
    start = time.monotonic()
    check_name(config)
    parts = parts_of(config)
    todo = missing(config, parts)
    base = run_uri(config)
    if not todo and storage.exists(storage.join(base, layout.SUMMARY)):
        print(f"nothing to do: {base} is complete")
        return
    dataset = read_dataset(config.root)
    check_suited(config.net, config, pick_tasks(dataset, config.tasks), dataset.votes)
    check_rows(config)
    check_built(config, pick_tasks(dataset, config.tasks))
    say_what_is_ignored(config)
    with (
        claimed(config) as own,
        run_tracker(config.root, base, enabled=config.tracking) as tracker,
    ):
        there = f", {len(parts) - len(todo)} are there" if len(todo) < len(parts) else ""
        print(f"run {config.run}: {len(todo)} nets to train{there}")
        tracker.start(str(config.run), settings.to_mapping(config), kind="train")
        if todo:
            warn_of_leaks(config.root, config.inputs, config.tasks)
            launch(config, own)
        check_owner(base, own)
        summary = summarise(config.root, str(config.run), parts)
        publish(config, parts, summary)
        tracker.finish(summary, histories(config, parts))
    show(summary)
    print(f"wrote {base} in {time.monotonic() - start:.1f} s")


def train_without_printing(values: Mapping[str, Any]) -> str:
    """Train by a config in plain values without printing; for a task on a worker.

    Returns:
        The run and its figures in a line.
    """
    config = resolved(settings.from_mapping(Config, values))
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        train(config)
    summary = storage.read_json(storage.join(run_uri(config), layout.SUMMARY))
    figures = summary["roles"].get(summary["judged"], {})
    text = ", ".join(
        f"{name} {figure_text(figure['mean'])}" for name, figure in list(figures.items())[:2]
    )
    return f"{config.run}: {text}"


def check_rows(config: Config) -> None:
    """Refuse labels that no net can learn from, before features are read."""
    request, choice = request_of(config), choice_of(config)
    tasks = pick_tasks(read_dataset(config.root), config.tasks)
    clips = read_clips(request, tasks)
    splits = [(part, choice.split(clips, part)) for part in parts_of(config)]
    check_labels(clips, tasks, splits)


def publish(config: Config, parts: list[Part], summary: Mapping[str, Any]) -> None:
    """history.jsonl of all parts, then summary.json: the run is complete."""
    base = run_uri(config)
    lines = [json.dumps(record, sort_keys=True) + "\n" for record in histories(config, parts)]
    storage.publish_bytes("".join(lines).encode(), storage.join(base, layout.HISTORY))
    for part in parts:
        # Of a part that was killed between its last file and this.
        storage.remove(part.checkpoint(config.root, str(config.run)))
    storage.publish_json(summary, storage.join(base, layout.SUMMARY))


def histories(config: Config, parts: list[Part]) -> list[dict[str, Any]]:
    """Every epoch of every part, with its fold (null: refit) and seed."""
    return [
        {"fold": part.fold, "seed": part.seed, **record}
        for part in parts
        for record in train_part.read_history(part.folder(config.root, str(config.run)))
    ]

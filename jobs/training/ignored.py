"""Flags that change nothing in a run, which is said before it begins."""

import dataclasses

from fusion.nets import is_convex, net_axis
from fusion.training.recipe import Recipe
from jobs.catalog.branches import publishes_inputs
from jobs.catalog.features import feature_folders, resolve_features
from jobs.training.loading import has_views
from jobs.training.run import TrainConfig, request_of, seeds_of


def say_what_is_ignored(config: TrainConfig) -> None:
    """Print a line for each kind of flag that the run would be the same without."""
    if config.views and not has_views(request_of(config)):
        print("without effect: --views, for text and imported features have none")
    if config.pool != "none" and not is_pooled(config):
        print("without effect: --pool, for what a model of the net reads stays as it is")
    if config.causal and net_axis(config.net) == "clip":
        print(f"without effect: --causal, for {config.net} reads each clip by itself")
    if unused := ignored_when_solved(config):
        print(f"{config.net} is solved, not trained by steps: without effect: {', '.join(unused)}")


def is_pooled(config: TrainConfig) -> bool:
    """Whether `--pool` has an input to reduce: what a model of the net reads is never pooled."""
    folders = feature_folders(config.root)
    tables = [folders[resolve_features(config.root, name)] for name in config.inputs]
    return not all(publishes_inputs(facts) for facts in tables)


def ignored_when_solved(config: TrainConfig) -> list[str]:
    """Flags with values that a convex net ignores."""
    if not is_convex(config.net):
        return []
    plain: Recipe = Recipe()
    fields = {item.name: getattr(plain, item.name) for item in dataclasses.fields(Recipe)}
    if config.folds is not None:
        fields["valid_share"] = TrainConfig.valid_share
    given = [
        name
        for name, default in fields.items()
        if name not in ("balanced", "class_weights") and getattr(config, name) != default
    ]
    if len(seeds_of(config)) < len(config.seeds):
        given.append("seeds")
    return ["--" + name.replace("_", "-") for name in given]

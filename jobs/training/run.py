"""A run of training: config, name, parts, and input of its nets."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster import settings, storage
from cluster.errors import (
    ConfigError,
    MissingExtraError,
    NotPreparedError,
    PlanError,
    SchemaError,
    TableError,
    WeightsError,
)
from cluster.session import SessionConfig
from cluster.settings import Place
from encoders.store import default_store
from fusion.nets import is_convex, net_axis
from fusion.predictor import Pool
from fusion.training.recipe import Recipe
from jobs.catalog import layout
from jobs.catalog.features import resolve_features
from jobs.catalog.label_names import check_run, note_tasks
from jobs.catalog.manifest import read_dataset, read_folds, read_manifest
from jobs.catalog.names import check_names
from jobs.catalog.outputs import publish_config
from jobs.catalog.run_names import free, holds_results, owner, take
from jobs.catalog.tasks import pick_tasks
from jobs.training.loading import Request
from jobs.training.parts import Part
from jobs.training.speaker_norm import enrolment
from jobs.training.train_part import NetChoice, check_net

ELSEWHERE = (
    "cache", "checkpoint_s", "max_failures", "memory_gb", "refit", "root", "run", "session", "spread",
    "store", "tracking", "workers",
)  # fmt: skip
"""Fields that do not change the result of a run: where and how safely it is made."""

REFUSALS = (
    ConfigError, MissingExtraError, NotPreparedError, PlanError, SchemaError, TableError, WeightsError,
)  # fmt: skip
"""What the same command would be answered with again, until something else is typed."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Recipe):
    """Which net is trained on what, and how."""

    root: Place
    """Folder or URI of the dataset."""

    inputs: tuple[str, ...]
    """Feature tables: encoders as they were encoded (`minilm`, `minilm:pool=mean`) or imported ones."""

    net: str = "concat_mlp"
    """Key of fusion.nets.NETS."""

    net_options: dict[str, int | float | str | bool] = field(default_factory=dict)
    """Fields of the net's Config, or preset=NAME; hidden.text=64 sets one entry of a mapping."""

    run: str | None = None
    """Name of the run; by default the net and a hash of everything that shapes the result."""

    tasks: tuple[str, ...] = ()
    """Tasks to predict; the first one is monitored. By default all tasks of the dataset."""

    pool: Pool = "none"
    """Pooling of the steps of a clip into one: none, mean, or mean and standard deviation."""

    views: int = 0
    """Number of augmented views (`affuse encode --views`); each epoch draws every training row from the
    original and its views, and a convex net is solved on all of them. Predictions are always made from the
    original."""

    normalise: str = "none"
    """Speaker normalisation: none, speaker or speaker:K. speaker removes the mean and spread of all
    unlabelled clips of a speaker, speaker:K those of K enrolment clips. Both read clips of held-out
    speakers, so their results are reported separately."""

    causal: bool = False
    """Hide later utterances from a dialogue net."""

    scale: Literal["none", "standard"] = "standard"
    """Scaling of each feature, fitted on the training part."""

    pca: dict[str, int] = field(default_factory=dict)
    """Number of principal components of an input, INPUT=NUMBER, fitted on the training part."""

    folds: str | None = None
    """Name of the folds to train on, e.g. subject; by default the train and valid splits of the dataset."""

    seeds: tuple[int, ...] = (0,)
    """Seeds of the nets; each fold has one net for each seed."""

    valid_share: float = 0.1
    """Share of the training rows, in whole groups, held out to choose the epoch (with folds) [0..1]. 0: all
    rows are trained on and the last epoch counts, which suits --schedule cosine and a known --epochs."""

    share: float = 1.0
    """Share of the training groups to train on [0..1]; runs that differ in it alone make the learning curve
    of a report."""

    refit: bool = True
    """Train once more on all rows, up to the median best epoch of the folds; a bundle ships these nets."""

    workers: int | None = None
    """Workers that share the rows of each step; 0: this process. By default 0 on one machine, on a
    cluster one a GPU (at most 8)."""

    spread: Literal["parts", "rows"] = "rows"
    """How workers divide the training. rows: they share each step. parts: each trains whole nets."""

    max_failures: int = 3
    """Number of restarts of the workers before the job gives up."""

    checkpoint_s: float = 5.0
    """Time between two checkpoints [s], taken at the end of an epoch; 0: every epoch."""

    memory_gb: float = 4.0
    """Total size of the features above which they are memory-mapped instead of loaded [GB]."""

    cache: Place = "~/.cache/affuse/feeding"
    """Folder for memory-mapped features."""

    store: Place = ""
    """Folder or URI of pretrained weights, for a net that trains encoders; by default as `encode`."""

    tracking: bool = True
    """Record the run in MLflow."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """Ray session, where there are workers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(run=self.run, folds=self.folds)
        if not self.inputs or not self.seeds:
            raise ConfigError("expected at least one of --inputs and one of --seeds")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"--seeds {list(self.seeds)}: each seed once")
        if self.views < 0:
            raise ConfigError(f"--views {self.views}: expected 0 or more")
        if not 0 <= self.valid_share < 1:
            raise ConfigError(f"--valid-share {self.valid_share}: expected from 0 to below 1")
        if self.valid_share == 0 and (self.folds is None or self.schedule == "plateau"):
            raise ConfigError(
                "--valid-share 0 leaves nothing to choose or judge by: give --folds, and a schedule "
                "other than plateau"
            )
        if not 0 < self.share <= 1:
            raise ConfigError(f"--share {self.share}: expected above 0 and at most 1")
        enrolment(self.normalise)
        check_net(self.net, self.net_options)


def is_complete(config: TrainConfig) -> bool:
    """Whether every part of a named run and its summary are there."""
    done = storage.exists(storage.join(run_uri(config), layout.SUMMARY))
    return done and not missing(config, parts_of(config))


def resolved(config: TrainConfig) -> TrainConfig:
    """The config with an absolute root and a name."""
    config = dataclasses.replace(config, root=storage.absolute(config.root))
    if config.run is None:
        config = dataclasses.replace(config, run=f"{config.net}-{identity(config)}")
    return config


def identity(config: TrainConfig, more: Mapping[str, Any] | None = None) -> str:
    """Eight hex digits over all that shapes the result: config, manifest, folds and feature tables."""
    meaning = {**settings.to_mapping(config), **(more or {})}
    for name in ELSEWHERE:
        del meaning[name]
    meaning["manifest"] = read_dataset(config.root).manifest_hash
    meaning["features"] = [resolve_features(config.root, name) for name in config.inputs]
    if config.folds is not None:  # cut anew with another seed they keep their name
        meaning["cut"] = sorted(read_folds(config.root, config.folds).items())
    text = json.dumps(meaning, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def check_name(config: TrainConfig) -> None:
    """Refuse the name of a run that has results of another config or manifest, or of other labels.

    Raises:
        ConfigError: naming what is different.
    """
    base, mapping = run_uri(config), settings.to_mapping(config)
    there = owner(base)
    if there in (None, {"identity": identity(config)}):
        if holds_results(base):
            check_run(config.root, str(config.run))
        return
    if not holds_results(base):
        free(base)
        return
    before = storage.read_json(storage.join(base, layout.CONFIG))
    different = [k for k in mapping if k not in ELSEWHERE and mapping[k] != before.get(k)]
    other = "another manifest, features or folds"
    reason = f"other {', '.join(different)}" if different else other
    raise ConfigError(f"run {config.run!r} is there already, with {reason}; type another --run")


def claim(config: TrainConfig, instead_of: Any = None) -> dict[str, str]:
    """Write the identity of the run, which owns its name from then on, and config.json.

    Args:
        config: of the run.
        instead_of: the owner that the name is taken from; None: it is free.

    Returns:
        What `check_owner` compares with. It is kept from here on: on the disk may be another's meanwhile.

    Raises:
        ConfigError: another start has taken the name meanwhile.
    """
    base, own = run_uri(config), {"identity": identity(config)}
    take(base, own, instead_of)
    tasks = pick_tasks(read_dataset(config.root), config.tasks)
    note_tasks(config.root, str(config.run), tasks)
    publish_config(config, base)
    return own


@contextmanager
def claimed(config: TrainConfig) -> Iterator[dict[str, str]]:
    """`claim`, undone where training is refused before it has results: a worker knows more than the start.

    Yields:
        The identity that the name was taken with.
    """
    base = run_uri(config)
    is_free = owner(base) is None  # else another start of the same command may be at work
    own = claim(config)
    try:
        yield own
    except REFUSALS:
        if is_free and owner(base) == own:
            free(base)
        raise


def grown(config: TrainConfig) -> TrainConfig:
    """The config, after its run has been given its further seeds where it was begun with fewer.

    The nets of its folds stay; refits are trained again, since they take their epoch from all seeds. A run
    that has more seeds than asked for keeps them.
    """
    base = run_uri(config)
    there = owner(base)
    if there is None or not storage.exists(storage.join(base, layout.CONFIG)):
        return config
    before = settings.from_mapping(
        TrainConfig, storage.read_json(storage.join(base, layout.CONFIG))
    )
    as_before = dataclasses.replace(config, seeds=before.seeds)
    if before.seeds == config.seeds or there != {"identity": identity(as_before)}:
        return config
    if set(config.seeds) <= set(before.seeds):
        return as_before
    storage.remove(storage.join(base, layout.SUMMARY))
    storage.remove_tree(storage.join(base, layout.REFIT))
    claim(config, there)
    return config


def run_uri(config: TrainConfig) -> str:
    """The folder of the run."""
    return layout.run_uri(config.root, str(config.run))


def parts_of(config: TrainConfig) -> list[Part]:
    """Every net of the run: folds x seeds, then the refits."""
    seeds = seeds_of(config)
    if config.folds is None:
        return [Part(fold=0, seed=seed) for seed in seeds]
    split = read_manifest(config.root, ["clip_id", "split"]).to_pydict()
    fold_of = read_folds(config.root, config.folds)
    usable = {c for c, s in zip(split["clip_id"], split["split"], strict=True) if s != "test"}
    folds = sorted({fold for clip, fold in fold_of.items() if clip in usable})
    if len(folds) < 2:
        raise ConfigError(f"folds {config.folds!r}: expected at least two, came {folds}")
    parts = [Part(fold=fold, seed=seed) for seed in seeds for fold in folds]
    return parts + [Part(fold=None, seed=seed) for seed in seeds if config.refit]


def seeds_of(config: TrainConfig) -> tuple[int, ...]:
    """The seeds that give different nets: of a convex net the first one does, unless they draw its rows."""
    return config.seeds[:1] if is_convex(config.net) and config.share == 1 else config.seeds


def missing(config: TrainConfig, parts: list[Part]) -> list[Part]:
    """Parts that are not published yet."""
    run = str(config.run)
    return [part for part in parts if not storage.exists(part.commit(config.root, run))]


def request_of(config: TrainConfig) -> Request:
    """Request for the data that the run reads."""
    return Request(
        root=config.root,
        inputs=config.inputs,
        tasks=config.tasks,
        # Its rows are mean vectors: scaled as such, and read as such.
        pool="mean" if is_convex(config.net) and config.pool == "none" else config.pool,
        views=config.views,
        normalise=config.normalise,
        axis=net_axis(config.net),
        causal=config.causal,
        folds=config.folds,
        memory_gb=config.memory_gb,
        cache=config.cache,
    )


def choice_of(config: TrainConfig) -> NetChoice:
    """The net of the run and how its rows are cut."""
    # A convex net has no epoch to choose: with folds it is solved on all rows outside of its own.
    all_rows = is_convex(config.net) and config.folds is not None
    return NetChoice(
        net=config.net,
        net_options=config.net_options,
        pca=config.pca,
        scale=config.scale,
        valid_share=0 if all_rows else config.valid_share,
        has_folds=config.folds is not None,
        share=config.share,
        store=config.store or default_store(config.root),
    )

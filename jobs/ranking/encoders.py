"""The work of `benchmark encoders`: fit, judge, show and write."""

import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster import console, settings, storage
from cluster.console import Table
from cluster.errors import ConfigError, NotPreparedError
from fusion.late.members import probabilities
from fusion.metrics import FIGURES, metric
from fusion.number_format import figure_text
from fusion.statistics import Difference, Interval, holm
from fusion.training.convex import folds_of
from fusion.training.recipe import Recipe
from jobs.catalog import layout
from jobs.catalog.features import feature_folders, resolve_features
from jobs.catalog.groups import group_names
from jobs.catalog.manifest import read_dataset
from jobs.catalog.outputs import publish_config
from jobs.catalog.tasks import pick_task
from jobs.evaluation.judging import Judging
from jobs.evaluation.results_table import without_nan
from jobs.ranking.config import EncodersConfig
from jobs.reporting.grid import Grid
from jobs.reporting.plots import intervals
from jobs.training.feeds import ClipFeed, Clips
from jobs.training.loading import Data, Library, Remembered, Request
from jobs.training.parts import Part
from jobs.training.train_part import NetChoice, train_part

FOLDS = 5
LINEAR = NetChoice(
    net="linear", net_options={}, pca={}, scale="standard", valid_share=0.0, has_folds=True
)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One table, or one layer of it."""

    name: str
    folder: str
    layer: int | None
    """Index of the hidden state; None: the whole table."""

    dim: int
    share: float
    """Share of the judged clips that have the input [0..1]."""

    seconds: float | None
    """Of the machine that encoded it, a clip [s]; None where it was imported."""

    scores: Tensor
    """[row outputs] on the judged rows."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A line with its figures; the first of a ranking is the best."""

    line: Contender
    figures: Mapping[str, Interval]
    behind: Difference | None
    """What the best one has over it (negative: it is worse); None for the best one itself."""

    p_holm: float | None


def rank(config: EncodersConfig) -> None:
    """Fit every table, rank by the task's first figure, show and write."""
    name, task = pick_task(read_dataset(config.root), config.task)
    tables = chosen_tables(config)
    request = Request(
        root=config.root, inputs=tuple(tables.values()), tasks=(name,), pool="mean", folds=config.folds,
        memory_gb=config.memory_gb,
    )  # fmt: skip
    library = Library(request)
    clips = library.clips if config.folds else with_folds(library.clips)
    kept = clips.known[name].reshape(len(clips), -1).any(1)
    judging = Judging(
        task=task,
        target=clips.targets[name][kept],
        groups=np.unique(group_names(clips.group, clips.clip_id), return_inverse=True)[1][kept],
        resamples=config.resamples,
        seed=config.seed,
    )
    lines = []
    for table, folder in tables.items():
        data = library.data(dataclasses.replace(request, inputs=(folder,)))
        try:
            for line in lines_of(
                table, folder, dataclasses.replace(data, clips=clips), config, name
            ):
                lines.append(dataclasses.replace(line, scores=line.scores[kept]))
                print(
                    f"{line.name}: {figure_text(_main(judging, lines[-1]))} {judging.main}",
                    flush=True,
                )
        except ConfigError as error:  # nothing in it that a net could be fitted on
            print(f"{table}: left out: {error}", flush=True)
    if not lines:
        raise ConfigError(
            f"no table under {config.root} can be ranked by {name!r}; the lines above say why"
        )
    ranked = in_order(lines, judging)
    folds = config.folds or f"{len(np.unique(clips.fold))} folds of groups"
    grid = grid_of(ranked, judging, f"{name}: {int(kept.sum())} clips, {folds}")
    publish(config, ranked, grid, judging)
    show(ranked, grid, judging)
    print(f"wrote {layout.comparison_uri(config.root, config.name)}")


def chosen_tables(config: EncodersConfig) -> dict[str, str]:
    """Shown name -> folder of each table: those named, or all but augmented views and inputs of models.

    Raises:
        NotPreparedError: there are none.
    """
    if config.encoders:
        return {name: resolve_features(config.root, name) for name in config.encoders}
    found = {f: facts for f, facts in feature_folders(config.root).items() if _is_features(facts)}
    if not found:
        raise NotPreparedError(
            f"no features under {config.root}; type: "
            f"affuse encode --root {shlex.quote(config.root)} --encoders NAME"
        )
    times = Counter(str(facts["name"]) for facts in found.values())
    return {
        str(facts["name"]) if times[str(facts["name"])] == 1 else folder: folder
        for folder, facts in sorted(found.items())
    }


def _is_features(facts: Mapping[str, Any]) -> bool:
    """Whether a table holds what a model says of the clips themselves, and is no older version."""
    return not {"view", "superseded"} & facts.keys() and "publish" not in facts.get("options", {})


def with_folds(clips: Clips) -> Clips:
    """The same clips in folds of whole groups.

    Raises:
        ConfigError: there is one group.
    """
    codes = np.unique(group_names(clips.group, clips.clip_id), return_inverse=True)[1]
    if codes.max(initial=0) < 1:
        raise ConfigError("one group cannot be held out: prepare with groups, or give --folds NAME")
    return dataclasses.replace(clips, fold=folds_of(torch.from_numpy(codes), FOLDS).numpy())


def lines_of(
    table: str, folder: str, data: Data, config: EncodersConfig, task: str
) -> Iterator[Contender]:
    """The whole table, and its layers where it holds several."""
    (store,) = data.feed.stores.values()
    facts = feature_folders(config.root)[folder]
    seconds = seconds_a_clip(config.root).get(folder)
    share = float((store.offsets.diff() > 0).double().mean())
    for layer, columns in layers_of(facts, store.dim, every=config.layers):
        part = data if layer is None else with_columns(data, columns)
        yield Contender(
            name=table if layer is None else f"{table}, layer {layer}",
            folder=folder,
            layer=layer,
            dim=len(columns),
            share=share,
            seconds=seconds,
            scores=held_out(part, task),
        )


def layers_of(
    facts: Mapping[str, Any], dim: int, *, every: bool
) -> Iterator[tuple[int | None, Tensor]]:
    """The columns of the whole table, and of each layer; means and deviations of a layer stay together.

    >>> facts = {"layers": [0, 3], "layer_dim": 1}
    >>> [(layer, columns.tolist()) for layer, columns in layers_of(facts, 4, every=True)]
    [(None, [0, 1, 2, 3]), (0, [0, 2]), (3, [1, 3])]
    """
    yield None, torch.arange(dim)
    layers, width = facts.get("layers", []), int(facts.get("layer_dim", dim))
    if not every or len(layers) < 2 or dim % (len(layers) * width):
        return
    grid = torch.arange(dim).reshape(-1, len(layers), width)
    for place, layer in enumerate(layers):
        yield int(layer), grid[:, place].reshape(-1)


def with_columns(data: Data, columns: Tensor) -> Data:
    """The same data with some columns of its one input."""
    ((name, store),) = data.feed.stores.items()
    part = dataclasses.replace(store, values=store.values[:, columns].contiguous(), steps=None)
    feed = ClipFeed({name: part}, data.feed.clips)
    return dataclasses.replace(data, feed=feed, scalers=Remembered())


def held_out(data: Data, task: str) -> Tensor:
    """Scores [row outputs] of every clip by a linear net that was not fitted on its fold."""
    scores: Tensor | None = None
    for fold in sorted(set(data.clips.fold.tolist())):
        trained = train_part(LINEAR, data, Part(seed=0, fold=fold), Recipe(), roles=("oof",))
        got = trained.roles["oof"]
        logits = got.logits[task].double()
        if scores is None:
            scores = torch.full((len(data.clips), logits.shape[1]), torch.nan, dtype=torch.float64)
        at = np.searchsorted(data.clips.clip_id, got.clip_id.numpy())
        scores[torch.from_numpy(at)] = logits
    assert scores is not None
    return torch.log_softmax(scores, 1) if data.tasks[task].kind == "classification" else scores


def seconds_a_clip(root: str) -> dict[str, float]:
    """Folder -> time of its encoder a clip, over all commands that recorded it [s]."""
    seconds: dict[str, float] = {}
    clips: dict[str, int] = {}
    for name in storage.names(layout.encodings_uri(root)):
        uri = layout.encodings_uri(root, name, layout.SUMMARY)
        for done in storage.read_json(uri)["passes"] if storage.exists(uri) else []:
            for key, value in done.items():
                if key.startswith("seconds/") and done["clips"]:
                    folder = key.removeprefix("seconds/")
                    seconds[folder] = seconds.get(folder, 0.0) + value
                    clips[folder] = clips.get(folder, 0) + done["clips"]
    return {folder: total / clips[folder] for folder, total in seconds.items()}


def in_order(lines: Sequence[Contender], judging: Judging) -> list[Placed]:
    """Best first by the main figure, each with how far it is behind the best."""
    order = sorted(lines, key=lambda line: metric(judging.main).loss(_main(judging, line)))
    best, *others = order
    behind = {line.name: judging.gain(line.scores, best.scores) for line in others}
    corrected = holm({name: gain.p_value for name, gain in behind.items()})
    return [
        Placed(
            line=line,
            figures=judging.figures(line.scores),
            behind=behind.get(line.name),
            p_holm=corrected.get(line.name),
        )
        for line in order
    ]


def grid_of(ranked: Sequence[Placed], judging: Judging, what: str) -> Grid:
    """The table that is written."""
    names = FIGURES[judging.task.kind][:3]
    rows = []
    for each in ranked:
        line, behind = each.line, each.behind
        rows.append(
            [
                line.name,
                str(line.dim),
                f"{line.share:.0%}",
                *(str(each.figures[name]) for name in names),
                "" if behind is None else str(behind),
                "" if each.p_holm is None else f"{each.p_holm:.4f}",
                "-" if line.seconds is None else f"{line.seconds:.3f}",
            ]
        )  # fmt: skip
    return Grid(
        name="table",
        caption=(
            f"{what}; a linear net on mean vectors, no clip judged by a net that saw its group's fold; 95 % "
            f"intervals over {len(np.unique(judging.groups))} groups; behind: {judging.main} against the "
            "best line (negative is worse), p by sign-flips over groups, Holm-corrected. The best one was "
            "chosen on these rows: its own figure is somewhat too good"
        ),
        header=["features", "dim", "clips", *names, "behind", "p (Holm)", "s a clip"],
        rows=rows,
        strong=frozenset([0]),
    )


def publish(config: EncodersConfig, ranked: Sequence[Placed], grid: Grid, judging: Judging) -> None:
    """The table twice, the picture, and all numbers last."""
    base = layout.comparison_uri(config.root, config.name)
    publish_config(config, base)
    storage.publish_bytes(grid.csv().encode(), storage.join(base, "table.csv"))
    shown = [(each.line.name, each.figures[judging.main]) for each in ranked]
    picture = intervals(
        [(name, "member", it.value, it.low, it.high) for name, it in shown], judging.main
    )
    storage.publish_bytes(picture, storage.join(base, "ranking.png"))
    facts = {
        "config": settings.resolved(config),
        "num_clips": len(judging.groups),
        "num_groups": len(np.unique(judging.groups)),
        "rows": [_facts(each) for each in ranked],
    }
    storage.publish_json(facts, storage.join(base, layout.RESULTS))


def show(ranked: Sequence[Placed], grid: Grid, judging: Judging) -> None:
    """Print what fits a terminal: the main figure, how far behind, and the cost."""
    table = Table("features", judging.main, "behind", "p", "s a clip")
    for each, row in zip(ranked, grid.rows, strict=True):
        behind = "" if each.behind is None else str(each.behind)
        table.add_row(row[0], str(each.figures[judging.main]), behind, *row[-2:])
    console.show(table)
    console.show(grid.caption)


def _facts(each: Placed) -> dict[str, Any]:
    line = {f.name: getattr(each.line, f.name) for f in dataclasses.fields(each.line)}
    del line["scores"]
    facts = {
        "figures": {name: asdict(figure) for name, figure in each.figures.items()},
        "behind": None if each.behind is None else asdict(each.behind),
        "p_holm": each.p_holm,
    }
    return {**line, **without_nan(facts)}


def _main(judging: Judging, line: Contender) -> float:
    prediction = probabilities(judging.task.kind, line.scores)
    return metric(judging.main)(prediction, judging.target)

"""From a preset to judged figures: every step is an ordinary job, and what is there is not made again."""

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster import settings, storage
from cluster.stamps import CHANGE_MARKS, source_facts
from fusion.late.members import probabilities
from fusion.statistics import Groups, Interval, bootstrap
from fusion.tasks import Task
from jobs import ensemble, evaluate, train
from jobs.catalog import layout
from jobs.catalog.groups import groups_of
from jobs.catalog.judged_files import judged_file
from jobs.catalog.manifest import read_dataset
from jobs.catalog.predictions import align, held_out_rows, seeds_averaged
from jobs.catalog.tasks import pick_task
from jobs.demonstration.stages import Stages
from jobs.reproducing.captioned import caption_dialogue
from jobs.reproducing.preset import (
    Fused,
    Model,
    Preset,
    Protocol,
    ReproduceConfig,
    Step,
    TrainedNet,
)
from jobs.training.run import identity


@dataclass(frozen=True, kw_only=True)
class CellFigures:
    """The figures of one model by one protocol."""

    made_of: tuple[str, ...]
    """Runs, or the bundle."""

    rows: str
    """What it is judged on: test, oof or valid."""

    num_rows: int
    num_groups: int
    seeds: tuple[int, ...]
    figures: Mapping[str, Interval]


def prepare(config: ReproduceConfig, preset: Preset) -> None:
    """Do the steps before training that were not done with the same configs and data."""
    do_steps(config, preset.steps(config), {"1 prepare": layout.dataset_uri(config.root)})


def caption(config: ReproduceConfig, preset: Preset, first: Mapping[Protocol, CellFigures]) -> None:
    """Caption films by the nets of the first line of the table, by the last protocol that was asked for."""
    judged = next((first[p] for p in reversed(config.protocols) if p in first), None)
    if not preset.captions or judged is None:
        return
    page = caption_dialogue(
        config,
        preset.task,
        judged.made_of,
        lambda steps: do_steps(config, steps, outputs_of(steps), part="captions"),
    )
    if page is not None:
        print(f"wrote {page}, and beside it the captioned films with their subtitles")


def outputs_of(steps: Sequence[Step]) -> dict[str, str]:
    """Stage -> the film that it writes, so that one which was taken away is made again."""
    named = (
        (f"{k} {step.command}", getattr(step.config, "out", None))
        for k, step in enumerate(steps, 1)
    )
    return {stage: out for stage, out in named if out is not None}


def do_steps(
    config: ReproduceConfig, steps: Sequence[Step], outputs: Mapping[str, str], part: str = "stages"
) -> None:
    """Run jobs, those that were not run with the same configs and data."""
    stages = Stages(config.root, outputs, record=f"reproduce/{config.preset}.{part}.json")
    stamp = _stamp(config.data, config.root)
    for number, step in enumerate(steps, 1):
        job, *_ = step.command.split()
        facts = {**settings.resolved(step.config), "data": stamp}
        module = importlib.import_module(f"jobs.{job}")
        stages.run(f"{number} {job}", (_as_typed(step), partial(module.main, step.config), facts))


def _as_typed(step: Step) -> str:
    facts = settings.to_mapping(step.config)
    shown = (
        "root", "source", "labels", "file", "array", "name", "encoders", "inputs", "net", "runs",
        "split", "on", "predictions", "bundle", "scores", "out",
    )  # fmt: skip
    flags = [
        f"--{key} {' '.join(value) if isinstance(value, list) else value}"
        for key in shown
        if (value := facts.get(key))
    ]
    return " ".join([step.command, *([facts["clip"]] if "clip" in facts else []), *flags])


def _stamp(data: str, root: str) -> str:
    """Hash of the names, sizes and times of a file, or of all files below a folder but those of the root."""
    fs, path = storage.filesystem(storage.absolute(data))
    _, own = storage.filesystem(storage.absolute(root))
    files = {
        name: info
        for name, info in fs.find(path, detail=True).items()
        if not name.startswith(own.rstrip("/") + "/")
    }
    marks = [
        (name, info.get("size"), *(str(info[mark]) for mark in CHANGE_MARKS if mark in info))
        for name, info in sorted(files.items())
    ]
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:16]


class Workshop:
    """Makes the runs and bundles of a preset's models, each once, and judges them.

    Args:
        config: what was asked for.
        preset: the table.
        models: all models of the preset, by name.
    """

    def __init__(
        self, config: ReproduceConfig, preset: Preset, models: Mapping[str, Model]
    ) -> None:
        self._config = config
        self._preset = preset
        self._models = models
        self._root = storage.absolute(config.root)
        self.task: tuple[str, Task] = pick_task(read_dataset(self._root), preset.task)

    def judged(self, model: Model, protocol: Protocol) -> CellFigures | None:
        """Make what a cell needs, and judge it; None where the protocol has nothing for the model."""
        way = model.way(protocol)
        if way is None:
            return None
        if isinstance(way, Fused):
            bundle = self._fused(model, way, protocol)
            return self._figures([bundle], self._said_by_bundle(bundle, way), seeds=())
        runs = self._trained(model, way)
        tables = [self._said_by_run(run) for run in runs]
        return self._figures(runs, tables, seeds=way.config.seeds)

    def _trained(self, model: Model, way: TrainedNet) -> list[str]:
        """Names of the runs of a model, trained where they are missing."""
        jobs = [way.config]
        if way.seeds_apart:
            jobs = [replace(way.config, seeds=(seed,)) for seed in way.config.seeds]
        runs = []
        for job in jobs:
            job = replace(job, root=self._root, tasks=(self._preset.task,))
            run = f"{_plain(model.name)}-{identity(job)}"
            train.main(replace(job, run=run))
            runs.append(run)
        return runs

    def _fused(self, model: Model, way: Fused, protocol: Protocol) -> str:
        """Name of the bundle of a fusion, made where it is missing."""
        runs: list[str] = []
        for name in way.models:
            member = self._models[name]
            made = member.way(protocol)
            assert isinstance(made, TrainedNet), f"{name} is no net of protocol {protocol}"
            runs += self._trained(member, made)
        made_of = {
            "runs": runs,
            "imported": [(file, source_facts(file)) for file in way.imported],
            "rule": way.rule,
            "options": dict(way.rule_options),
        }
        text = json.dumps(made_of, sort_keys=True, default=str)
        bundle = f"{_plain(model.name)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        if not storage.exists(layout.bundle_uri(self._root, bundle, layout.BUNDLE)):
            ensemble.main(
                ensemble.Config(
                    root=self._root,
                    runs=tuple(runs),
                    imported=way.imported,
                    bundle=bundle,
                    task=self._preset.task,
                    rule=way.rule,
                    rule_options=dict(way.rule_options),
                    calibration="none" if way.rule == "vote" else None,
                    resamples=self._config.resamples,
                    tracking=self._config.tracking,
                    session=self._config.session,
                )
            )
        return bundle

    def _said_by_run(self, run: str) -> pa.Table:
        """Predictions of a run on the test split, or on its held-out rows where there is none."""
        if not evaluate.has_test_rows(self._root):
            return held_out_rows(self._root, run, self._preset.task)
        self._evaluate(run, evaluate.Config(root=self._root, runs=(run,), task=self._preset.task))
        return storage.read_table(layout.evaluation_uri(self._root, run, layout.PREDICTIONS))

    def _said_by_bundle(self, bundle: str, way: Fused) -> list[pa.Table]:
        """Predictions of what a bundle ships: of the test split, or cross-fitted."""
        if way.imported or not evaluate.has_test_rows(self._root):
            uri = judged_file(layout.bundle_uri(self._root, bundle), layout.PREDICTIONS)
        else:
            self._evaluate(bundle, evaluate.Config(root=self._root, bundle=bundle))
            uri = layout.evaluation_uri(self._root, bundle, layout.PREDICTIONS)
        return [storage.read_table(uri)]

    def _evaluate(self, name: str, job: evaluate.Config) -> None:
        """Look at the test split, once for each run: its name says all that it is made of."""
        if not storage.exists(layout.evaluation_uri(self._root, name, layout.RESULTS)):
            evaluate.main(replace(job, resamples=self._config.resamples))

    def _figures(
        self, made_of: Sequence[str], tables: Sequence[pa.Table], *, seeds: tuple[int, ...]
    ) -> CellFigures:
        """Figures over the rows that every table answers; several tables: the mean of their figures."""
        name, task = self.task
        rows = {
            str(index): seeds_averaged(table.filter(pc.equal(table["task"], name)), task)
            for index, table in enumerate(tables)
        }
        held = align(rows, task)
        held = held.rows(held.members.present.all(0).numpy())
        people = Groups.of(groups_of(self._root, held.clip_id))
        said = [probabilities(task.kind, scores) for scores in held.members.scores]
        figures = {
            metric: bootstrap(metric, said, held.target, people, resamples=self._config.resamples)
            for metric in self._preset.metrics
        }
        return CellFigures(
            made_of=tuple(made_of),
            rows=str(tables[0]["role"][0]),
            num_rows=len(held.clip_id),
            num_groups=people.count,
            seeds=seeds,
            figures=figures,
        )


def _plain(name: str) -> str:
    """A model's name as the beginning of a run's."""
    return "-".join(name.lower().replace("+", " ").split())


def facts_of(judged: CellFigures) -> dict[str, Any]:
    """As JSON."""
    return {
        "made_of": list(judged.made_of),
        "judged_on": judged.rows,
        "rows": judged.num_rows,
        "groups": judged.num_groups,
        "seeds": list(judged.seeds),
        "figures": {
            name: {"value": each.value, "low": each.low, "high": each.high}
            for name, each in judged.figures.items()
        },
    }

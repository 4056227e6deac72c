"""Evaluate a run or a bundle on the test split, which had no part in any choice.

No other job loads test rows. Each look is recorded, because figures that are looked at often are no longer
figures of unseen data. For a dataset without a test split the cross-fitted figures of `affuse ensemble` are
shown again.

With --on the model is judged on another dataset: the same features under another root, labels joined by
name; beside its figure there stands what it loses against its own dataset.

Reads:  <root>/bundles/<bundle>/ or <root>/runs/<run>/, <root>/features/, the test rows of the manifest
Writes: <root>/evaluations/<name>/  predictions.parquet, results.json;  <root>/looks/

Laptop:   affuse evaluate --root data/mosei --bundle ensemble
Another:  affuse evaluate --root data/ravdess --bundle ensemble --on data/meld --labels joy=happy sadness=sad
Cluster:  affuse submit --address URL -- evaluate --root s3://bucket/mosei --bundle ensemble
"""

import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from cluster import settings, storage
from cluster.errors import ConfigError, NotPreparedError
from cluster.settings import Place
from fusion.tasks import Task
from jobs.catalog import bundles, layout
from jobs.catalog.groups import groups_of
from jobs.catalog.judged_files import judged_file
from jobs.catalog.label_names import check_bundle, check_run
from jobs.catalog.manifest import read_manifest
from jobs.catalog.names import check_bundle_names, check_names, check_once, joined_name
from jobs.catalog.outputs import check_outputs, publish_config, publish_outputs, record_of
from jobs.catalog.predictions import HeldOut
from jobs.evaluation import results_table
from jobs.evaluation.judging import Judging, check_resamples
from jobs.evaluation.leaks import leak_reports, warn_of_leaks
from jobs.evaluation.metadata_baseline import metadata_of_test
from jobs.evaluation.raters import raters_on
from jobs.evaluation.sibling_runs import chosen_task
from jobs.evaluation.speaker_normalised import say_normalised
from jobs.scoring.cross_corpus import judge_elsewhere, with_losses
from jobs.scoring.elsewhere import member_table, name_elsewhere, open_elsewhere, said_elsewhere
from jobs.scoring.member_nets import Fusion, MemberNets, load_bundled, load_member
from jobs.scoring.opening import name_under
from jobs.scoring.own_test_split import linear_on_test, prior_of, test_predictions, test_rows


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which bundle or runs are evaluated."""

    root: Place
    """Folder or URI of the dataset."""

    bundle: str | None = None
    """Bundle to evaluate, or models:/NAME@ALIAS; each of its members stands beside it."""

    runs: tuple[str, ...] = ()
    """Runs to evaluate instead, each by itself."""

    task: str | None = None
    """Task of the runs; may be left out where they have one in common. A bundle has its own."""

    on: Place = ""
    """Folder or URI of another dataset to evaluate on in place of the test split: its test rows, or all rows
    where it has no test split."""

    on_task: str | None = None
    """Task of the other dataset; by default the one of the same name, or its only one."""

    labels: dict[str, str] = field(default_factory=dict)
    """Classes of the other dataset that have another name here, THEIRS=OURS, e.g. happiness=happy."""

    predictions: Place = ""
    """File (.parquet) that receives the predictions of the other dataset, as `affuse ensemble --imported`
    takes them there; never of its test split."""

    overwrite: bool = False
    """Replace a file named by --predictions that no earlier run made."""

    store: Place = ""
    """Folder or URI of pretrained weights, for nets that train encoders; by default as `train` found them."""

    resamples: int = 2000
    """Number of bootstrap resamples of the groups."""

    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        check_names(runs=self.runs)
        check_bundle_names(bundle=self.bundle)
        check_once(runs=self.runs)
        check_resamples(self.resamples)
        if (self.bundle is None) == (len(self.runs) == 0):
            raise ConfigError("name either --bundle or --runs")
        if not self.on and (self.labels or self.on_task or self.predictions):
            raise ConfigError("--labels, --on-task and --predictions are for another dataset: --on")
        if self.overwrite and not self.predictions:
            raise ConfigError("--overwrite belongs to --predictions; type both")
        if self.predictions and not self.predictions.endswith(".parquet"):
            raise ConfigError(f"--predictions {self.predictions}: expected a name in .parquet")

    @property
    def name(self) -> str:
        """Name of the evaluation."""
        model = self.bundle or joined_name(self.runs, "+")
        return name_elsewhere(model, self.on) if self.on else model


def main(config: Config) -> None:
    """Predict the test rows, compute the figures, record the look."""
    if config.bundle is not None:
        config = replace(config, bundle=name_under(config.root, config.bundle))
    if config.on:
        evaluate_elsewhere(config)
        return
    if not has_test_rows(config.root):
        show_cross_fitted(config)
        return
    members = members_of(config)
    name, task = task_of(config)
    held = test_rows(config.root, members, name, task)
    scores = fused(config, held)
    groups = groups_of(config.root, held.clip_id)
    guess = prior_of(config.root, name, task)
    known = metadata_of_test(config.root, held.clip_id, name, task)
    judging = Judging(
        task=task, target=held.target, groups=groups, resamples=config.resamples, seed=config.seed
    )
    linear = linear_on_test(config.root, [member.name for member in members], held, name, task)
    others = results_table.other_baselines(
        None if known is None else known.scores, linear.scores, linear.title
    )
    results = results_table.judge_test(held, guess, scores, judging, others=others)
    people = raters_on(config.root, held, scores, name, task)
    record_look(config, results)
    base = layout.evaluation_uri(config.root, config.name)
    publish_config(config, base)
    storage.publish_table(
        test_predictions(config.name, name, held, scores), storage.join(base, layout.PREDICTIONS)
    )
    inputs = [str(s["features"]) for member in members for s in member.card.inputs.values()]
    leaks = leak_reports(config.root, inputs, name, task, against="test")
    warn_of_leaks(config.root, inputs, (name,))
    storage.publish_json(
        {
            "config": settings.resolved(config),
            **results.facts(),
            **({} if people is None else {"raters": people.facts()}),
            "leaks": {folder: asdict(report) for folder, report in leaks.items()},
        },
        storage.join(base, layout.RESULTS),
    )
    results_table.show(results, task)
    linear.show()
    if people is not None:
        people.show()
    say_normalised(config.root, [member.name for member in members])
    for folder, report in leaks.items():
        if report.leaks:
            print(f"{folder}, train against test: {report.message}")
    print(f"this is look {looks(config.root)} at the test split; wrote {base}")


def evaluate_elsewhere(config: Config) -> None:
    """Predict the clips of another dataset, compute the figures and what is lost, record the look there."""
    out = storage.absolute(config.predictions) if config.predictions else None
    if out is not None:
        check_outputs([out], record_of(out), overwrite=config.overwrite)
    members = members_of(config)
    name, task = task_of(config)
    other = open_elsewhere(config.on, task, name, config.on_task, config.labels)
    if out is not None and other.is_test:
        raise ConfigError(
            f"--predictions: {config.on} has a test split, which nothing is fitted on"
        )
    held, left_out = said_elsewhere(members, other, name, task)
    scores = fused(config, held)
    judging = Judging(
        task=task,
        target=held.target,
        groups=groups_of(other.root, held.clip_id),
        resamples=config.resamples,
        seed=config.seed,
    )
    guess = prior_of(config.root, name, task)
    judged = judge_elsewhere(held, left_out, scores, guess, other, judging)
    judged = with_losses(
        judged, config.root, config.bundle, name, task,
        resamples=config.resamples, seed=config.seed,
    )  # fmt: skip
    record_look(config, judged.results, other.root)
    base = layout.evaluation_uri(config.root, config.name)
    publish_config(config, base)
    said = test_predictions(config.name, name, judged.held, judged.scores)
    storage.publish_table(said, storage.join(base, layout.PREDICTIONS))
    if out is not None:
        whole = held.members.scores[0] if scores is None else scores
        content = storage.table_bytes(member_table(other, task, held.clip_id, whole))
        publish_outputs(config, {out: content}, record_of(out))
    facts = {
        "config": settings.resolved(config), **judged.results.facts(), "on": judged.facts(),
    }  # fmt: skip
    storage.publish_json(facts, storage.join(base, layout.RESULTS))
    results_table.show(judged.results, judged.task)
    print("\n".join(judged.notes()))
    of = "test split" if other.is_test else "clips"
    print(f"this is look {looks(other.root)} at the {of} of {other.root}; wrote {base}")


def has_test_rows(root: str) -> bool:
    """Whether the manifest has a test split."""
    return "test" in set(read_manifest(root, ["split"])["split"].to_pylist())


def show_cross_fitted(config: Config) -> None:
    """Print that there is no test split, and show the cross-fitted figures instead."""
    print("the dataset has no test split; the honest figure is the cross-fitted one:")
    if config.bundle is None:
        raise NotPreparedError("see summary.json of each run, or type: affuse ensemble --runs ...")
    _, task = task_of(config)
    folder = layout.bundle_uri(config.root, config.bundle)
    facts = storage.read_json(judged_file(folder, layout.RESULTS))
    results_table.show(results_table.from_facts(facts), task)


def members_of(config: Config) -> list[MemberNets]:
    """The members of the bundle, or the runs.

    Raises:
        ConfigError: what the bundle ships reads imported predictions.
    """
    if config.bundle is None:
        return [
            load_member(run, bundles.nets_of_run(config.root, run), config.store)
            for run in config.runs
        ]
    facts = bundles.read_bundle(config.root, config.bundle)
    bundles.check_speaks_of_others(facts)
    uri = layout.bundle_uri(config.root, config.bundle)
    return [load_bundled(uri, member, config.store) for member in facts["members"]]


def task_of(config: Config) -> tuple[str, Task]:
    """The task of the bundle, or of the runs.

    Raises:
        ConfigError: the bundle or a run was made for another task, or the dataset has other labels by now.
    """
    bundle = () if config.bundle is None else (config.bundle,)
    for name in bundle:
        check_bundle(config.root, bundles.read_bundle(config.root, name))
    for run in config.runs:
        check_run(config.root, run)
    return chosen_task(config.root, config.task, config.runs, bundle)


def fused(config: Config, held: HeldOut) -> Tensor | None:
    """Fused predictions of the bundle for the test rows; None for single runs."""
    if config.bundle is None:
        return None
    fusion = Fusion.from_facts(bundles.read_bundle(config.root, config.bundle))
    return fusion.combine(held.members)


def record_look(config: Config, results: results_table.Results, root: str = "") -> None:
    """Write one file for each look: the command and its figures."""
    last = results.rows[-1]
    seen: dict[str, Any] = {name: figure.value for name, figure in last.figures.items()}
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    storage.publish_json(
        {"at": stamp, "config": settings.to_mapping(config), "of": last.name, "figures": seen},
        layout.looks_uri(root or config.root, f"{stamp}-{uuid.uuid4().hex[:8]}.json"),
    )


def looks(root: str) -> int:
    """How often the test split of a dataset has been opened."""
    return len(storage.names(layout.looks_uri(root), ".json"))

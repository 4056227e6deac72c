"""Fuse the predictions of several runs into one calibrated prediction, and ship it as a bundle.

Reads:  <root>/runs/<run>/   (cluster.tables.PREDICTIONS: only rows that no member trained on), files of
        predictions made elsewhere
Writes: <root>/bundles/<bundle>/  bundle.json, the nets, results.json, covered.parquet, MODEL_CARD.md, and
        cross-fitted predictions.parquet (what ships) and fused.parquet (the fusion); a version in MLflow

What ships is the fusion, or the simplest answer (a mean, one member) where the fusion is worse than it in NLL
by an error over groups; a rule named by --rule ships as it is. Untrained members, a large model's answers
(`affuse ask`) and what encoders say themselves (--side) are fused only where they show a gain.

Laptop:   affuse ensemble --root data/ravdess --runs voice face both
Untrained: affuse ensemble --root data/ravdess --runs voice --side face_expression
Search:   affuse ensemble --root data/ravdess --runs voice face both --rule auto --trials 200
Cluster:  affuse submit --address URL -- ensemble --root s3://bucket/ravdess --runs voice face both
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cluster import settings, storage
from cluster.errors import ConfigError
from cluster.session import SessionConfig
from cluster.settings import Place
from fusion.late import LATE
from fusion.late.calibration import Method
from fusion.number_format import figure_text
from fusion.tasks import Task
from jobs.catalog import bundles, layout
from jobs.catalog.groups import groups_of
from jobs.catalog.manifest import Dataset, read_dataset
from jobs.catalog.names import check_names
from jobs.catalog.outputs import check_place
from jobs.catalog.predictions import HeldOut, held_out
from jobs.evaluation import cross_fitting, decisions, promises, results_table
from jobs.evaluation.asked_members import say_mute, with_those_that_gain
from jobs.evaluation.bundle_scores import judged_contents
from jobs.evaluation.cross_fitting import Candidate, Judgements
from jobs.evaluation.decisions import Decided
from jobs.evaluation.expectations import expectation
from jobs.evaluation.former_labels import warn_of_former_labels
from jobs.evaluation.judging import Judging, check_resamples, folds_by_group
from jobs.evaluation.linear_baseline import linear_on
from jobs.evaluation.metadata_baseline import metadata_out_of_fold
from jobs.evaluation.shipping import Shipping, gated
from jobs.evaluation.sibling_runs import chosen_task, run_configs
from jobs.evaluation.speaker_normalised import say_normalised
from jobs.evaluation.suited import check_fusion
from jobs.interop.import_predictions import add_members, warn_of_perfect
from jobs.registry.registering import record_bundle
from jobs.scoring.side_runs import side_runs
from jobs.scoring.training_range import training_ranges


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which members are fused, and how."""

    root: Place
    """Folder or URI of the dataset."""

    runs: tuple[str, ...] = ()
    """Runs of `affuse train` or `affuse tune` that become members."""

    bundle: str = "ensemble"
    """Name of the bundle."""

    task: str | None = None
    """Task to fuse; may be left out where the runs have one in common."""

    rule: str | None = None
    """Late-fusion rule, which then ships whatever it gains; by default mixture. Or `auto`: a dozen rules and
    the pool without each member, cross-fitted."""

    trials: int = 0
    """Number of further candidates that Ray Tune draws (with --rule auto): rules x options x calibrations x
    subsets of the members."""

    rule_options: dict[str, int | float | str | bool] = field(default_factory=dict)
    """Options of the rule, e.g. shrinkage=2."""

    calibration: Method | None = None
    """Calibration of the fused scores: none, temperature, bias or vector; by default what the rule needs."""

    member_calibration: Method = "none"
    """Calibration of each member before it is fused; mixture, log_pool and stacking need none."""

    decide: str | None = None
    """Metric that class offsets or thresholds optimise, e.g. macro_f1; probabilities stay as they are. By
    default the label is the most probable class, and a threshold is 0.5."""

    side: tuple[str, ...] = ()
    """Feature tables with class probabilities of the encoder's own, as untrained members: face_expression."""

    imported: tuple[Place, ...] = ()
    """Files of predictions made elsewhere (Parquet, CSV or npz), as further members."""

    num_folds: int = 5
    """Number of parts for cross-fitting [>= 2], by group, where there is a fixed validation split and no
    folds."""

    resamples: int = 2000
    """Number of bootstrap resamples of the groups."""

    seed: int = 0
    """Seed of the bootstrap, of the parts for cross-fitting and of the drawn candidates."""

    tracking: bool = True
    """Register the bundle as a model in MLflow."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """Ray session, where there are trials."""

    def __post_init__(self) -> None:
        check_names(bundle=self.bundle, runs=self.runs)
        check_resamples(self.resamples)
        if self.num_folds < 2:
            raise ConfigError(f"--num-folds {self.num_folds}: expected 2 or more")
        if self.trials < 0 or (self.trials and self.rule != "auto"):
            raise ConfigError(
                f"--trials {self.trials} --rule {self.rule}: trials are 0 or more, and search only "
                "with --rule auto"
            )
        if self.rule is not None and self.rule not in ("auto", *LATE):
            raise ConfigError(f"--rule {self.rule}: {settings.nearest(self.rule, ['auto', *LATE])}")
        if not (self.runs or self.side or self.imported):
            raise ConfigError("no members: name runs by --runs or files by --imported")


def main(config: Config) -> None:
    """Judge the fusion by cross-fitting, then fit it on all held-out rows and ship it."""
    dataset = read_dataset(config.root)
    check_place([layout.bundle_uri(config.root, config.bundle, layout.BUNDLE)])
    name, task = chosen_task(config.root, config.task, config.runs)
    check_suited(config, name, task)
    bundles.check_asked(config.root, config.runs)
    said = side_runs(config.root, config.side, config.runs, name, task)
    config = replace(config, runs=tuple(dict.fromkeys((*config.runs, *said))), side=())
    held = earning(config, members_of(config, name, task), task)
    warn_of_former_labels(config.root, name, task, held.clip_id, held.target)
    groups = groups_of(config.root, held.clip_id)
    held = replace(held, group=groups)
    folds = folds_of(held, groups, config)
    candidates = candidates_of(config, held)
    judged = search(config, held, folds)
    candidates += judged.candidates
    fused = cross_fitting.cross_fitted(held, candidates, folds, judged.judgements)
    judging = Judging(
        task=task, target=held.target, groups=groups, resamples=config.resamples, seed=config.seed
    )
    shipping = gated(
        held, candidates, fused, folds, judging, named=config.rule not in (None, "auto")
    )
    known = metadata_out_of_fold(config.root, held, folds, name, task)
    linear = linear_on(config.root, run_configs(config.root), config.runs, held, name, task)
    others = results_table.other_baselines(
        None if known is None else known.scores, linear.scores, linear.title
    )
    results = results_table.judge(held, fused, shipping, folds, judging, others=others)
    chosen = cross_fitting.choose(held, shipping.candidates, folds, judged.judgements)
    shipped = cross_fitting.fit(held, chosen)
    decided = decide(config, held, shipping.verdict, folds)
    promised = promises.promised(held, shipping.verdict, folds, judging, shipped.rule.names)
    results_table.show(results, task)
    foreseen = expectation(held, shipping.verdict, folds, groups, shipped.rule.names, decided)
    used = [run for run in nets_among(config) if run in shipped.rule.names]
    trust: dict[str, Any] = {
        "conformal": promised.conformal.state(),
        "expectation": None if foreseen is None else foreseen.state(),
        "ranges": training_ranges(config.root, used, held.clip_id),
    }
    facts = facts_of(config, dataset, name, shipping, shipped, decided) | trust
    verdicts = {layout.FUSED: fused, layout.PREDICTIONS: shipping.verdict}
    files = judged_contents(config.bundle, name, held, verdicts, results, promised)
    publish_bundle(config, facts, used, files)
    print(promised.said)
    linear.show()
    say_normalised(config.root, config.runs)
    if decided is not None:
        print(
            f"labels decided for {config.decide}: {decided.cross_fitted:.3f} cross-fitted, "
            f"{decided.plain:.3f} without"
            + ("" if decided.decision.metric else ": no gain, labels stay as they are")
        )
    print(f"wrote {layout.bundle_uri(config.root, config.bundle)}: {shipped.candidate.title}")
    say_mute(bundles.read_bundle(config.root, config.bundle))
    record_bundle(storage.absolute(config.root), config.bundle, tracking=config.tracking)


def check_suited(config: Config, name: str, task: Task) -> None:
    """Refuse what has no meaning for the kind of the task, before a prediction is read."""
    calibrations = {
        "--calibration": config.calibration,
        "--member-calibration": config.member_calibration,
    }
    check_fusion(
        name,
        task,
        rule=config.rule or cross_fitting.DEFAULT.rule,
        options=config.rule_options,
        calibrations=calibrations,
        decide=config.decide,
    )


def members_of(config: Config, name: str, task: Task) -> HeldOut:
    """Runs and imported files on the held-out rows of both."""
    held = held_out(config.root, config.runs, name, task) if config.runs else None
    held = add_members(config.root, held, config.imported, name, task)
    warn_of_perfect(held, config.imported)
    return held


def earning(config: Config, held: HeldOut, task: Task) -> HeldOut:
    """The members without untrained ones that show no gain; a rule that was named fuses them all."""
    untrained = [run for run in config.runs if bundles.was_untrained(config.root, run)]
    if not untrained or config.rule not in (None, "auto"):
        return held
    groups = groups_of(config.root, held.clip_id)
    held = replace(held, group=groups)
    judging = Judging(
        task=task, target=held.target, groups=groups, resamples=config.resamples, seed=config.seed
    )
    return with_those_that_gain(held, untrained, folds_of(held, groups, config), judging)


def nets_among(config: Config) -> list[str]:
    """The runs that have nets: not the answers of a large model."""
    return [run for run in config.runs if not bundles.was_asked(config.root, run)]


def folds_of(held: HeldOut, groups: np.ndarray, config: Config) -> np.ndarray:
    """The folds of the runs; rows of one fixed split are cut by group."""
    return folds_by_group(held.fold, groups, config.num_folds, config.seed)


def candidates_of(config: Config, held: HeldOut) -> list[Candidate]:
    """The one rule that was named, the default, or everything `auto` tries."""
    if config.rule != "auto":
        options = dict(config.rule_options)
        return [
            Candidate(
                rule=config.rule or cross_fitting.DEFAULT.rule,
                options=options,
                calibration=config.calibration,
                member_calibration=config.member_calibration,
            )
        ]
    return cross_fitting.every_candidate(held.members.kind, held.members.names)


@dataclass(frozen=True, kw_only=True)
class Searched:
    """Results of the trials."""

    candidates: list[Candidate] = field(default_factory=list)
    judgements: Mapping[str, Judgements] = field(default_factory=dict)
    """By `Candidate.key`."""


def search(config: Config, held: HeldOut, folds: np.ndarray) -> Searched:
    """Further candidates, drawn and judged by Ray Tune."""
    if not config.trials:
        return Searched()
    from jobs.tuning import late_fusion

    start = time.monotonic()
    drawn = late_fusion.drawn(held.members.kind, held.members.names, config.trials, config.seed)
    root = storage.absolute(config.root)
    found = late_fusion.searched(held, drawn, folds, root=root, session=config.session)
    best = min(drawn, key=lambda candidate: found[candidate.key][None])
    score = figure_text(found[best.key][None], digits=4)
    print(
        f"{len(drawn)} candidates in {time.monotonic() - start:.1f} s, the best of them "
        f"{cross_fitting.SELECTION_METRICS[held.members.kind]} {score}: {best.title}"
    )
    return Searched(candidates=drawn, judgements=found)


def decide(
    config: Config, held: HeldOut, verdict: cross_fitting.Verdict, folds: np.ndarray
) -> Decided | None:
    """Offsets or thresholds for the metric that was named."""
    if config.decide is None:
        return None
    try:
        return decisions.decide(
            held.members.kind, verdict.scores, held.target, folds, config.decide
        )
    except ValueError as error:
        raise ConfigError(f"--decide {config.decide}: {error}") from error


def facts_of(
    config: Config,
    dataset: Dataset,
    name: str,
    shipping: Shipping,
    shipped: cross_fitting.Fitted,
    decided: Decided | None,
) -> dict[str, Any]:
    """What bundle.json says of the fusion."""
    task = dataset.tasks[name]
    chosen = shipping.verdict.chosen
    return {
        "config": settings.resolved(config),
        "dataset": dataset.name,
        "manifest": dataset.manifest_hash,
        "task": name,
        **task.to_json(),
        "ships": shipped.candidate.title,
        "rule": shipped.rule.state(),
        "calibration": shipped.calibration.state(),
        "member_calibration": {n: c.state() for n, c in shipped.members.items()},
        "decision": None if decided is None else decided.decision.state(),
        "decided": None if decided is None else [decided.plain, decided.cross_fitted],
        "prior": shipped.prior.tolist(),
        "chosen": {str(fold): candidate.title for fold, candidate in chosen.items()},
        "member_weights": shipped.rule.member_weights(),
        "imported": list(config.imported),
        "asked": bundles.ways_of_asking(config.root, config.runs),
    }


def publish_bundle(
    config: Config, facts: Mapping[str, Any], used: Sequence[str], files: Mapping[str, bytes]
) -> None:
    """Everything that scoring needs: the nets first, which take longest, and bundle.json last, the commit."""
    members = [bundles.copy_run(config.root, config.bundle, run) for run in used]
    files = {**files, layout.CONFIG: storage.json_bytes(settings.resolved(config))}
    bundles.publish(config.root, config.bundle, {**facts, "members": members}, files)

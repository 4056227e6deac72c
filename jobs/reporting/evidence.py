"""What a report stands on: the runs' held-out predictions, their baselines, and what they were made of.

Rows of one person are not independent: intervals and paired differences resample groups. Seeds are averaged
first. Only rows that no member trained on are judged; test rows are never read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from cluster import storage
from cluster.errors import ConfigError
from fusion.metrics import FIGURES, metric
from fusion.probe import LeakReport
from fusion.statistics import Groups
from fusion.tasks import Task
from jobs.catalog import bundles, layout
from jobs.catalog.label_names import check_bundle
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.catalog.names import joined_name
from jobs.catalog.predictions import HeldOut, folds_and_seeds, held_out
from jobs.catalog.votes import votes_on
from jobs.evaluation import promises
from jobs.evaluation.bundle_scores import with_bundle
from jobs.evaluation.former_labels import warn_of_former_labels
from jobs.evaluation.judging import Judging
from jobs.evaluation.leaks import known_leaks
from jobs.evaluation.learning_curve import Point, share_curves
from jobs.evaluation.raters import Raters, judge_by_raters
from jobs.evaluation.results_table import Results
from jobs.evaluation.shipping import Gate
from jobs.evaluation.sibling_runs import chosen_task, common_tasks, run_configs
from jobs.evaluation.speaker_normalised import marked, normalised_runs
from jobs.interop.import_predictions import add_members
from jobs.reporting.judged_lines import Judged, Line, judged_lines
from jobs.reporting.run_history import Curve, PastSearch, curves, evaluated, role_figures, searches


@dataclass(frozen=True, kw_only=True)
class History:
    """How the runs came about."""

    made: Mapping[str, str]
    """Run -> its net and what it reads, in words."""

    curves: Mapping[str, Sequence[Curve]]
    roles: Mapping[str, Mapping[str, float]]
    """Run -> role -> the first figure, the mean over folds and seeds."""

    leaks: Mapping[str, Mapping[str, LeakReport]]
    """Split -> input -> what the leak test found when it was made."""

    shares: Mapping[str, Sequence[Point]]
    """Run -> the figure over the share of training groups, where runs of other shares are there."""

    searches: Mapping[str, PastSearch]
    """Searches that runs of this report came from."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the sections of a report draw on."""

    dataset: str
    licence: str
    manifest: str
    task_name: str
    task: Task
    other_tasks: Sequence[str]
    """Further tasks that all lines have, of which the report says nothing; with a bundle none."""

    protocol: str
    """How the judged rows were held out, in words."""

    clips: Sequence[str]
    """Name of each row's clip."""

    groups: Groups
    group_of: Sequence[str]
    target: Tensor
    judged: Judged
    history: History
    bundle: Mapping[str, Any] | None
    gate: Gate | None
    """What the bundle's fusion gained over the simplest answer, and which of them ships."""

    met: tuple[np.ndarray, np.ndarray] | None
    """Of what ships: whether answers cover the truth for people left out [row part], and their size [row]."""

    tested: Results | None
    """What `affuse evaluate` found on the test split."""

    looks: int
    """How often the test split has been looked at."""

    profiles: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Profile field of the dataset -> its value of each row; None where it is not known."""

    raters: Raters | None = None
    """What raters say of the judged rows, where it is known what each chose."""

    turns: Sequence[tuple[str, int | None] | None] = ()
    """Dialogue of each row's clip, and its turn in it; None: it is in none."""

    rests_on: Mapping[str, Any] | None = None
    """What `affuse explain` found that the answers of this bundle rest on; None: it was not asked."""

    @property
    def lines(self) -> Sequence[Line]:
        """Every way to answer."""
        return self.judged.lines

    @property
    def focus(self) -> Line:
        """What the detailed sections look at: what ships, else the best single member."""
        fused = [line for line in self.lines if line.role in ("ensemble", "shipped")]
        return fused[-1] if fused else self.best_single

    @property
    def best_single(self) -> Line:
        """The best member in hindsight: of the bundle, where some of its members are shown."""
        loss = metric(self.main).loss
        fused = [line for line in self.members if line.fused]
        return min(fused or self.members, key=lambda line: loss(line.figures[self.main].value))

    @property
    def main(self) -> str:
        """The figure that gains are stated in."""
        return FIGURES[self.task.kind][0]

    @property
    def members(self) -> list[Line]:
        """The lines that are single nets."""
        return [line for line in self.lines if line.role == "member"]


def gather(
    root: str,
    *,
    runs: Sequence[str],
    bundle: str | None,
    task: str | None,
    resamples: int,
    seed: int,
) -> Evidence:
    """Read everything and judge it.

    Args:
        root: of the dataset.
        runs: members to show; empty: what the bundle was fused of.
        bundle: an ensemble to show beside them.
        task: which task; None: that of the bundle, else the first that the runs have in common.
        resamples: bootstrap resamples of the groups.
        seed: of the bootstrap.

    Raises:
        ConfigError, NotPreparedError: nothing or what is not there was named, or no task that they have.
    """
    facts = {} if bundle is None else _facts_of(root, bundle)
    names = list(runs or facts.get("config", {}).get("runs", ()))
    dataset = read_dataset(root)
    table = names, [] if bundle is None else [bundle]
    name, kind = chosen_task(root, task, *table, first=True)
    held = _members(root, names, facts.get("imported", ()), name, kind)
    held, said = (held, None) if bundle is None else with_bundle(root, held, bundle, name, kind)
    former = warn_of_former_labels(root, name, kind, held.clip_id, held.target)
    clips, group_of = _names_and_groups(root, held.clip_id)
    groups = Groups.of(group_of)
    judging = Judging(
        task=kind, target=held.target, groups=groups.code.numpy(), resamples=resamples, seed=seed,
    )  # fmt: skip
    judged = judged_lines(root, name, held, said, run_configs(root), judging)
    return Evidence(
        dataset=dataset.name,
        licence=dataset.licence,
        manifest=dataset.manifest_hash,
        task_name=name,
        task=judging.task,
        other_tasks=[each for each in common_tasks(root, *table) if each != name],
        protocol=_protocol(root, names, held, former, transductive=judged.transductive),
        clips=clips,
        groups=groups,
        group_of=group_of,
        target=held.target,
        judged=judged,
        history=_history(root, names, name, judging),
        bundle=facts or None,
        gate=None if said is None else said.gate,
        met=None if bundle is None else promises.met(root, bundle, held.clip_id),
        tested=evaluated(root, bundle or joined_name(names, "+")),
        looks=len(storage.names(layout.looks_uri(root))),
        profiles=_profiles(root, held.clip_id) if dataset.profile else {},
        raters=_raters(root, held.clip_id, name, judging.task, judged.lines),
        turns=_turns(root, held.clip_id),
        rests_on=_rests_on(root, facts),
    )


def _facts_of(root: str, bundle: str) -> dict[str, Any]:
    """The facts of a bundle that means the labels that the dataset has now."""
    facts = bundles.read_bundle(root, bundle)
    check_bundle(root, facts)
    return facts


def _members(
    root: str, runs: Sequence[str], imported: Sequence[str], name: str, task: Task
) -> HeldOut:
    """Runs and imported predictions on rows that none trained on."""
    if not runs and not imported:
        raise ConfigError("nothing to report on: name --runs, or a --bundle made of some")
    held = held_out(root, runs, name, task) if runs else None
    return add_members(root, held, imported, name, task)


def _history(root: str, runs: Sequence[str], name: str, judging: Judging) -> History:
    """How the runs came about."""
    configs = run_configs(root)
    own = normalised_runs(configs, runs)
    draws = {"resamples": judging.resamples, "seed": judging.seed}
    return History(
        made={run: net_in_words(configs[run]) for run in runs if "net" in configs.get(run, {})},
        curves={marked(run, own.get(run)): curves(root, run) for run in runs},
        roles={
            marked(run, own.get(run)): role_figures(root, run, name, judging.task) for run in runs
        },
        leaks=known_leaks(root, runs, name),
        shares=share_curves(root, configs, runs, name, judging.task, **draws),
        searches=searches(root, runs),
    )


def _names_and_groups(root: str, clip_id: np.ndarray) -> tuple[list[str], list[str]]:
    table = read_manifest(root, columns=["clip_id", "name", "group"])
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    found = [rows[int(clip)] for clip in clip_id]
    return [row["name"] for row in found], [row["group"] or row["name"] for row in found]


def _profiles(root: str, clip_id: np.ndarray) -> dict[str, list[Any]]:
    """Profile fields of clips, those that are known of any."""
    table = read_manifest(root, columns=["clip_id", "profile"])
    people = dict(zip(table["clip_id"].to_pylist(), table["profile"].to_pylist(), strict=True))
    rows = [people[int(clip)] or {} for clip in clip_id]
    found = {
        key: [row.get(key) for row in rows] for key in sorted({k for row in rows for k in row})
    }
    return {key: values for key, values in found.items() if any(v is not None for v in values)}


def _raters(
    root: str, clip_id: np.ndarray, name: str, task: Task, lines: Sequence[Line]
) -> Raters | None:
    votes = votes_on(root, clip_id, name, task)
    if votes is None:
        return None
    return judge_by_raters(votes, {line.name: line.scores for line in lines})


def _turns(root: str, clip_id: np.ndarray) -> list[tuple[str, int | None] | None]:
    """Dialogue and turn of clips; nothing where no clip is in one."""
    table = read_manifest(root, columns=["clip_id", "dialogue", "turn"])
    if table["dialogue"].null_count == len(table):
        return []
    place = pc.index_in(pa.array(clip_id), value_set=table["clip_id"].combine_chunks())
    rows = table.take(place)
    pairs = zip(rows["dialogue"].to_pylist(), rows["turn"].to_pylist(), strict=True)
    return [None if dialogue is None else (dialogue, turn) for dialogue, turn in pairs]


def _rests_on(root: str, facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What `affuse explain` wrote of this very bundle."""
    uri = layout.explanation_uri(root, facts["name"], layout.RESTS_ON) if facts else ""
    if not uri or not storage.exists(uri):
        return None
    found = dict(storage.read_json(uri))
    return found if found["bundle"] == bundles.digest(facts) else None


def _protocol(
    root: str, runs: Sequence[str], held: HeldOut, former: int, *, transductive: bool
) -> str:
    folds = len(np.unique(held.fold))
    how = f"{folds} folds, out of fold" if folds > 1 else "rows of the validation split"
    config = {}
    if runs and storage.exists(uri := layout.run_uri(root, runs[0], layout.CONFIG)):
        config = storage.read_json(uri)
    if folds > 1 and config.get("folds"):
        how = f"{folds} folds ({config['folds']}), out of fold"
    seeds = {seed for run in runs for _, seed in folds_and_seeds(root, run)}
    seeded = f", seeds {', '.join(map(str, sorted(seeds)))}" if seeds else ""
    own = normalised_runs(run_configs(root), runs) if transductive else {}
    words = f", normalised by {'+'.join(sorted(set(own.values())))} (transductive)" if own else ""
    labels = f", {former} of them by labels that were corrected since" if former else ""
    return f"{how}{seeded}, n = {len(held.clip_id)}{labels}{words}"


def net_in_words(config: Mapping[str, Any]) -> str:
    """The net of a run's config and what it reads."""
    options = ", ".join(
        f"{k} {_short(v)}" for k, v in sorted(config.get("net_options", {}).items())
    )
    return f"{config['net']} of {' + '.join(config['inputs'])}" + (
        f" ({options})" if options else ""
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value) or "none"

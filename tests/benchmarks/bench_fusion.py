"""Which late fusion is worse than its own parts, on which members, with how many people?

    python tests/benchmarks/bench_fusion.py --data FOLDER [--roots DEMO ...] [--draws 10] [--cache FOLDER]
        [--only TEXT] [--plain] [--shipped] [--processes 2] [--out cells.csv]

FOLDER holds `ravdess/`, `meld/`, `mosi/` and `empathic_reactions/` as their authors publish them (labels and
ready features); every DEMO is the root of a finished `affuse demo`. Members are linear heads and small nets,
trained out of fold by groups, for classes, for several labels and for values; hostile variants of each set
are made from them: copies, useless ones, over-confident ones, anti-correlated ones, one fold's scores spoilt,
and gaps. A rule is fitted on the rows of some groups (4, 6, 8, 12, drawn at random) and judged on all others,
or cross-fitted over the members' own folds (`all`).

Regret of a cell: NLL of the rule over that of a reference on the same rows [%], accuracy (of labels one by
one) under it [points]. The NLL of labels is Bernoulli's, its mean over the labels; of values it is Gaussian,
in units of the targets' deviation, with the variance of the rule's errors on the rows it was fitted on.
    hindsight  the best of every member (raw, tempered), mean and even log pool + T, picked by the judge
    inside     the best of {best single chosen inside, mean + T, even log pool + T, fitted log pool + T}
A cell is over the mark where its regret against `inside` is above 2 % by more than its standard error over
groups.

Cells are written to `--out` as they are done; the same command goes on from there. After a change of the
rules it is another table: name a new one.
"""

import argparse
import pickle
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import fusion_members
import numpy as np
import torch
from fusion_cells import Line, append, finished, show_cell, show_table
from fusion_members import MemberSet
from torch import Tensor

from fusion.late import rule_class
from fusion.late.calibration import Calibration, Method
from fusion.late.members import FLOOR, Members, answered, prior
from fusion.tasks import Task
from jobs.catalog.predictions import HeldOut
from jobs.evaluation import cross_fitting
from jobs.evaluation.judging import Judging
from jobs.evaluation.shipping import gated

SIZES = (4, 6, 8, 12)
RULES: dict[str, tuple[str, dict[str, int], Method]] = {
    "mixture": ("mixture", {}, "none"),
    "one division": ("mixture", {"repeats": 1}, "none"),
    "log_pool": ("log_pool", {}, "temperature"),
    "mean": ("mean", {}, "temperature"),
    "even log pool": ("log_pool", {"fitted": False}, "temperature"),
    "caruana": ("caruana", {}, "temperature"),
    "stacking": ("stacking", {}, "temperature"),
    "plain mean": ("mean", {}, "none"),
}
INSIDE = ("best single", "mean", "even log pool", "log_pool")
Fit = tuple[Members, Tensor, np.ndarray]
"""Members, target and group of some rows."""


# ---- rules


def fused(name: str, fit: Fit, members: Members) -> tuple[Tensor, Tensor]:
    """Scores of a rule on the rows it was fitted on, and on other rows."""
    rule_name, options, method = RULES[name]
    kind = rule_class(rule_name)
    rule = kind.fit(kind.Config(**options), fit[0], fit[1], groups=torch.from_numpy(fit[2]))
    return calibrated(method, rule.combine(fit[0]), rule.combine(members), fit)


def calibrated(method: Method, own: Tensor, other: Tensor, fit: Fit) -> tuple[Tensor, Tensor]:
    """Both with what was fitted on the first; rows without a member get the prior."""
    kind = fit[0].kind
    heat = Calibration.fit(method if kind != "regression" else "none", kind, own, fit[1])
    guess = prior(kind, fit[1], fit[0].outputs)
    return answered(heat.apply(own), guess), answered(heat.apply(other), guess)


def best_single(fit: Fit, members: Members) -> tuple[Tensor, Tensor]:
    """The member of least loss on the fitting rows, with a temperature."""
    some = alone(fit, members)
    return min(some.values(), key=lambda pair: float(losses(pair[0], pair[0], fit[1], fit).mean()))


def alone(fit: Fit, members: Members) -> dict[str, tuple[Tensor, Tensor]]:
    """Every member with a temperature."""
    return {
        name: calibrated("temperature", fit[0].alone(index), members.alone(index), fit)
        for index, name in enumerate(members.names)
    }


def shipped(fit: Fit, members: Members) -> tuple[Tensor, Tensor]:
    """What `affuse ensemble` ships when it sees the fitting rows: the mixture or the simplest answer."""
    group = np.unique(fit[2], return_inverse=True)[1]
    fold = fusion_members.group_folds(group, min(5, len(np.unique(group))))
    held = HeldOut(
        clip_id=np.arange(len(fold)), fold=fold, target=fit[1], members=fit[0], group=group
    )
    kind = members.kind
    classes = () if kind == "regression" else tuple(map(str, range(members.outputs)))
    judging = Judging(
        task=Task(kind=kind, classes=classes), target=fit[1], groups=group, resamples=500, seed=0
    )
    mixed = cross_fitting.cross_fitted(held, [cross_fitting.DEFAULT], fold)
    ships = gated(held, [cross_fitting.DEFAULT], mixed, fold, judging, named=False)
    rule = cross_fitting.fit(held, cross_fitting.choose(held, ships.candidates, fold))
    return calibrated("none", rule.combine(fit[0]), rule.combine(members), fit)


def parts(fit: Fit, members: Members) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """What hindsight may pick from: every member raw and tempered, mean and even pool tempered."""
    for name in ("mean", "even log pool"):
        yield name, fused(name, fit, members)
    for index, name in enumerate(members.names):
        yield name, calibrated("none", fit[0].alone(index), members.alone(index), fit)
    yield from ((f"{name} + T", pair) for name, pair in alone(fit, members).items())


# ---- judging


def losses(own: Tensor, scores: Tensor, target: Tensor, fit: Fit) -> Tensor:
    """NLL [row]; `own` are the same rule's scores on the rows it was fitted on."""
    kind = fit[0].kind
    if kind == "classification":
        log_p = torch.log_softmax(scores, 1).clamp(min=np.log(FLOOR))
        return -log_p.gather(1, target.unsqueeze(1)).squeeze(1)
    if kind == "multilabel":
        limit = -np.log(FLOOR)
        signs = 1 - 2 * target
        return torch.nn.functional.softplus(signs * scores.clamp(-limit, limit)).mean(1)
    unit = fit[1].double().var(correction=0)
    variance = (own[:, 0] - fit[1]).square().mean() / unit
    error = (scores[:, 0] - target).square() / unit
    return 0.5 * (error / variance + (2 * torch.pi * variance).log())


def hits(scores: Tensor, target: Tensor, kind: str) -> Tensor:
    """Share of a row's answers that are right [row]; none of values."""
    if kind == "classification":
        return (scores.argmax(1) == target).double()
    if kind == "multilabel":
        return ((scores > 0) == (target > 0)).double().mean(1)
    return torch.zeros(len(scores), dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Losses and hits by rule [row], with the rows' groups."""

    losses: dict[str, np.ndarray]
    hits: dict[str, np.ndarray]
    group: np.ndarray

    @property
    def parts(self) -> set[str]:
        """What hindsight picks from."""
        return {name for name in self.losses if name.startswith("part ")}


def cell(plain: MemberSet, size: int | None, draws: int, with_shipped: bool) -> Judged:
    """All draws (or folds) of a cell, their rows behind one another."""
    found: dict[str, list[Tensor]] = {}
    right: dict[str, list[Tensor]] = {}
    groups = []
    for train, test in pairs_of(plain, size, draws):
        fit, rest = plain.rows(train), plain.rows(test)
        answers = {name: fused(name, fit, rest[0]) for name in RULES}
        answers["best single"] = best_single(fit, rest[0])
        if with_shipped:
            answers["shipped"] = shipped(fit, rest[0])
        answers |= {f"part {name}": pair for name, pair in parts(fit, rest[0])}
        for name, (own, scores) in answers.items():
            found.setdefault(name, []).append(losses(own, scores, rest[1], fit))
            right.setdefault(name, []).append(hits(scores, rest[1], rest[0].kind))
        groups.append(rest[2])
    return Judged(
        losses={name: torch.cat(values).numpy() for name, values in found.items()},
        hits={name: torch.cat(values).numpy() for name, values in right.items()},
        group=np.concatenate(groups),
    )


def pairs_of(
    plain: MemberSet, size: int | None, draws: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(fitting rows, judged rows) of a cell."""
    if size is None:
        yield from ((plain.fold != fold, plain.fold == fold) for fold in np.unique(plain.fold))
        return
    names = np.unique(plain.group)
    for draw in range(draws):
        train = np.isin(plain.group, np.random.default_rng(draw).choice(names, size, replace=False))
        if (plain.target[train] != plain.target[train][0]).any():  # else nothing can be learnt
            yield train, ~train


def regret(found: Judged, rule: str, among: Iterable[str]) -> tuple[float, float, float]:
    """NLL [%] and accuracy [points] of a rule against the best of some others, and the NLL's error.

    The standard error [%] is over groups, each the sum of its rows in all draws.
    """
    best = min(among, key=lambda name: found.losses[name].mean())
    gap = found.losses[rule] - found.losses[best]
    sums, counts = np.bincount(found.group, gap), np.bincount(found.group)
    sums, counts = sums[counts > 0], counts[counts > 0]
    spread = (sums - gap.mean() * counts).std(ddof=1) * np.sqrt(len(sums)) / counts.sum()
    base = found.losses[best].mean()
    points = 100 * (found.hits[rule].mean() - found.hits[best].mean())
    return 100 * gap.mean() / base, float(points), 100 * float(spread) / base


def name_of(plain: MemberSet, size: int | None) -> str:
    """Name of a cell."""
    return f"{plain.name}/{size or 'all'}"


def lines_of(plain: MemberSet, size: int | None, draws: int, with_shipped: bool) -> list[Line]:
    """A line a rule of one cell."""
    torch.set_num_threads(1)
    found = cell(plain, size, draws, with_shipped)
    lines: list[Line] = []
    for rule in found.losses.keys() - found.parts:
        far, near = regret(found, rule, found.parts), regret(found, rule, INSIDE)
        lines.append({
            "cell": name_of(plain, size), "draws": draws, "kind": plain.members.kind, "rule": rule,
            "nll": found.losses[rule].mean(), "accuracy": found.hits[rule].mean(),
            "hindsight_nll": far[0], "hindsight_accuracy": far[1], "hindsight_error": far[2],
            "inside_nll": near[0], "inside_accuracy": near[1], "inside_error": near[2],
        })  # fmt: skip
    return lines


# ---- everything


def main() -> None:
    """Print a line a cell and a table of all rules."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--roots", nargs="*", default=[], help="finished demos")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--cache", type=Path, help="file that keeps the members between runs")
    parser.add_argument("--only", default="", help="sets whose name holds this text")
    parser.add_argument("--plain", action="store_true", help="without the hostile variants")
    parser.add_argument("--shipped", action="store_true", help="what `ensemble` ships, too (slow)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, help="table of cells; what it holds is not judged again"
    )
    options = parser.parse_args()
    sets = [
        variant
        for plain in [
            *cached(options.data, options.cache),
            *map(fusion_members.demo_set, options.roots),
        ]
        for variant in [plain, *([] if options.plain else fusion_members.hostile(plain))]
        if options.only in variant.name
    ]
    cells = [
        (one, size)
        for one in sets
        for size in (*SIZES, None)
        if size is None or size < len(np.unique(one.group)) - 1
    ]
    lines = finished(options.out, options.draws, options.shipped)
    done = {line["cell"] for line in lines}
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        waiting = [
            pool.submit(lines_of, one, size, options.draws, options.shipped)
            for one, size in cells
            if name_of(one, size) not in done
        ]
        for each in as_completed(waiting):
            found = each.result()
            lines += found
            show_cell(next(line for line in found if line["rule"] == "mixture"))
            append(options.out, found)
    asked = {name_of(one, size) for one, size in cells}
    lines = [line for line in lines if line["cell"] in asked]
    print(f"\n{len(sets)} member sets, {len(cells)} cells")
    for kind in ("classification", "multilabel", "regression"):
        show_table(kind, [line for line in lines if line["kind"] == kind])


def cached(data: Path, cache: Path | None) -> list[MemberSet]:
    """The plain sets, trained once."""
    if cache is not None and cache.exists():
        found: list[MemberSet] = pickle.loads(cache.read_bytes())  # written by the lines below
        return found
    found = list(fusion_members.plain_sets(data))
    if cache is not None:
        cache.write_bytes(pickle.dumps(found))
    return found


if __name__ == "__main__":
    main()

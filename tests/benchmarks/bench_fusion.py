"""Which late fusion is worse than its own parts, on which members, with how many people?

    python tests/benchmarks/bench_fusion.py --data FOLDER [--draws 10] [--out cells.csv]

FOLDER holds `ravdess/`, `meld/`, `mosi/` and `empathic_reactions/` as their authors publish them (labels and
ready features). Members are linear heads and small nets, trained out of fold by groups; hostile variants of
each set are made from them: copies, useless ones, over-confident ones, anti-correlated ones, and one fold's
scores spoilt. A rule is fitted on the rows of some groups (4, 6, 8, 12, drawn at random) and judged on all
others, or cross-fitted over the members' own folds (`all`).

Regret of a cell: NLL of the rule over that of a reference on the same rows [%], accuracy
under it [points].
    hindsight  the best of every member (raw, tempered), mean and even log pool + T, picked by the judge
    inside     the best of {best single chosen inside, mean + T, even log pool + T, fitted log pool + T}
"""

import argparse
import csv
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from fusion.late import rule_class
from fusion.late.calibration import Calibration
from fusion.late.members import Members
from fusion.tasks import Task
from jobs.catalog.predictions import HeldOut
from jobs.evaluation import cross_fitting
from jobs.evaluation.judging import Judging
from jobs.evaluation.shipping import gated

SIZES = (4, 6, 8, 12)
RULES = {
    "mixture": ("mixture", {}, "none"),
    "log_pool": ("log_pool", {}, "temperature"),
    "mean": ("mean", {}, "temperature"),
    "even log pool": ("log_pool", {"fitted": False}, "temperature"),
    "caruana": ("caruana", {}, "temperature"),
    "stacking": ("stacking", {}, "temperature"),
    "plain mean": ("mean", {}, "none"),
}
LINES = (*RULES, "best single", "shipped")
INSIDE = ("best single", "mean", "even log pool", "log_pool")


@dataclass(frozen=True, kw_only=True)
class MemberSet:
    """Out-of-fold members of one dataset."""

    name: str
    members: Members
    target: Tensor
    group: np.ndarray
    fold: np.ndarray

    def rows(self, at: np.ndarray) -> tuple[Members, Tensor, np.ndarray]:
        """Some rows."""
        index = torch.from_numpy(np.flatnonzero(at))
        return self.members.rows(index), self.target[index], self.group[at]


# ---- members


def out_of_fold(
    features: np.ndarray, target: np.ndarray, fold: np.ndarray, classes: int, strength: float
) -> np.ndarray:
    """Log-probabilities of a linear head (`strength` > 0: its C) or a small net (0), by folds."""
    scores = np.full((len(target), classes), np.log(1e-15))
    for part in np.unique(fold):
        train, test = fold != part, fold == part
        scaler = StandardScaler().fit(features[train])
        model = (
            LogisticRegression(C=strength, max_iter=200, tol=1e-3)
            if strength
            else MLPClassifier((64,), max_iter=40, early_stopping=False, random_state=int(part))
        )
        model.fit(scaler.transform(features[train]), target[train])
        p = model.predict_proba(scaler.transform(features[test]))
        scores[np.ix_(test, model.classes_)] = np.log(p.clip(1e-15))
    return scores


def group_folds(group: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Fold of each row, whole groups dealt out at random."""
    names, index = np.unique(group, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.asarray(order[index] % count)


def made(
    name: str, parts: dict[str, np.ndarray], target: np.ndarray, group: np.ndarray, fold: np.ndarray
) -> MemberSet:
    """A set from features: two linear heads (weak and strong) and a net a part."""
    classes = int(target.max()) + 1
    scores = {}
    for part, values in parts.items():
        for title, strength in (("weak", 1e-3), ("strong", 1.0), ("net", 0.0)):
            scores[f"{part} {title}"] = out_of_fold(values, target, fold, classes, strength)
    stacked = torch.from_numpy(np.stack(list(scores.values())))
    return MemberSet(
        name=name,
        members=Members.from_logits(tuple(scores), "classification", stacked),
        target=torch.from_numpy(target.astype(np.int64)),
        group=np.unique(group, return_inverse=True)[1],
        fold=fold,
    )


def datasets(folder: Path) -> Iterator[MemberSet]:
    """The plain sets."""
    labels = list(csv.DictReader((folder / "ravdess" / "labels.csv").open()))
    arrays = np.load(folder / "ravdess" / "au_mfcc.npz")
    place = {str(n)[3:]: i for i, n in enumerate(arrays["name"])}
    order = [place[row["name"][3:]] for row in labels]
    emotions = sorted({row["emotion"] for row in labels})
    target = np.array([emotions.index(row["emotion"]) for row in labels])
    actor = np.array([int(row["actor"]) for row in labels])
    fold = np.array([int(row["fold"]) for row in labels])
    parts = {key: np.nan_to_num(arrays[key][order]) for key in ("au_mean", "au2", "mfcc")}
    yield made("ravdess", parts, target, actor, fold)
    yield made("ravdess face", {"au_mean": parts["au_mean"]}, target, actor, fold)
    few = np.isin(actor, np.unique(actor)[:12])
    yield made(
        "ravdess 12", {k: v[few] for k, v in parts.items()}, target[few], actor[few], fold[few]
    )
    meld = np.load(folder / "meld" / "meld_dev_embeddings.npz")
    parts = {key: meld[key] for key in ("text_roberta_base", "audio_wav2vec2", "audio_mel")}
    dialogue = meld["dialogue_id"]
    yield made("meld", parts, meld["emotion"], dialogue, group_folds(dialogue, 5))
    yield made("meld sentiment", parts, meld["sentiment"], dialogue, group_folds(dialogue, 5, 1))
    mosi = np.load(folder / "mosi" / "mosi_utt.npz")
    at = mosi["split_bclstm"] == "test"
    parts = {key: mosi[key][at] for key in ("text", "audio", "video")}
    video = mosi["video_id"][at]
    yield made("mosi", parts, mosi["label_binary"][at].astype(int), video, group_folds(video, 5))
    yield essays(folder)


def essays(folder: Path) -> MemberSet:
    """Empathic Reactions: words and letters, two classes of empathy, grouped by article."""
    file = folder / "empathic_reactions" / "empathic_reactions_messages.csv"
    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    texts = [row["essay"] for row in rows]
    target = np.array([int(float(row["empathy"]) > 4) for row in rows])
    article = np.array([row["article_id"] for row in rows])
    parts = {
        "words": TfidfVectorizer(min_df=5, max_features=1500).fit_transform(texts).toarray(),
        "letters": TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), max_features=1500)
        .fit_transform(texts)
        .toarray(),
    }
    return made("essays", parts, target, article, group_folds(article, 5))


def hostile(plain: MemberSet) -> Iterator[MemberSet]:
    """The set with members that late fusion has to survive."""
    draws = torch.Generator().manual_seed(0)
    scores = plain.members.scores
    rows, classes = scores.shape[1:]
    noise = torch.randn(2, rows, classes, generator=draws, dtype=torch.float64)
    variants = {
        "copies": scores[:1].repeat(3, 1, 1) + 0.01 * noise[:1],
        "useless": 0.3 * noise,
        "over-confident noise": 10 * noise,
        "over-confident x10": 10 * scores[:2],
        "anti-correlated": -scores[:1],
    }
    for title, extra in variants.items():
        yield joined(plain, title, extra)
    spoilt = scores.clone()
    first = torch.from_numpy(plain.fold == np.unique(plain.fold)[0])
    strongest = len(scores) - 1
    spoilt[strongest, first] = 8 * scores[strongest, first]
    members = Members.from_logits(plain.members.names, "classification", spoilt)
    yield replace(plain, name=f"{plain.name} + one fold spoilt", members=members)


def joined(plain: MemberSet, title: str, extra: Tensor) -> MemberSet:
    """The set with further members."""
    names = (*plain.members.names, *(f"{title} {i}" for i in range(len(extra))))
    members = Members.from_logits(names, "classification", torch.cat([plain.members.scores, extra]))
    return replace(plain, name=f"{plain.name} + {title}", members=members)


# ---- judging


def fused(name: str, fit: tuple, members: Members) -> Tensor:
    """Log-probabilities of a rule, fitted on (members, target, group), on other rows."""
    rule_name, options, method = RULES[name]
    kind = rule_class(rule_name)
    rule = kind.fit(kind.Config(**options), fit[0], fit[1], groups=torch.from_numpy(fit[2]))
    fitted = Calibration.fit(method, "classification", rule.combine(fit[0]), fit[1])
    return fitted.apply(rule.combine(members))


def best_single(fit: tuple, members: Members) -> Tensor:
    """The member of least NLL on the fitting rows, with a temperature."""
    losses = torch.nn.functional.cross_entropy
    best = min(range(len(fit[0].names)), key=lambda m: float(losses(fit[0].scores[m], fit[1])))
    fitted = Calibration.fit("temperature", "classification", fit[0].scores[best], fit[1])
    return fitted.apply(members.scores[best])


def shipped(fit: tuple, members: Members) -> Tensor:
    """What `affuse ensemble` ships when it sees the fitting rows: the mixture or the simplest answer."""
    group = np.unique(fit[2], return_inverse=True)[1]
    fold = group_folds(group, min(5, len(np.unique(group))))
    held = HeldOut(
        clip_id=np.arange(len(fold)), fold=fold, target=fit[1], members=fit[0], group=group
    )
    task = Task(kind="classification", classes=tuple(map(str, range(members.outputs))))
    judging = Judging(task=task, target=fit[1], groups=group, resamples=500, seed=0)
    mixed = cross_fitting.cross_fitted(held, [cross_fitting.DEFAULT], fold)
    ships = gated(held, [cross_fitting.DEFAULT], mixed, fold, judging, named=False)
    chosen = cross_fitting.choose(held, ships.candidates, fold)
    return cross_fitting.fit(held, chosen).combine(members)


def parts_in_hindsight(fit: tuple, members: Members) -> dict[str, Tensor]:
    """Every member raw and tempered, mean and even pool tempered."""
    found = {name: fused(name, fit, members) for name in ("mean", "even log pool")}
    for index, name in enumerate(members.names):
        fitted = Calibration.fit("temperature", "classification", fit[0].scores[index], fit[1])
        found[name] = members.scores[index]
        found[f"{name} + T"] = fitted.apply(members.scores[index])
    return found


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Losses and hits by rule [row], with the rows' groups."""

    losses: dict[str, np.ndarray]
    hits: dict[str, np.ndarray]
    parts: set[str]
    group: np.ndarray


def judged(fit: tuple, test: tuple) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Scores of every rule, and of every part."""
    rules = {name: fused(name, fit, test[0]) for name in RULES}
    rules["best single"] = best_single(fit, test[0])
    rules["shipped"] = shipped(fit, test[0])
    return rules, parts_in_hindsight(fit, test[0])


def cell(plain: MemberSet, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Judged:
    """All draws (or folds) of a cell, their rows behind one another."""
    losses: dict[str, list[Tensor]] = {}
    hits: dict[str, list[Tensor]] = {}
    groups, part_names = [], set()
    for train, test in pairs:
        fit, rest = plain.rows(train), plain.rows(test)
        rules, parts = judged(fit, rest)
        part_names |= {f"part {name}" for name in parts}
        for name, scores in {**rules, **{f"part {k}": v for k, v in parts.items()}}.items():
            log_p = torch.log_softmax(scores, 1).clamp(min=np.log(1e-15))
            losses.setdefault(name, []).append(-log_p.gather(1, rest[1].unsqueeze(1)).squeeze(1))
            hits.setdefault(name, []).append((log_p.argmax(1) == rest[1]).double())
        groups.append(rest[2])
    return Judged(
        losses={name: torch.cat(values).numpy() for name, values in losses.items()},
        hits={name: torch.cat(values).numpy() for name, values in hits.items()},
        parts=part_names,
        group=np.concatenate(groups),
    )


def regret(found: Judged, rule: str, among: set[str]) -> tuple[float, float, float]:
    """NLL [%] and accuracy [points] of a rule against the best of some others, and the NLL's error."""
    best = min(among, key=lambda name: found.losses[name].mean())
    gap = found.losses[rule] - found.losses[best]
    sums = np.bincount(found.group, gap)
    counts = np.bincount(found.group)
    sums, counts = sums[counts > 0], counts[counts > 0]
    spread = (sums - gap.mean() * counts).std(ddof=1) * np.sqrt(len(sums)) / counts.sum()
    base = found.losses[best].mean()
    points = 100 * (found.hits[rule].mean() - found.hits[best].mean())
    return 100 * gap.mean() / base, float(points), 100 * float(spread) / base


def pairs_of(plain: MemberSet, size: int | None, draws: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(fitting rows, judged rows) of a cell."""
    if size is None:
        return [(plain.fold != f, plain.fold == f) for f in np.unique(plain.fold)]
    found = []
    names = np.unique(plain.group)
    for draw in range(draws):
        some = np.random.default_rng(draw).choice(names, size, replace=False)
        train = np.isin(plain.group, some)
        if len(np.unique(plain.target[train])) > 1:
            found.append((train, ~train))
    return found


def main() -> None:
    """Print a line a cell and a table of all rules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--plain", action="store_true", help="without the hostile variants")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows: list[dict[str, object]] = []
    sets = 0
    for plain in datasets(options.data):
        for some in [plain, *([] if options.plain else hostile(plain))]:
            sets += 1
            for size in (*SIZES, None):
                if size is not None and size >= len(np.unique(some.group)) - 1:
                    continue
                found = cell(some, pairs_of(some, size, options.draws))
                title = f"{some.name}/{size or 'all'}"
                for rule in LINES:
                    far = regret(found, rule, found.parts)
                    near = regret(found, rule, set(INSIDE))
                    rows.append({"cell": title, "rule": rule, "nll": found.losses[rule].mean(),
                                 "accuracy": found.hits[rule].mean(), "hindsight_nll": far[0],
                                 "hindsight_accuracy": far[1], "inside_nll": near[0],
                                 "inside_accuracy": near[1], "inside_error": near[2]})  # fmt: skip
                mine = next(r for r in rows if r["cell"] == title and r["rule"] == "mixture")
                print(
                    f"{title:45s} {mine['nll']:.3f} {mine['accuracy']:.3f}  inside "
                    f"{mine['inside_nll']:+6.2f} % +- {mine['inside_error']:.2f} "
                    f"{mine['inside_accuracy']:+5.2f} p  hindsight {mine['hindsight_nll']:+6.2f} %",
                    flush=True,
                )
    table(rows, sets)
    if options.out is not None:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def table(rows: list[dict[str, object]], sets: int) -> None:
    """All rules over all cells."""
    print(f"\n{sets} member sets, {len({row['cell'] for row in rows})} cells")
    print(
        "rule             mean NLL%  worst NLL%  mean acc  worst acc | inside: mean  worst  worst acc"
    )
    for rule in LINES:
        mine = [row for row in rows if row["rule"] == rule]
        figures = [key for key in mine[0] if key not in ("cell", "rule")]
        column = {key: np.array([float(str(row[key])) for row in mine]) for key in figures}
        print(
            f"{rule:16s} {column['hindsight_nll'].mean():9.2f} {column['hindsight_nll'].max():10.2f} "
            f"{column['hindsight_accuracy'].mean():9.2f} {column['hindsight_accuracy'].min():9.2f} | "
            f"{column['inside_nll'].mean():10.2f} {column['inside_nll'].max():6.2f} "
            f"{column['inside_accuracy'].min():6.2f}"
        )


if __name__ == "__main__":
    main()

"""Out-of-fold members of real datasets, and the variants that a late fusion has to survive."""

import csv
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from fusion.late.members import Members
from fusion.tasks import Kind
from jobs import demo
from jobs.catalog.groups import groups_of
from jobs.catalog.manifest import read_dataset
from jobs.catalog.predictions import held_out

STRENGTHS = {"weak": 1e-3, "strong": 1.0, "net": 0.0}
"""C of a linear head (its inverse weighs the ridge of values); 0: a small net."""

GAPS = 0.25
"""Share of the clips that a member says nothing of, in the variant with gaps."""


@dataclass(frozen=True, kw_only=True)
class MemberSet:
    """Out-of-fold members of one dataset."""

    name: str
    members: Members
    target: Tensor
    group: np.ndarray
    fold: np.ndarray

    def rows(self, at: np.ndarray) -> tuple[Members, Tensor, np.ndarray]:
        """Some rows: members, target, group."""
        index = torch.from_numpy(np.flatnonzero(at))
        return self.members.rows(index), self.target[index], self.group[at]


def plain_sets(folder: Path) -> Iterator[MemberSet]:
    """The sets of `folder`: classes, then several labels, then values."""
    features, labels = ravdess(folder)
    target, actor, fold = labels["emotion"], labels["actor"], labels["fold"]
    yield made("ravdess", "classification", features, target, actor, fold)
    face = {"au_mean": features["au_mean"]}
    yield made("ravdess face", "classification", face, target, actor, fold)
    few = np.isin(actor, np.unique(actor)[:12])
    some = {name: values[few] for name, values in features.items()}
    yield made("ravdess 12", "classification", some, target[few], actor[few], fold[few])
    two = np.stack([labels["intensity"], labels["female"]], 1)
    yield made("ravdess labels", "multilabel", features, two, actor, fold)

    meld = np.load(folder / "meld" / "meld_dev_embeddings.npz")
    features = {name: meld[name] for name in ("text_roberta_base", "audio_wav2vec2", "audio_mel")}
    dialogue, feeling, mood = meld["dialogue_id"], meld["emotion"], meld["sentiment"]
    folds = group_folds(dialogue, 5)
    yield made("meld", "classification", features, feeling, dialogue, folds)
    yield made("meld sentiment", "classification", features, mood, dialogue, folds)
    marks = np.stack([mood == 0, mood == 2, np.isin(feeling, (2, 3))], 1)
    yield made("meld labels", "multilabel", features, marks, dialogue, folds)

    mosi = np.load(folder / "mosi" / "mosi_utt.npz")
    at = mosi["split_bclstm"] == "test"  # the others trained the features
    features = {name: mosi[name][at] for name in ("text", "audio", "video")}
    video = mosi["video_id"][at]
    folds = group_folds(video, 5)
    yield made("mosi", "classification", features, mosi["label_binary"][at], video, folds)
    yield made("mosi values", "regression", features, mosi["score"][at], video, folds)

    features, labels = essays(folder)
    article = labels["article"]
    folds = group_folds(article, 5)
    felt = np.stack([labels["empathy"], labels["distress"]], 1)
    yield made("essays", "classification", features, (felt[:, 0] > 4).astype(int), article, folds)
    yield made("essays labels", "multilabel", features, felt > 4, article, folds)
    yield made("essays values", "regression", features, felt[:, 0], article, folds)


def ravdess(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Action units of two extractions and MFCC of each clip, and its labels."""
    rows = list(csv.DictReader((folder / "ravdess" / "labels.csv").open()))
    arrays = np.load(folder / "ravdess" / "au_mfcc.npz")
    place = {str(name)[3:]: index for index, name in enumerate(arrays["name"])}
    order = [place[row["name"][3:]] for row in rows]
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    labels = {
        "emotion": np.unique(column["emotion"], return_inverse=True)[1],
        "actor": column["actor"].astype(int),
        "fold": column["fold"].astype(int),
        "intensity": np.unique(column["intensity"], return_inverse=True)[1] > 0,
        "female": np.unique(column["sex"], return_inverse=True)[1] > 0,
    }
    return {key: np.nan_to_num(arrays[key][order]) for key in ("au_mean", "au2", "mfcc")}, labels


def essays(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Empathic Reactions: counts of words and of letters, empathy and distress, the article read."""
    file = folder / "empathic_reactions" / "empathic_reactions_messages.csv"
    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    texts = [row["essay"] for row in rows]
    words = TfidfVectorizer(min_df=5, max_features=1500)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), max_features=1500)
    features = {
        "words": words.fit_transform(texts).toarray(),
        "letters": letters.fit_transform(texts).toarray(),
    }
    labels = {
        name: np.array([float(row[name]) for row in rows]) for name in ("empathy", "distress")
    }
    return features, {**labels, "article": np.array([row["article_id"] for row in rows])}


def demo_set(root: str) -> MemberSet:
    """The nets of a finished demo."""
    name, task = next(iter(read_dataset(root).tasks.items()))
    held = held_out(root, list(demo.NETS), name, task)
    groups = groups_of(root, held.clip_id)
    return MemberSet(
        name=f"demo {Path(root).name}",
        members=held.members,
        target=held.target,
        group=groups,
        fold=held.fold,
    )


# ---- members


def group_folds(group: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Fold of each row, whole groups dealt out at random."""
    names, index = np.unique(group, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.asarray(order[index] % count)


def made(
    name: str,
    kind: Kind,
    parts: Mapping[str, np.ndarray],
    target: np.ndarray,
    group: np.ndarray,
    fold: np.ndarray,
) -> MemberSet:
    """A set from features: two linear heads (weak and strong) and a small net a part.

    Args:
        name: of the set.
        kind: of the task.
        parts: features [row feature].
        target: classes [row], labels [row label] or values [row].
        group: name of each row's group.
        fold: fold of each row.
    """
    scores = {
        f"{part} {title}": out_of_fold(kind, values, target, fold, strength)
        for part, values in parts.items()
        for title, strength in STRENGTHS.items()
    }
    stacked = torch.from_numpy(np.stack(list(scores.values())))
    answers = torch.from_numpy(target.astype(np.int64 if kind == "classification" else np.float64))
    return MemberSet(
        name=name,
        members=Members.from_logits(tuple(scores), kind, stacked),
        target=answers,
        group=np.unique(group, return_inverse=True)[1],
        fold=fold,
    )


def out_of_fold(
    kind: Kind, features: np.ndarray, target: np.ndarray, fold: np.ndarray, strength: float
) -> np.ndarray:
    """Scores [row outputs] of a linear head or a small net, by folds."""
    if kind == "multilabel":
        answers = [
            out_of_fold("classification", features, label.astype(int), fold, strength)
            for label in target.T
        ]
        return np.stack([answer[:, 1] - answer[:, 0] for answer in answers], 1)
    width = int(target.max()) + 1 if kind == "classification" else 1
    scores = np.full((len(target), width), np.log(1e-15))
    for part in np.unique(fold):
        train, test = fold != part, fold == part
        scaler = StandardScaler().fit(features[train])
        model = head(kind, strength, int(part))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaler.transform(features[train]), target[train])
        shown = scaler.transform(features[test])
        if kind == "regression":
            scores[test, 0] = model.predict(shown)
        else:
            scores[np.ix_(test, model.classes_)] = np.log(model.predict_proba(shown).clip(1e-15))
    return scores


def head(
    kind: Kind, strength: float, seed: int
) -> LogisticRegression | MLPClassifier | MLPRegressor | Ridge:
    """A linear head, or a small net where the strength is 0."""
    if kind == "regression":
        if strength:
            return Ridge(alpha=10 / strength)
        return MLPRegressor(hidden_layer_sizes=(64,), max_iter=40, random_state=seed)
    if strength:
        return LogisticRegression(C=strength, max_iter=200, tol=1e-3)
    return MLPClassifier((64,), max_iter=40, random_state=seed)


# ---- variants


def hostile(plain: MemberSet) -> Iterator[MemberSet]:
    """The set with members that late fusion has to survive."""
    draws = torch.Generator().manual_seed(0)
    scores = plain.members.scores
    # Values are as far from their mean as they are: noise of their size, errors of ten times it.
    centre = scores.mean() if plain.members.kind == "regression" else torch.zeros(())
    size = float(scores.std()) if plain.members.kind == "regression" else 1.0
    noise = size * torch.randn(2, *scores.shape[1:], generator=draws, dtype=torch.float64)
    variants = {
        "copies": scores[:1].repeat(3, 1, 1) + 0.01 * noise[:1],
        "useless": centre + 0.3 * noise,
        "over-confident noise": centre + 10 * noise,
        "over-confident x10": centre + 10 * (scores[:2] - centre),
        "anti-correlated": 2 * centre - scores[:1],
    }
    for title, extra in variants.items():
        yield joined(plain, title, extra)
    spoilt = scores.clone()
    first = torch.from_numpy(plain.fold == np.unique(plain.fold)[0])
    spoilt[-1, first] = centre + 8 * (scores[-1, first] - centre)
    yield with_scores(plain, "one fold spoilt", plain.members.names, spoilt)
    yield with_gaps(plain, draws)


def joined(plain: MemberSet, title: str, extra: Tensor) -> MemberSet:
    """The set with further members."""
    names = (*plain.members.names, *(f"{title} {index}" for index in range(len(extra))))
    return with_scores(plain, title, names, torch.cat([plain.members.scores, extra]))


def with_scores(plain: MemberSet, title: str, names: tuple[str, ...], scores: Tensor) -> MemberSet:
    """The set with other scores."""
    members = Members.from_logits(names, plain.members.kind, scores)
    return replace(plain, name=f"{plain.name} + {title}", members=members)


def with_gaps(plain: MemberSet, draws: torch.Generator) -> MemberSet:
    """The set with members that are absent in some clips; each clip keeps one."""
    present = torch.rand(plain.members.present.shape, generator=draws) > GAPS
    kept = torch.randint(len(present), (present.shape[1],), generator=draws)
    present[kept, torch.arange(present.shape[1])] = True
    members = replace(plain.members, present=present & plain.members.present)
    return replace(plain, name=f"{plain.name} + gaps", members=members)

"""Does the accuracy that `score` expects of a new collection hold where it is unlike the training?

    python tests/benchmarks/bench_shift.py --root ROOT --spoilt FOLDER [--other LABELS] [--draws 3]

ROOT is RAVDESS, prepared, with the features of action units, eGeMAPS and Whisper; FOLDER is what
`shifted_clips.py` wrote. Three linear members (face, voice, words of the voice) are trained on the actors
whose clips were not spoilt, or on 8 of them drawn at random, and fused by the default rule. LABELS is a CSV
of name and emotion for the clips of another corpus.

Beside the expectation of the bundle stand three of the literature, of the same rows: the difference of
confidences, the average thresholded confidence (Garg et al. 2022) and agreement on the line.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cluster.tables import vectors_of
from fusion.late.members import Members
from fusion.shift import Signals
from jobs.catalog.features import feature_folders, read_features
from jobs.catalog.manifest import read_manifest
from jobs.catalog.predictions import HeldOut
from jobs.evaluation import cross_fitting
from jobs.evaluation.expectations import expectation
from jobs.scoring.feature_range import FAR, INSIDE
from jobs.scoring.outlook import FOREIGN_SHARE

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
MEMBERS = {"face": "au_mean", "voice": "egemaps", "words": "whisper_tiny_en"}
STRENGTH = {"face": 0.1, "voice": 0.01, "words": 0.003}
FOLDS = 4
CLOSE = 0.05

Inputs = dict[str, np.ndarray]
"""Member -> features [row feature]; NaN where a row has none."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Rows of one collection."""

    inputs: Inputs
    emotion: np.ndarray
    actor: np.ndarray

    def some(self, at: np.ndarray) -> "Labelled":
        """Some rows."""
        inputs = {name: values[at] for name, values in self.inputs.items()}
        return Labelled(inputs=inputs, emotion=self.emotion[at], actor=self.actor[at])


class Stack:
    """Members trained on people, the fusion of what they say of others, and its expectation."""

    def __init__(self, rows: Labelled, seed: int) -> None:
        names = np.unique(rows.actor)
        order = np.random.default_rng(seed).permutation(len(names))
        fold = order[np.searchsorted(names, rows.actor)] % FOLDS
        said = np.zeros((len(MEMBERS), len(fold), len(EMOTIONS)))
        for part in range(FOLDS):
            at = fold == part
            models = trained(rows.some(~at))
            said[:, at] = answers(models, rows.some(at).inputs).scores
        members = Members.from_logits(tuple(MEMBERS), "classification", torch.from_numpy(said))
        held = HeldOut(
            clip_id=np.arange(len(fold)), fold=fold, target=torch.from_numpy(rows.emotion),
            members=members, group=rows.actor,
        )  # fmt: skip
        verdict = cross_fitting.cross_fitted(held, [cross_fitting.DEFAULT], fold)
        self.expectation = expectation(held, verdict, fold, rows.actor, tuple(MEMBERS))
        self.fused = cross_fitting.fit(held, cross_fitting.DEFAULT)
        self.models = trained(rows)
        self.signals = Signals.of(verdict.scores, members)
        self.right = (verdict.scores.argmax(1) == held.target).double().numpy()
        self.limits = {
            name: np.quantile(distance(self.models[name][0], values), INSIDE)
            for name, values in rows.inputs.items()
        }

    def foresee(self, rows: Labelled) -> dict[str, float]:
        """What each way expects, and what came."""
        members = answers(self.models, rows.inputs)
        scores = self.fused.combine(members)
        signals = Signals.of(scores, members)
        expected = float(self.expectation.of(signals).mean())
        people = len(np.unique(rows.actor))
        there = {n: v for n, v in rows.inputs.items() if not np.isnan(v).all()}
        foreign = max(
            float((distance(self.models[n][0], v) > self.limits[n]).mean())
            for n, v in there.items()
        )
        right = (scores.argmax(1).numpy() == rows.emotion).astype(float)
        return {
            "right": right.mean(),
            "expected": expected,
            "margin": self.expectation.margin(people, len(right), expected),
            "unusual": foreign,
            **self.others(signals),
        }

    def others(self, signals: Signals) -> dict[str, float]:
        """Three ways of the literature."""
        now, before = signals.confidence.numpy(), self.signals.confidence.numpy()
        accuracy = self.right.mean()
        threshold = np.quantile(before, 1 - accuracy)
        alike, then = signals.agreement.mean().item(), self.signals.agreement.mean().item()
        normal = torch.distributions.Normal(0.0, 1.0)
        probit = [
            float(normal.icdf(torch.tensor(x).clamp(0.01, 0.99))) for x in (accuracy, alike, then)
        ]
        return {
            "confidence": accuracy + now.mean() - before.mean(),
            "thresholded": float((now >= threshold).mean()),
            "agreement": float(normal.cdf(torch.tensor(probit[0] + probit[1] - probit[2]))),
        }


def trained(rows: Labelled) -> dict[str, tuple[StandardScaler, LogisticRegression]]:
    """A linear head an input."""
    found = {}
    for name, values in rows.inputs.items():
        scaler = StandardScaler().fit(values)
        head = LogisticRegression(C=STRENGTH[name], max_iter=150, tol=1e-3)
        found[name] = scaler, head.fit(scaler.transform(values), rows.emotion)
    return found


def answers(
    models: dict[str, tuple[StandardScaler, LogisticRegression]], inputs: Inputs
) -> Members:
    """Log-probabilities of the heads."""
    count = len(next(iter(inputs.values())))
    scores = np.zeros((len(models), count, len(EMOTIONS)))
    present = np.zeros((len(models), count), bool)
    for index, (name, (scaler, head)) in enumerate(models.items()):
        present[index] = ~np.isnan(inputs[name]).any(1)
        if present[index].any():
            some = scaler.transform(inputs[name][present[index]])
            scores[index, present[index]] = np.log(head.predict_proba(some).clip(1e-15))
    return Members.from_logits(
        tuple(models), "classification", torch.from_numpy(scores), torch.from_numpy(present)
    )


def distance(scaler: StandardScaler, values: np.ndarray) -> np.ndarray:
    """As `jobs.scoring.feature_range` has it."""
    scaled = np.abs(scaler.transform(values)).clip(max=FAR)
    return np.asarray(scaled[:, scaler.var_ > 0].mean(1))


# ---- data


def clean(root: str) -> tuple[list[str], Labelled]:
    """All clips of the dataset, by name."""
    table = read_manifest(root, ["clip_id", "name", "emotion", "speaker"]).sort_by("clip_id")
    inputs = {}
    for member, encoder in MEMBERS.items():
        (folder,) = [name for name in feature_folders(root) if name.startswith(encoder)]
        rows = read_features(root, folder).sort_by("clip_id")
        inputs[member] = vectors_of(rows["values"]).astype(np.float64)
    emotion = np.array([EMOTIONS.index(e) for e in table["emotion"].to_pylist()])
    actor = np.array([int(name.split("-")[-1]) for name in table["name"].to_pylist()])
    return table["name"].to_pylist(), Labelled(inputs=inputs, emotion=emotion, actor=actor)


def absent(rows: Labelled, *names: str) -> Labelled:
    """The rows without some inputs."""
    inputs = {n: np.full_like(v, np.nan) if n in names else v for n, v in rows.inputs.items()}
    return Labelled(inputs=inputs, emotion=rows.emotion, actor=rows.actor)


def collections(
    names: list[str], rows: Labelled, test: np.ndarray, folder: Path, other: Path | None
) -> Iterator[tuple[str, Labelled]]:
    """Clips of actors that nothing was trained on, as they are and shifted."""
    people = rows.some(test)
    yield "other actors", people
    yield "no face", absent(people, "face")
    yield "no sound", absent(people, "voice", "words")
    place = {name: index for index, name in enumerate(names)}
    for file in sorted(folder.glob("*.npz")):
        spoilt = np.load(file)
        sound = {"voice": spoilt["egemaps"], "words": spoilt["whisper"]}
        if file.stem == "other_corpus":
            if other is None:
                continue
            known = {row["name"]: row["emotion"] for row in csv.DictReader(other.open())}
            emotion = np.array([EMOTIONS.index(known[name]) for name in spoilt["name"]])
            face = np.full((len(emotion), rows.inputs["face"].shape[1]), np.nan)
            actor = np.unique([n.split("_")[0] for n in spoilt["name"]], return_inverse=True)[1]
            yield file.stem, Labelled(inputs={"face": face, **sound}, emotion=emotion, actor=actor)
            continue
        at = np.array([place[name] for name in spoilt["name"]])
        same = rows.some(at)
        title = file.stem.replace("_", " ")
        yield (
            title,
            Labelled(
                inputs={"face": same.inputs["face"], **sound},
                emotion=same.emotion,
                actor=same.actor,
            ),
        )
        yield f"{title}, no face", Labelled(
            inputs={"face": np.full_like(same.inputs["face"], np.nan), **sound},
            emotion=same.emotion, actor=same.actor,
        )  # fmt: skip


def main() -> None:
    """Print a line a collection and a summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--spoilt", type=Path, required=True)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()
    names, rows = clean(args.root)
    test = rows.actor % 3 == 0
    others = np.unique(rows.actor[~test])
    chosen = [others] + [
        np.random.default_rng(seed).choice(others, 8, replace=False) for seed in range(args.draws)
    ]
    columns = ("right", "expected", "margin", "unusual", "confidence", "thresholded", "agreement")
    print(f"{'actors':>6} {'collection':28}", *(f"{name:>11}" for name in columns), " verdict")
    for seed, actors in enumerate(chosen):
        stack = Stack(rows.some(np.isin(rows.actor, actors)), seed)
        for title, collection in collections(names, rows, test, args.spoilt, args.other):
            found = stack.foresee(collection)
            close = abs(found["right"] - found["expected"]) <= CLOSE
            inside = abs(found["right"] - found["expected"]) <= found["margin"]
            said = "within 5 points" if close else "in its interval" if inside else "OFF"
            said = "cannot tell" if found["unusual"] > FOREIGN_SHARE else said
            cells = (f"{found[name]:11.3f}" for name in columns)
            print(f"{len(actors):6} {title:28}", *cells, f" {said}", flush=True)


if __name__ == "__main__":
    main()

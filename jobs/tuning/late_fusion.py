"""Ray Tune over late fusion: rules, their options, calibrations and subsets of the members.

A trial is one candidate, judged by cross-fitting on rows that no member trained on: once for all rows, and
once without each fold, so that what is chosen for a fold is chosen by the others. Candidates are drawn
without looking at any score: a sampler that learns from scores would let a fold's rows shape what is
proposed for it. The inner numbers (weights, temperatures, stackers) are solved in the trial; they are no
dimensions of the search.

Every judged candidate has a file under `<root>/searches/<hash of members and rows>/`; a search that was
killed reads them and goes on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray import tune

from cluster import storage
from cluster.scratch import scratch_folder
from cluster.session import SessionConfig, cluster_capacity, ray_session
from fusion.late import LATE, rule_class
from fusion.late.calibration import Method
from fusion.tasks import Kind
from jobs.catalog import layout
from jobs.catalog.predictions import HeldOut
from jobs.evaluation.cross_fitting import Candidate, Judgements, PairFits
from jobs.tuning.quiet import quiet_tune

OPTIONS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "attention": {"hidden": (4, 8, 16), "decay": (3.0, 10.0, 30.0, 100.0)},
    "caruana": {
        "space": ("linear", "log"),
        "size": (10, 25, 50),
        "sorted_start": (0, 3),
        "bags": (1, 10),
    },
    "confidence": {"measure": ("entropy", "margin", "max_prob")},
    "log_pool": {"shrinkage": (0.1, 1.0, 10.0, 100.0), "bias": (False, True)},
    "mean": {},
    "mixture": {"folds": (4, 8), "prior_rows": (5.0, 25.0, 100.0)},
    "per_class": {"shrinkage": (10.0, 100.0, 1000.0), "bias": (False, True)},
    "product": {"prior": ("uniform", "fitted")},
    "stacking": {"features": ("log", "probabilities"), "C": (0.001, 0.01, 0.1, 1.0)},
    "vote": {"mode": ("hard", "weighted")},
    "weighted": {"space": ("linear", "log")},
}
"""Rule -> what its options may be."""

CALIBRATIONS: tuple[Method, ...] = ("temperature", "bias", "vector")
MEMBER_CALIBRATIONS: tuple[Method, ...] = ("none", "temperature", "vector")


class CandidateTrial(tune.Trainable):  # type: ignore[misc]
    """Judges one candidate after the other in the same process."""

    def setup(
        self,
        config: dict[str, Any],
        held: HeldOut | None = None,
        folds: np.ndarray | None = None,
        folder: str = "",
    ) -> None:
        """Once an actor.

        Args:
            config: the first candidate.
            held: the members' scores, from the object store.
            folds: fold of each row [row].
            folder: where judgements are kept.
        """
        assert held is not None
        assert folds is not None
        torch.set_num_threads(1)
        self.pairs, self.folder = PairFits(held, folds), folder
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial."""
        self.candidate = Candidate(**new_config["candidate"])
        return True

    def step(self) -> dict[str, Any]:
        """Fit it without each fold and each pair of folds."""
        found = self.pairs.judgements(self.candidate)
        pairs = [[fold, judge] for fold, judge in found.items()]
        uri = storage.join(self.folder, file_of(self.candidate))
        storage.publish_json({"candidate": self.candidate.key, "judgements": pairs}, uri)
        return {"score": found[None], "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A candidate is judged in seconds: one that was stopped is judged again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was saved."""


def drawn(kind: Kind, names: Sequence[str], count: int, seed: int) -> list[Candidate]:
    """Different candidates, at random and the same for the same seed.

    Half of them fuse all members, the others a subset of two or more.

    Args:
        kind: of the task.
        names: of the members.
        count: how many; fewer come where there are not so many.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    rules = [name for name in LATE if kind in rule_class(name).kinds]
    found: dict[str, Candidate] = {}
    for _ in range(20 * count):
        if len(found) == count:
            break
        candidate = _draw(kind, names, rules, random)
        found.setdefault(candidate.key, candidate)
    return list(found.values())


def _draw(
    kind: Kind, names: Sequence[str], rules: Sequence[str], random: np.random.Generator
) -> Candidate:
    def one(choices: Sequence[Any]) -> Any:
        return choices[int(random.integers(len(choices)))]

    rule = one(rules)
    options = {name: one(choices) for name, choices in OPTIONS[rule].items()}
    members: tuple[str, ...] = ()
    if len(names) > 2 and random.random() < 0.5:
        size = int(random.integers(2, len(names)))
        picked = set(random.choice(len(names), size, replace=False).tolist())
        members = tuple(name for index, name in enumerate(names) if index in picked)
    if kind == "regression":
        return Candidate(rule=rule, options=options, members=members)
    return Candidate(
        rule=rule,
        options=options,
        members=members,
        calibration=one(CALIBRATIONS),
        member_calibration=one(MEMBER_CALIBRATIONS),
    )


def searched(
    held: HeldOut,
    candidates: Sequence[Candidate],
    folds: np.ndarray,
    *,
    root: str,
    session: SessionConfig,
) -> dict[str, Judgements]:
    """Judgements of candidates by `Candidate.key`, made on all CPUs of the session where they are missing.

    Args:
        held: members' scores on rows they did not train on.
        candidates: what is judged.
        folds: fold of each row [row].
        root: of the dataset.
        session: of Ray.
    """
    folder = layout.search_uri(root, identity(held, folds))
    there = set(storage.names(folder, ".json"))
    todo = [candidate for candidate in candidates if file_of(candidate) not in there]
    if todo:
        rest = f", {len(candidates) - len(todo)} are there" if len(todo) < len(candidates) else ""
        print(f"{len(todo)} candidates to judge{rest}")
        with ray_session(session):
            run(held, todo, folds, folder)
    return {candidate.key: _read(folder, candidate) for candidate in candidates}


def run(held: HeldOut, todo: Sequence[Candidate], folds: np.ndarray, folder: str) -> None:
    """Hand the candidates to Ray Tune."""
    quiet_tune()
    trainable = tune.with_parameters(CandidateTrial, held=held, folds=folds, folder=folder)
    space = {"candidate": tune.grid_search([_plain(candidate) for candidate in todo])}
    with scratch_folder() as local:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="score",
                mode="min",
                max_concurrent_trials=max(1, int(cluster_capacity().cpus)),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="late",
                storage_path=local
                if storage.is_local(folder)
                else storage.join(folder, layout.RAY_STATE),
                verbose=0,
            ),
        )
        failed = [result.error for result in tuner.fit() if result.error is not None]
    if failed:
        raise failed[0]


def identity(held: HeldOut, folds: np.ndarray) -> str:
    """Twelve hex digits over the rows and what the members say of them."""
    digest = hashlib.sha256("\n".join(held.members.names).encode())
    for values in (held.clip_id, folds, held.target, held.members.scores, held.members.present):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:12]


def file_of(candidate: Candidate) -> str:
    """The name of a candidate's file."""
    return hashlib.sha256(candidate.key.encode()).hexdigest()[:16] + ".json"


def _read(folder: str, candidate: Candidate) -> Judgements:
    content = storage.read_json(storage.join(folder, file_of(candidate)))
    return {fold: float(judge) for fold, judge in content["judgements"]}


def _plain(candidate: Candidate) -> dict[str, Any]:
    return {name: getattr(candidate, name) for name in Candidate.__dataclass_fields__}

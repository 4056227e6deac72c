"""A search ends when its time is up or nothing was gained for long; people are asked, not luck."""

import functools
import json

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage
from cluster.tables import PREDICTIONS
from jobs import train
from jobs.catalog.manifest import read_dataset, read_folds, read_manifest
from jobs.tuning.ending import Ending, Patience
from jobs.tuning.space import BASELINE
from jobs.tuning.trial_records import Record, trial_uri

INPUTS = ["voice", "face"]


@pytest.fixture
def base(root):
    return train.Config(root=root, inputs=("voice",), tasks=("emotion",), folds="speaker", run="t")


def ended(base, number: int, sharpness: float, state: str = "finished", **values) -> Record:
    """A trial whose net is right with log odds `sharpness` over noise that most nets share."""
    clips, known, folds = labels(base.root)
    shape = (len(known), 3)
    scores = 2 * np.random.default_rng(0).standard_normal(shape)
    scores += 0.1 * np.random.default_rng(number).standard_normal(shape)
    scores[np.arange(len(known)), known] += sharpness
    rows = {
        "clip_id": clips,
        "run": ["t"] * len(known),
        "split": pa.nulls(len(known), pa.string()),
        "fold": folds,
        "seed": [0] * len(known),
        "task": ["emotion"] * len(known),
        "target": [[float(value)] for value in known],
        "role": ["oof"] * len(known),
        "scores": scores.tolist(),
    }
    storage.publish_table(PREDICTIONS.conform(pa.table(rows)), trial_uri(base, number, ".parquet"))
    nll = float(np.mean(np.log(np.exp(scores).sum(1)) - scores[np.arange(len(known)), known]))
    return Record(
        number=number, state=state, score=nll, steps=3, seconds=1.0,
        values={"net": "gated", "inputs": INPUTS, **values},
    )  # fmt: skip


@functools.cache
def labels(root: str) -> tuple[list[int], np.ndarray, list[int]]:
    """Clips that are in a fold, their classes and folds."""
    folds = read_folds(root, "speaker")
    table = read_manifest(root, ["clip_id", "emotion", "split"]).to_pydict()
    classes = list(read_dataset(root).tasks["emotion"].classes)
    kept = [
        (clip, classes.index(label), folds[clip])
        for clip, label, split in zip(
            table["clip_id"], table["emotion"], table["split"], strict=True
        )
        if split != "test" and clip in folds and label is not None
    ]
    clips, known, fold = (list(values) for values in zip(*kept, strict=True))
    return clips, np.array(known), fold


def patience_of(base, patience: int = 6) -> Patience:
    task = read_dataset(base.root).tasks["emotion"]
    return Patience(base, ("emotion", task), keep=4, patience=patience, first=1)


def baseline(base) -> Record:
    return ended(base, 0, 0.0, net=BASELINE)


class TestPatience:
    def test_trials_that_are_worse_end_it(self, base):
        found = patience_of(base)
        found.go_on([baseline(base), *(ended(base, n, 0.0) for n in range(1, 4))])
        for number in range(4, 14):
            found.see(ended(base, number, -2.0, state="pruned"))
        assert found.is_over
        assert found.said == "the last 6 trials gained nothing"

    def test_a_clear_gain_keeps_it_going(self, base):
        found = patience_of(base)
        found.go_on([baseline(base)])
        for number in range(1, 12):
            found.see(ended(base, number, 0.2 * number))
        assert not found.is_over

    def test_more_of_the_same_is_no_gain_though_the_best_of_many_looks_better(self, base):
        ledger = [ended(base, number, 0.0) for number in range(30)]
        ledger[0] = ended(base, 0, 0.0, net=BASELINE)
        found = patience_of(base)
        found.go_on(ledger)
        assert found.is_over

    def test_it_waits_until_baselines_and_as_many_trials_as_were_said_have_ended(self, base):
        found = patience_of(base, 6)
        found.go_on([baseline(base), *(ended(base, n, -2.0) for n in range(1, 6))])
        assert not found.is_over

    def test_none_asked_for_never_ends(self, base):
        found = patience_of(base, 0)
        found.go_on([baseline(base), *(ended(base, n, -2.0) for n in range(1, 30))])
        assert not found.is_over

    def test_where_nothing_was_finished_it_goes_on(self, base):
        found = patience_of(base)
        found.go_on([ended(base, n, 0.0, state="failed") for n in range(20)])
        assert not found.is_over


class TestEnding:
    def test_it_says_why(self, base):
        left = [5.0]
        ending = Ending(lambda: left[0], patience_of(base))
        assert not ending.stop_all()
        left[0] = -1.0
        assert ending.stop_all()
        assert ending.reason == "the time is up"

    def test_a_trial_is_never_ended_alone(self, base):
        assert not Ending(lambda: -1.0, patience_of(base))("trial", {"score": 1.0})

    def test_the_reason_is_plain_text(self, base):
        json.dumps(Ending(lambda: 0.0, patience_of(base)).reason)

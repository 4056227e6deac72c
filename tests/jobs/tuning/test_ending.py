"""A search ends when its time is up or nothing was gained for long; people are asked, not luck."""

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage
from cluster.tables import PREDICTIONS
from fusion.tasks import Task
from jobs import train
from jobs.catalog.manifest import read_folds
from jobs.tuning.ending import Ending, Patience
from jobs.tuning.space import BASELINE
from jobs.tuning.trial_records import Record, trial_uri

TASKS = {
    "classification": Task(kind="classification", classes=("a", "b", "c")),
    "multilabel": Task(kind="multilabel", classes=("a", "b", "c")),
    "regression": Task(kind="regression"),
}


class Ledger:
    """Trials whose nets have a signal in noise that they share."""

    def __init__(self, root: str, kind: str = "classification", folds: str | None = "speaker"):
        self.base = train.Config(root=root, inputs=("voice",), folds=folds, run="t")
        self.kind, self.task = kind, TASKS[kind]
        known = read_folds(root, "speaker")
        self.clips = np.array(sorted(known))
        self.fold = [known[clip] if folds else 0 for clip in self.clips.tolist()]
        draws = np.random.default_rng(0)
        width = self.task.outputs
        self.noise = 2 * draws.standard_normal((len(self.clips), width))
        self.target = {
            "classification": draws.integers(3, size=(len(self.clips), 1)),
            "multilabel": draws.integers(2, size=(len(self.clips), width)),
            "regression": draws.standard_normal((len(self.clips), 1)),
        }[kind].astype(float)

    def ended(self, number: int, signal: float, state: str = "finished", net="gated") -> Record:
        """A trial with so much signal; the best score to the strongest one."""
        signs = {
            "classification": lambda t: np.eye(3)[t[:, 0].astype(int)],
            "multilabel": lambda t: 2 * t - 1,
            "regression": lambda t: t,
        }[self.kind](self.target)
        scores = self.noise + signal * signs
        if self.kind == "regression":
            scores = self.target + self.noise / (1 + signal)
        count = len(self.clips)
        rows = {
            "clip_id": self.clips,
            "run": ["t"] * count,
            "split": pa.nulls(count, pa.string()),
            "fold": self.fold,
            "seed": [0] * count,
            "task": ["label"] * count,
            "target": self.target.tolist(),
            "role": ["oof" if self.base.folds else "valid"] * count,
            "scores": scores.tolist(),
        }
        table = PREDICTIONS.conform(pa.table(rows))
        storage.publish_table(table, trial_uri(self.base, number, ".parquet"))
        return Record(
            number=number, state=state, score=-signal - 1e-6 * number, steps=3, seconds=1.0,
            values={"net": net, "inputs": ["voice"]},
        )  # fmt: skip

    def baseline(self) -> Record:
        """The first trial."""
        return self.ended(0, 0.0, net=BASELINE)

    def patience(self, trials: int = 6) -> Patience:
        return Patience(self.base, ("label", self.task), keep=4, patience=trials, first=1)


@pytest.fixture
def some(root):
    return Ledger(root)


@pytest.fixture(
    params=[(kind, folds) for kind in TASKS for folds in ("speaker", None)],
    ids=lambda param: f"{param[0]}, {'folds' if param[1] else 'one split'}",
)
def any_kind(root, request):
    return Ledger(root, *request.param)


class TestPatience:
    def test_trials_that_are_worse_end_it(self, some):
        found = some.patience()
        found.go_on([some.baseline(), *(some.ended(n, 0.0) for n in range(1, 4))])
        for number in range(4, 14):
            found.see(some.ended(number, -1.0, state="pruned"))
        assert found.is_over
        assert found.said == "the last 6 trials gained nothing"

    def test_a_clear_gain_keeps_it_going(self, any_kind):
        found = any_kind.patience()
        found.go_on([any_kind.baseline()])
        for number in range(1, 12):
            found.see(any_kind.ended(number, 0.2 * number))
        assert not found.is_over

    def test_more_of_the_same_is_no_gain(self, any_kind):
        found = any_kind.patience()
        same = [any_kind.ended(number, 1.0) for number in range(1, 20)]
        found.go_on([any_kind.baseline(), *same])
        assert found.is_over

    def test_it_waits_until_baselines_and_as_many_trials_as_were_said_have_ended(self, some):
        found = some.patience(6)
        found.go_on([some.baseline(), *(some.ended(n, -1.0) for n in range(1, 6))])
        assert not found.is_over

    def test_none_asked_for_never_ends(self, some):
        found = some.patience(0)
        found.go_on([some.baseline(), *(some.ended(n, -1.0) for n in range(1, 30))])
        assert not found.is_over

    def test_where_nothing_was_finished_it_goes_on(self, some):
        found = some.patience()
        found.go_on([some.ended(n, 0.0, state="failed") for n in range(20)])
        assert not found.is_over


class TestEnding:
    def test_it_says_why(self, some):
        left = [5.0]
        ending = Ending(lambda: left[0], some.patience())
        assert not ending.stop_all()
        left[0] = -1.0
        assert ending.stop_all()
        assert ending.reason == "the time is up"

    def test_a_trial_is_never_ended_alone(self, some):
        assert not Ending(lambda: -1.0, some.patience())("trial", {"score": 1.0})

"""What leaves the finite numbers stops its part with one line; it is never kept as best, nor published."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from cluster import settings, storage
from cluster.errors import NotPreparedError
from cluster.session import SessionConfig, ray_session
from fusion.training import loop, trainer
from jobs import tune
from jobs.__main__ import run as affuse
from jobs.tuning import run_trials, trainable, work
from jobs.tuning.deadline import Deadline
from jobs.tuning.hold import Hold
from jobs.tuning.space import read_space
from jobs.tuning.standing import Standing
from jobs.tuning.trial_records import WORST, Record, read_ledger, trial_uri

LARGE = "1e30"


def train(root: str, *more: str) -> int:
    return affuse(
        [
            "train", "--root", root, "--inputs", "voice", "face", "--net-options", "hidden=8",
            "--pool", "mean", "--epochs", "3", "--run", "r", "--no-tracking", *more,
        ]
    )  # fmt: skip


def published(root: str) -> list[Path]:
    found = [*Path(root, "runs").rglob("*.safetensors"), *Path(root, "runs").rglob("*.parquet")]
    return [*found, *Path(root, "runs").rglob("checkpoint.pt")]


class TestTrain:
    @pytest.mark.parametrize("net", ["concat_mlp", "gated", "lstm", "tfn"])
    def test_a_net_that_diverges_ends_in_one_line_and_leaves_nothing(self, root, net, capsys):
        inputs = ["--inputs", "voice"] if net == "lstm" else []
        assert train(root, "--net", net, "--lr", LARGE, "--checkpoint-s", "0", *inputs) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{net}, fold 0 seed 0: training diverged" in line
        assert "in epoch 1 at learning rate 1e+30" in line
        assert "type a smaller --lr" in line
        assert published(root) == []

    @pytest.mark.parametrize(
        "more",
        [
            ("--folds", "speaker"),
            ("--folds", "speaker", "--valid-share", "0"),
            ("--patience", "0"),
            ("--monitor", "macro_f1", "--tasks", "emotion"),
            ("--schedule", "plateau"),
            ("--precision", "bfloat16"),
            ("--optimiser", "sgd", "--clip-norm", "0"),
        ],
    )
    def test_whatever_chooses_the_epoch(self, root, more, capsys):
        assert train(root, "--lr", LARGE, *more) == 1
        assert "training diverged" in capsys.readouterr().err
        assert published(root) == []

    def test_a_refit_that_diverges_is_not_published_either(self, root, monkeypatch, capsys):
        once = ("--folds", "speaker", "--epochs", "1")
        assert train(root, *once, "--no-refit") == 0
        before = set(published(root))

        class Far(trainer.Trainer):
            """Its weights are finite, and what the net says is not."""

            def _judge(self, record):
                for parameter in self.predictor.net.parameters():
                    parameter.data.fill_(1e30)
                super()._judge(record)

        monkeypatch.setattr(loop, "Trainer", Far)
        assert train(root, *once) == 1
        line = capsys.readouterr().err
        assert "refit seed 0: training diverged, a prediction is not finite" in line
        assert set(published(root)) == before

    def test_the_name_is_free_for_another_learning_rate(self, root):
        assert train(root, "--lr", LARGE, "--checkpoint-s", "0") == 1
        assert train(root, "--lr", "1e-3") == 0


class TestWhatIsRead:
    def spoil(self, root: str, name: str, clip: int, value: float) -> None:
        uri = f"{root}/features/{name}-1/rows.parquet"
        table = storage.read_table(uri)
        rows = table["values"].to_pylist()
        rows[clip - 100][0][0] = value
        column = pa.array(rows, table.schema.field("values").type)
        at = table.column_names.index("values")
        storage.publish_table(table.set_column(at, "values", column), uri)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("more", [(), ("--pool", "none"), ("--memory-gb", "1e-9")])
    def test_a_step_that_is_not_finite_is_named_and_counts_as_missing(
        self, root, value, more, tmp_path, capsys
    ):
        self.spoil(root, "voice", 105, value)
        assert train(root, "--cache", str(tmp_path), *more) == 0
        said = capsys.readouterr().out
        assert "features voice-1: 1 steps of 1 clips hold numbers that are not finite" in said
        assert "first: clip 105" in said

    def test_a_table_without_a_finite_number_is_refused(self, root, capsys):
        uri = f"{root}/features/face-1/rows.parquet"
        table = storage.read_table(uri)
        rows = [[[float("nan")] * 4 for _ in row] for row in table["values"].to_pylist()]
        column = pa.array(rows, table.schema.field("values").type)
        at = table.column_names.index("values")
        storage.publish_table(table.set_column(at, "values", column), uri)
        assert train(root) == 1
        assert "features face-1" in (line := capsys.readouterr().err)
        assert "no clip has others" in line

    def test_a_label_that_is_not_finite_is_refused_by_name(self, root, capsys):
        uri = f"{root}/manifest/abc/part-0.parquet"
        table = storage.read_table(uri)
        values = table["arousal"].to_pylist()
        values[3] = float("inf")
        at = table.column_names.index("arousal")
        storage.publish_table(table.set_column(at, "arousal", pa.array(values)), uri)
        assert train(root) == 2
        line = capsys.readouterr().err
        assert "task 'arousal': the labels of 1 clips are not finite (first: clip 103)" in line


SPACE = {"lr": [1e-3, 1e30], "net": ["concat_mlp"]}


def search(root: str, **changes) -> tune.Config:
    space = Path(root, "space.json")
    space.write_text(json.dumps(SPACE))
    plain = tune.Config(
        root=root, inputs=("voice", "face"), tasks=("emotion",), pool="mean", folds="speaker",
        epochs=2, run="t", space=str(space), trials=4, search="random", keep=1, member_seeds=(0,),
        ensemble=False, tracking=False, parallel=1,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


class TestTrial:
    """A trial as the actor of a search runs it, and what the search makes of it."""

    @pytest.mark.parametrize(
        ("changes", "score", "reason"),
        [
            ({"lr": 1e30}, "nll", "fold 0 seed 0: training diverged"),
            ({}, "pearson", "pearson has no value"),
        ],
        ids=["diverged", "no value"],
    )
    def test_one_that_has_no_score_is_recorded_as_failed_and_can_be_gone_on_from(
        self, root, changes, score, reason, monkeypatch
    ):
        task = "arousal" if score == "pearson" else "emotion"
        base = tune.base_of(search(root, tasks=(task,)), SPACE)
        space = read_space(SPACE, base)
        trial = object.__new__(trainable.Trial)
        if score == "pearson":
            monkeypatch.setattr(work, "judged", lambda *_: (torch.ones(4), torch.ones(4)))
        trial.setup(
            {"number": 0, "values": changes},
            library=run_trials.load_library(base, space),
            base=settings.to_mapping(base),
            steps=work.steps_of(base),
            score=score,
        )
        result = trial.step()
        assert (result["state"], result["score"], result["done"]) == (
            "failed",
            WORST,
            True,
        )
        assert reason in result["error"]

        def searcher():
            return trainable.Search(
                space,
                base,
                partial(trainable.sampler_of, "random"),
                read_ledger(base),
                lambda _record: None,
                Standing(base, 8, read_ledger(base)),
            )

        found = searcher()
        found.suggest("a")
        found.on_trial_result("a", result)
        found.on_trial_complete("a", result)
        (record,) = read_ledger(base)
        assert (record.state, record.score) == ("failed", WORST)
        assert searcher().suggest("b")["number"] == 1


@pytest.mark.slow
@pytest.mark.ray
class TestTune:
    @pytest.fixture(scope="class")
    def session(self):
        with ray_session(SessionConfig(num_cpus=2)):
            yield SessionConfig(num_cpus=2)

    def test_a_trial_that_diverges_is_recorded_as_failed_and_the_search_goes_on(
        self, root, session
    ):
        tune.main(search(root, session=session))
        records = read_ledger(tune.base_of(search(root), SPACE))
        assert len(records) == 4
        far = [record for record in records if record.values.get("lr") == 1e30]
        assert 0 < len(far) < 4
        assert {record.state for record in far} == {"failed"}
        assert all("training diverged" in record.error for record in far)
        assert {r.state for r in records if r.values.get("lr") != 1e30} <= {"finished", "pruned"}
        # A ledger with failed trials is one to go on from.
        tune.main(search(root, session=session, trials=5))
        assert len(read_ledger(tune.base_of(search(root), SPACE))) == 5


def test_a_search_of_which_every_trial_failed_says_why(root):
    asked = search(root)
    base = tune.base_of(asked, SPACE)
    failed = Record(
        number=0, state="failed", score=WORST, steps=0, seconds=0.0, values={},
        error="fold 0 seed 0: training diverged",
    )  # fmt: skip
    storage.publish_json(dataclasses.asdict(failed), trial_uri(base, 0, ".json"))
    job = tune.SearchJob(
        config=asked,
        base=base,
        space=read_space(SPACE, base),
        tracker=None,
        deadline=Deadline(began=0.0, budget_s=None),
        hold=Hold("", {}),
    )
    with pytest.raises(NotPreparedError, match=r"no trial of 't' was finished.*diverged"):
        tune.keep_best(job, tune.SearchEnd())


def test_a_space_that_is_not_there_blames_its_own_flag(root, capsys):
    assert affuse(["tune", "--root", root, "--inputs", "voice", "--space", "missing.yaml"]) == 2
    assert "--space missing.yaml: there is no such file" in capsys.readouterr().err

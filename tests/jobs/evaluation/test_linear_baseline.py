"""A linear model of the same features stands beside every table of results, or the command that makes it."""

import re
import shlex

import pyarrow as pa
import pytest

from cluster import storage
from cluster.errors import ConfigError, WeightsError
from encoders.registry import describe
from fusion.tasks import Task
from jobs import train
from jobs.__main__ import run
from jobs.catalog.manifest import read_dataset
from jobs.catalog.predictions import held_out, read_predictions
from jobs.evaluation import linear_baseline
from jobs.evaluation.linear_baseline import (
    OF_STATES,
    TITLE,
    linear_command,
    linear_on,
    linear_runs,
    to_be_made,
)
from jobs.evaluation.sibling_runs import run_configs

RUNS = ("hunt-00003", "hunt-00004")


def config(root, run, *inputs, **changes):
    plain = {
        "tasks": ("emotion",), "net_options": {"hidden": 4}, "epochs": 1, "pool": "mean",
        "folds": "speaker", "tracking": False, "workers": 0,
    }  # fmt: skip
    return train.Config(root=root, run=run, inputs=inputs, **{**plain, **changes})


@pytest.fixture(scope="module")
def made(write_root, tmp_path_factory):
    """A root with two runs."""
    root = write_root(str(tmp_path_factory.mktemp("linear") / "small"))
    for run_, name in zip(RUNS, ("voice", "face"), strict=True):
        train.main(config(root, run_, name))
    return root


def baseline(root, *runs):
    task = read_dataset(root).tasks["emotion"]
    held = held_out(root, runs, "emotion", task)
    return linear_on(root, run_configs(root), runs, held, "emotion", task)


def said(capsys, root, job, *runs):
    words = [job, "--root", root, "--runs", *runs, "--task", "emotion", "--resamples", "100"]
    assert run(words) == 0
    return capsys.readouterr().out


def test_of_a_search_it_is_the_trial_on_all_features_of_the_members(made):
    assert baseline(made, *RUNS).scores is None
    table = read_predictions(made, RUNS[0], roles=("oof",))
    storage.publish_table(table, f"{made}/runs/hunt/trials/00002.parquet")
    trials = {
        "number": [0, 2, 5], "state": ["finished", "finished", "pruned"],
        "value/net": ["linear", "linear", "lmf"],
        "value/inputs": ['["voice"]', '["voice", "face"]', '["voice", "face"]'],
    }  # fmt: skip
    storage.publish_table(pa.table(trials), f"{made}/runs/hunt/trials.parquet")
    found = baseline(made, *RUNS)
    assert found.said == f"{TITLE}: trial 2 of hunt"
    assert int(found.scores.isfinite().all(1).sum()) == table.num_rows
    storage.remove(f"{made}/runs/hunt/trials.parquet")


def test_every_table_says_the_command_that_makes_it_and_then_has_its_line(made, capsys):
    commands = set()
    for job, runs in {"ensemble": RUNS, "evaluate": RUNS[:1]}.items():
        found = re.search(
            rf"no {TITLE} is there; type: affuse (.*)", said(capsys, made, job, *runs)
        )
        commands.add(found[1])
    assert baseline(made, *RUNS).command.removeprefix("affuse ") in commands
    for command in commands:
        assert run([*shlex.split(command), "--no-tracking"]) == 0
    for job, runs in {"ensemble": RUNS, "evaluate": RUNS[:1], "report": RUNS}.items():
        out = said(capsys, made, job, *runs)
        line = next(line for line in out.splitlines() if TITLE in line and "│" in line)
        assert len(re.findall(r"\d\.\d", line)) > 2
        assert re.search(rf"{TITLE}: run linear-\w+", out)
    folder = f"{made}/reports/{'-'.join(RUNS)}"
    page = storage.read_bytes(f"{folder}/report.html").decode()
    assert "Linear on the same features: run linear-" in page
    assert storage.read_bytes(f"{folder}/results.csv").count(TITLE.encode()) == 1


def test_where_it_stands_among_the_members_nothing_is_said(made):
    linear = [name for name, its in run_configs(made).items() if its.get("net") == "linear"]
    assert baseline(made, *RUNS, *linear).said == ""


MOOD = Task(kind="classification", classes=("x", "y"))
SHAPE = {"net": "lmf", "inputs": ["a", "b"], "folds": "f", "normalise": "none", "share": 1.0}


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"inputs": ["b", "a"]}, True),
        ({"net": "lmf"}, False),
        ({"inputs": ["a"]}, False),
        ({"inputs": ["a", "b", "c"]}, False),
        ({"folds": "g"}, False),
        ({"folds": None}, False),
        ({"normalise": "speaker"}, False),
        ({"share": 0.5}, False),
        ({"tasks": ["u"]}, False),
    ],
)
def test_only_a_run_of_the_same_features_and_folds_is_taken(tmp_path, changes, fits):
    root = str(tmp_path)
    configs = {"one": SHAPE, "other": {**SHAPE, "net": "linear", **changes}}
    assert linear_runs(root, configs, ["one"], "t", MOOD) == []  # it has not ended
    storage.publish_json({}, f"{root}/runs/other/summary.json")
    assert linear_runs(root, configs, ["one"], "t", MOOD) == (["other"] if fits else [])


@pytest.mark.parametrize(
    ("noted", "named", "fits"),
    [
        ({}, [], True),
        ({}, ["t", "u"], True),
        ({}, ["u"], False),
        ({"t": ["x", "y"], "u": ["z", "w"]}, [], True),
        ({"u": ["x", "y"]}, [], False),
        ({"t": ["y", "x"]}, ["t"], False),
    ],
)
def test_only_a_run_of_the_task_and_its_labels_is_taken(tmp_path, noted, named, fits):
    root = str(tmp_path)
    configs = {"one": SHAPE, "other": {**SHAPE, "net": "linear", "tasks": named}}
    kinds = {name: {"kind": "classification", "classes": each} for name, each in noted.items()}
    storage.publish_json({}, f"{root}/runs/other/summary.json")
    storage.publish_json(kinds, f"{root}/runs/other/tasks.json")
    assert linear_runs(root, configs, ["one"], "t", MOOD) == (["other"] if fits else [])


def test_the_command_says_what_the_members_share():
    configs = {
        "a": {**SHAPE, "inputs": ["my voice"], "normalise": "speaker"},
        "b": {**SHAPE, "inputs": ["face"], "normalise": "speaker"},
        "c": {**SHAPE, "folds": None},
    }
    assert linear_command("r", configs, ["a", "b"], "t") == (
        "affuse train --root r --net linear --inputs face 'my voice' --folds f --normalise speaker"
    )
    assert linear_command("r", configs, ["a", "c"], "t") == ""  # they were held out by other folds
    assert linear_command("r", configs, ["elsewhere"], "t") == ""
    configs["d"] = {**SHAPE, "tasks": ["t", "u"]}
    assert linear_command("r", configs, ["d"], "t").endswith("--folds f --tasks t")


@pytest.mark.parametrize(
    ("job", "named"), [("ensemble", ["arousal"]), ("evaluate", []), ("report", ["arousal"])]
)
def test_beside_linear_runs_of_other_tasks_the_advice_leads_to_its_line(
    write_root, tmp_path, capsys, job, named
):
    root = write_root(str(tmp_path / "small"))
    runs = RUNS[:1]
    train.main(config(root, runs[0], "voice", tasks=tuple(named)))
    linear = {"net": "linear", "net_options": {}, "pool": "none"}
    train.main(config(root, "a_linear", "voice", tasks=("emotion",), **linear))
    words = [job, "--root", root, "--runs", *runs, "--task", "arousal", "--resamples", "100"]
    assert run(words) == 0
    said = re.search(rf"no {TITLE} is there; type: affuse (.*)", capsys.readouterr().out)
    assert run([*shlex.split(said[1]), "--no-tracking"]) == 0
    capsys.readouterr()
    assert run(words) == 0
    out = capsys.readouterr().out
    assert re.search(rf"{TITLE}: run linear-\w+", out)
    assert f"no {TITLE}" not in out


def tuned(root, *texts):
    """A config of a net that trains encoders, and the tables that it reads, without rows."""
    for text in texts:
        if "publish=inputs" in text:
            published = describe(text)
            uri = f"{root}/features/{published.folder}/descriptor.json"
            storage.publish_json(published.facts(), uri)
    return {"tuned": {**SHAPE, "net": "finetune", "inputs": list(texts)}}


class TestBesideANetThatTrainsItsEncoders:
    """What it reads are states of these encoders, of which there may be no table."""

    def test_the_states_are_encoded_first_and_called_so(self, root):
        configs = tuned(root, "minilm:publish=inputs", "whisper_tiny_en:publish=inputs", "voice")
        found = to_be_made(root, configs, ["tuned"], "t")
        assert found.said == (
            f"no {OF_STATES} is there; type: affuse encode --root {root} --encoders minilm whisper_tiny_en"
            f" && affuse train --root {root} --net linear --inputs minilm voice whisper_tiny_en --folds f"
        )
        assert "same features" not in found.said

    def test_states_that_are_there_are_not_encoded_again(self, root):
        configs = tuned(root, "minilm:publish=inputs", "whisper_tiny_en:loud=30,publish=inputs")
        states = describe("minilm")
        storage.publish_json(states.facts(), f"{root}/features/{states.folder}/descriptor.json")
        command = linear_command(root, configs, ["tuned"], "t")
        assert "--encoders whisper_tiny_en:loud=30 && " in command
        states = describe("whisper_tiny_en:loud=30")
        storage.publish_json(states.facts(), f"{root}/features/{states.folder}/descriptor.json")
        command = linear_command(root, configs, ["tuned"], "t")
        assert command.startswith("affuse train ")

    def test_a_table_that_was_typed_by_its_folder_is_known_as_well(self, root):
        published = describe("minilm:publish=inputs")
        tuned(root, "minilm:publish=inputs")
        configs = {"tuned": {**SHAPE, "net": "finetune", "inputs": [published.folder]}}
        found = to_be_made(root, configs, ["tuned"], "t")
        assert found.title == OF_STATES
        assert "--encoders minilm && " in found.command
        assert "--inputs minilm --folds" in found.command

    def test_words_that_were_heard_are_heard_by_the_same_transcriber(self, root):
        ear = describe("whisper_tiny_en_asr")
        storage.publish_json(ear.facts(), f"{root}/transcripts/{ear.folder}/descriptor.json")
        configs = tuned(root, "minilm:publish=inputs", "whisper_tiny_en:publish=inputs")
        published = describe("minilm:publish=inputs", upstream=(ear.fingerprint,))
        storage.remove_tree(f"{root}/features/{describe('minilm:publish=inputs').folder}")
        storage.publish_json(
            published.facts(), f"{root}/features/{published.folder}/descriptor.json"
        )
        command = linear_command(root, configs, ["tuned"], "t")
        encoded = [each for each in command.split(" && ") if each.startswith("affuse encode")]
        assert encoded == [
            f"affuse encode --root {root} --encoders whisper_tiny_en",
            f"affuse encode --root {root} --encoders minilm --transcriber whisper_tiny_en_asr",
        ]

    def test_places_that_need_quotes_are_quoted(self, tmp_path):
        root = str(tmp_path / "my data")
        texts = "hub_embedding:preset=qwen3_0_6b,prompt=A mood: ,publish=inputs"
        configs = {"tuned": {**SHAPE, "net": "finetune", "inputs": [texts]}}
        encode, train_ = linear_command(root, configs, ["tuned"], "t").split(" && ")
        states = "hub_embedding:preset=qwen3_0_6b,prompt=A mood: "
        assert shlex.split(encode) == ["affuse", "encode", "--root", root, "--encoders", states]
        assert shlex.split(train_)[:4] == ["affuse", "train", "--root", root]
        assert states in shlex.split(train_)

    def test_features_that_are_gone_are_made_again(self, root):
        configs = {"one": {**SHAPE, "inputs": ["egemaps", "voice"]}}
        found = to_be_made(root, configs, ["one"], "t")
        assert found.title == TITLE
        assert f"affuse encode --root {root} --encoders egemaps && affuse train" in found.command


@pytest.mark.parametrize("error", [WeightsError("changed"), ConfigError("several have that name")])
def test_a_table_whose_encoder_cannot_be_described_any_more_ends_no_job(error, monkeypatch):
    def refuse(*_):
        raise error

    monkeypatch.setattr(linear_baseline, "resolve_features", refuse)
    assert linear_baseline._is_there("root", "bert_base:weights=file:///gone")
    assert linear_baseline._folder("root", "bert_base:weights=file:///gone") == ""

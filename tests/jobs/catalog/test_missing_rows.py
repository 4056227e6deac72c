"""A table that lacks rows is refused by every reader, with their number and the command to type."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cluster import storage
from cluster.errors import NotPreparedError
from encoders import ENCODERS
from encoders.registry import describe
from jobs import tune
from jobs.__main__ import run
from jobs.catalog.features import read_features, read_transcripts
from jobs.catalog.missing_rows import command_of, typed
from jobs.scoring.elsewhere import folder_elsewhere

TRAIN = ("--inputs", "voice", "--tasks", "emotion", "--run", "half", "--no-tracking")
READERS = {
    "train": ["train", *TRAIN, "--epochs", "1"],
    "tune": ["tune", "--inputs", "voice", "--tasks", "emotion", "--trials", "1", "--no-tracking"],
    "export": ["features", "export", "--inputs", "audio=voice", "--task", "emotion"],
}


def drop(root: str, clips: range, name: str = "voice") -> None:
    """The rows of some clips are gone, as an encode leaves it that was killed."""
    uri = f"{root}/features/{name}-1/rows.parquet"
    table = storage.read_table(uri)
    kept = pc.invert(pc.is_in(table["clip_id"], pa.array(list(clips), pa.int64())))
    storage.publish_table(table.filter(kept), uri)


@pytest.mark.parametrize("reader", READERS)
def test_every_job_that_reads_features_refuses_half_of_them(
    root, reader, capsys, monkeypatch, tmp_path
):
    drop(root, range(100, 124))
    monkeypatch.setattr(tune, "ray_session", None)  # it would fail if it were started
    out = ["--out", str(tmp_path / "out.npz")] if reader == "export" else []
    assert run([*READERS[reader], "--root", root, *out]) == 1
    said = capsys.readouterr().err
    assert "24 of 72 clips have no row" in said
    assert f"affuse encode --root {root} --encoders voice" in said
    assert not Path(root, "runs", "half", "history.jsonl").exists()


def test_what_was_refused_runs_once_the_rows_are_there(root, capsys):
    whole = Path(root, "features/voice-1/rows.parquet").read_bytes()
    drop(root, range(100, 124))
    assert run([*READERS["train"], "--root", root]) == 1
    Path(root, "features/voice-1/rows.parquet").write_bytes(whole)
    assert run([*READERS["train"], "--root", root]) == 0
    assert "nothing to do" not in capsys.readouterr().out


def test_evaluate_refuses_features_that_lost_rows_after_training(root, capsys):
    assert run([*READERS["train"], "--root", root]) == 0
    drop(root, range(160, 164))  # of the test split
    assert run(["evaluate", "--root", root, "--runs", "half", "--task", "emotion"]) == 1
    assert "4 of 72 clips have no row" in capsys.readouterr().err


def test_one_clip_that_lacks_is_refused_also_where_others_are_asked_for(root):
    drop(root, range(171, 172))
    with pytest.raises(NotPreparedError, match="1 of 72 clips"):
        read_features(root, "voice-1", [100, 101], ["clip_id", "status"])


def test_a_table_of_no_rows_at_all_is_refused(root):
    shutil.rmtree(f"{root}/features/voice-1")
    storage.publish_json(
        {"name": "voice", "options": {}}, f"{root}/features/voice-1/descriptor.json"
    )
    with pytest.raises(NotPreparedError, match="72 of 72 clips"):
        read_features(root, "voice-1")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("egemaps", "type: affuse encode --root {root} --encoders egemaps"),
        ("audio=egemaps", "'audio' and '='; type: affuse encode --root {root} --encoders egemaps"),
        ("audio=voice", "'audio' and '='; type: voice"),
        ("audio=toy", "features import --root {root} --name toy --file"),
        ("mood=voice", "no encoder is called 'mood=voice'"),
        ("egemap", "no encoder is called 'egemap'; did you mean 'egemaps'?"),
        ("voise", "no encoder is called 'voise'; did you mean 'voice'?"),
        ("toy", "features import --root {root} --name toy --file"),
        ("a b", "--name 'a b' --file"),
        ("whisper_tiny_en_asr", "did you mean 'whisper_tiny_en'?"),
    ],
)
def test_a_name_that_no_table_has_is_answered_by_what_would_be_understood(
    root, name, advice, capsys
):
    flags = ["--inputs", name, "--tasks", "emotion", "--run", "r", "--no-tracking"]
    assert run(["train", "--root", root, *flags]) == 1
    said = capsys.readouterr().err
    assert f"no features {name!r} under {root} (there: " in said
    assert advice.format(root=root) in said
    # Nothing that is to be typed names an encoder that there is not.
    if "encode --root" in said:
        assert said.split("--encoders ")[1].split(":")[0].strip() in ENCODERS


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("whisper_tiny_en_asr", "type: affuse encode --root {root} --transcriber whisper_tiny_en_asr"),
        ("whisper_tiny_en_as", "no transcriber has that name; did you mean 'whisper_tiny_en_asr'?"),
        ("minilm", "no transcriber has that name; known: "),
    ],
)  # fmt: skip
def test_so_is_that_of_transcripts(root, name, advice):
    with pytest.raises(NotPreparedError) as caught:
        read_transcripts(root, name)
    assert advice.format(root=root) in str(caught.value)


def test_the_command_names_options_transcriber_and_views(tmp_path):
    root = str(tmp_path)
    ear = {"name": "whisper_tiny_en_asr", "options": {"layers": "last"}}
    storage.publish_json(ear, f"{root}/transcripts/whisper_tiny_en_asr-abc/descriptor.json")
    facts = {"name": "minilm", "options": {"pool": "mean", "layers": "last"}, "upstream": ["abc"]}
    assert command_of(root, facts) == (
        f"affuse encode --root {root} --encoders minilm:pool=mean --transcriber whisper_tiny_en_asr"
    )
    view = {"name": "egemaps", "options": {}, "view": {"number": 2}}
    assert command_of(root, view).endswith("--encoders egemaps --views 2")


@pytest.mark.parametrize(
    "name",
    [
        "clip_vit:publish=inputs",
        "clip_vit:px=96,publish=inputs",
        "clip_vit",
        "videomae:most=64,publish=inputs",
    ],
)
def test_an_encoder_is_named_with_what_is_not_as_by_default(name):
    found = typed({"name": name.partition(":")[0], "options": dict(describe(name).options)})
    assert describe(found) == describe(name)
    assert found.count("=") == name.count("=")


@pytest.mark.parametrize("name", ["whisper_tiny_en:layers=all", "minilm:publish=inputs"])
def test_so_it_is_where_a_net_reads_a_table_that_another_dataset_lacks(root, name):
    facts = {**describe(name).facts(), "features": describe(name).folder}
    ear = {"name": "whisper_tiny_en_asr", "options": {}}
    with pytest.raises(NotPreparedError) as caught:
        folder_elsewhere(root, {**facts, "transcriber": ear})
    typed_words = f"affuse encode --root {root} --encoders {name} --transcriber whisper_tiny_en_asr"
    assert str(caught.value).endswith(f"type: {typed_words}")


def test_imported_features_name_the_import(tmp_path):
    facts = {
        "name": "au",
        "modality": "video",
        "imported": {"file": "au.npz", "array": "mean"},
    }
    assert command_of("r", facts) == (
        "affuse features import --root r --file au.npz --array mean --name au --modality video"
    )

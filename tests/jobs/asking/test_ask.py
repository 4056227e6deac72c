"""`affuse ask`: a large model answers held-out clips, once each, and becomes a member like any other."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cluster import storage
from cluster.settings import from_mapping
from cluster.tables import TRANSCRIPTS
from jobs.__main__ import run
from jobs.asking.config import AskConfig
from jobs.catalog import layout
from jobs.catalog.bundles import read_bundle, ways_of_asking
from jobs.catalog.manifest import read_manifest
from jobs.catalog.predictions import held_out_rows, read_predictions, write_predictions
from tests.jobs.asking.fake_server import Fake, serving
from tests.jobs.small_root import CLASSES, write_root

QUICK = ["--limits.pause-s", "0.01", "--limits.tries", "2"]


def draw(text):
    """A number from 0 to 1 that a text always has."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def reads_moods(text, options):
    """A model that believes the mood that the words name, and is unsure of the rest."""
    said = re.search(r"said in the clip: .*?(\w+)\.", text)
    mood = said[1] if said else ""
    return [0.8 if option == mood else 0.2 / (len(options) - 1) for option in options]


def knows_nothing(text, options):
    """A model that is sure of something else each time."""
    shares = [draw(text.split("\n")[0] + option) ** 4 for option in options]
    return [share / sum(shares) for share in shares]


@pytest.fixture
def root(tmp_path):
    """Words that name the mood of a clip, but for one in four; one clip without words."""
    root = write_root(str(tmp_path / "root"))
    for name in storage.names(f"{root}/manifest/abc", ".parquet"):
        uri = f"{root}/manifest/abc/{name}"
        table = storage.read_table(uri)
        words = []
        for clip, mood in zip(
            table["clip_id"].to_pylist(), table["emotion"].to_pylist(), strict=True
        ):
            other = CLASSES[clip % 3]
            words.append(f"clip {clip} is {other if clip % 4 == 0 else mood}.")
            if clip == 105:
                words[-1] = None
        at = table.column_names.index("text")
        table = table.set_column(at, "text", pa.array(words, pa.string()))
        storage.publish_table(table, uri)
    return root


@pytest.fixture
def fake():
    with serving(Fake(model=reads_moods)) as fake:
        yield fake


def ask(root, fake, *more):
    words = ["ask", "--root", root, "--server", fake.url, "--model", "big/one", "--task", "emotion"]
    return run([*words, *QUICK, *map(str, more)])


def right(root, name="asked"):
    table = held_out_rows(root, name, "emotion")
    known = [
        (np.argmax(scores), target[0])
        for scores, target in zip(
            table["scores"].to_pylist(), table["target"].to_pylist(), strict=True
        )
        if scores is not None
    ]
    return np.mean([said == target for said, target in known])


def without_words(root):
    """The root with no clip that has a text."""
    for name in storage.names(f"{root}/manifest/abc", ".parquet"):
        uri = f"{root}/manifest/abc/{name}"
        table = storage.read_table(uri)
        at = table.column_names.index("text")
        storage.publish_table(table.set_column(at, "text", pa.nulls(len(table), pa.string())), uri)


class TestNothingToShow:
    @pytest.mark.parametrize("show", [("text",), ("audio",), ("frames",), ("audio", "frames")])
    def test_clips_that_have_none_of_it_are_refused_before_anything_is_written(
        self, root, fake, capsys, show
    ):
        without_words(root)
        assert ask(root, fake, "--folds", "speaker", "--show", *show) == 2
        shown = capsys.readouterr()
        assert "none of the 47 clips has" in shown.err
        assert len(shown.err.strip().splitlines()) == 1
        assert not shown.out
        assert not fake.bodies
        assert not storage.exists(layout.run_uri(root, "asked"))

    def test_transcripts_that_lie_there_are_named_with_what_else_could_be_shown(
        self, root, fake, capsys
    ):
        assert ask(root, fake, "--show", "audio") == 2
        assert "has sound; type: --show text" in capsys.readouterr().err
        without_words(root)
        write_transcripts(root, "1")
        assert ask(root, fake) == 2
        assert "type: --transcriber whisper_tiny_en_asr" in capsys.readouterr().err
        assert ask(root, fake, "--transcriber", "whisper_tiny_en_asr") == 0

    def test_a_transcriber_that_heard_nothing_is_not_named_again(self, root, fake, capsys):
        without_words(root)
        write_transcripts(root, "1", heard=None)
        assert ask(root, fake, "--transcriber", "whisper_tiny_en_asr") == 2
        said = capsys.readouterr().err
        assert "whisper_tiny_en_asr heard no words in any" in said
        assert "type: --transcriber" not in said

    def test_clips_that_are_not_asked_about_are_counted(self, root, fake, capsys):
        assert ask(root, fake, "--folds", "speaker") == 0
        said = capsys.readouterr().out
        assert "46 clips: their text goes to" in said
        assert "1 of 47 clips has no text" in said

    def test_no_run_is_made_of_no_answer_at_all(self, root, fake, capsys):
        fake.speaks = "mute"
        assert ask(root, fake, "--folds", "speaker", "--max-failed-share", 1) == 1
        assert "none of 47 clips is answered" in capsys.readouterr().err
        assert not storage.exists(layout.run_uri(root, "asked", layout.SUMMARY))


class TestRun:
    def test_every_labelled_clip_of_the_folds_is_held_out_once(self, root, fake, capsys):
        assert ask(root, fake, "--folds", "speaker") == 0
        table = read_predictions(root, "asked")
        # 6 speakers that are no test split, 8 clips each; one has no label, one no words.
        assert sorted(table["clip_id"].to_pylist()) == [c for c in range(100, 148) if c != 107]
        assert set(table["role"].to_pylist()) == {"oof"}
        assert table["scores"].null_count == 1
        assert right(root) > 0.7
        said = capsys.readouterr().out
        assert "46 of 47 held-out clips answered" in said
        assert "emotion/accuracy" in said

    def test_without_folds_the_validation_split_is_asked(self, root, fake):
        assert ask(root, fake) == 0
        table = read_predictions(root, "asked")
        assert sorted(table["clip_id"].to_pylist()) == list(range(140, 148))
        assert set(table["role"].to_pylist()) == {"valid"}

    def test_no_word_of_the_test_split_leaves_the_machine(self, root, fake):
        assert ask(root, fake, "--folds", "speaker", "--context", 3) == 0
        assert not [clip for clip in range(148, 172) if f"clip {clip} " in fake.words]

    def test_labels_are_not_sent(self, root, fake):
        assert ask(root, fake, "--folds", "speaker") == 0
        asked = {re.search(r"clip (\d+) is (\w+)", json.dumps(body))[2] for body in fake.bodies}
        assert asked == set(CLASSES)
        for body in fake.bodies:
            text = body["messages"][1]["content"]
            assert {option for option in CLASSES if f") {option}" in text} == set(CLASSES)

    @pytest.mark.parametrize("speaks", ["letters", "json", "refuses"])
    def test_a_server_of_either_kind_gives_the_same_labels(self, root, fake, speaks):
        fake.speaks = speaks
        assert ask(root, fake, "--folds", "speaker") == 0
        assert right(root) > 0.7

    def test_the_token_is_written_nowhere(self, root, fake, monkeypatch):
        monkeypatch.setenv("AFFUSE_ASK_TOKEN", "s3cret-token")
        assert ask(root, fake, "--folds", "speaker") == 0
        assert fake.headers[0]["Authorization"].endswith("s3cret-token")
        files = [path for path in Path(root).rglob("*") if path.is_file()]
        assert not [path for path in files if b"s3cret" in path.read_bytes()]

    def test_no_more_are_under_way_than_allowed(self, root, fake):
        fake.delay_s = 0.02
        assert ask(root, fake, "--folds", "speaker", "--limits.at-once", 2) == 0
        assert fake.most_at_once <= 2

    def test_a_bundle_can_note_how_it_was_asked_and_the_server_is_no_part_of_that(self, root, fake):
        assert ask(root, fake, "--question", "What?", "--orders", 2) == 0
        way = ways_of_asking(root, ["asked", "voice"])
        assert list(way) == ["asked"]
        assert fake.url not in json.dumps(way)
        again = from_mapping(AskConfig, {**way["asked"], "root": root, "server": fake.url})
        assert (again.question, again.orders, again.limits.tries) == ("What?", 2, 2)


class TestResume:
    def test_a_server_that_goes_away_costs_one_line_and_no_answer(self, root, fake, capsys):
        fake.fails = lambda number: 503 if number >= 40 else None
        assert ask(root, fake, "--folds", "speaker", "--limits.at-once", 1) == 1
        said = capsys.readouterr().err
        assert "status 503, 2 times" in said
        assert "the same command goes on from there" in said
        assert "Traceback" not in said
        assert not storage.exists(layout.run_uri(root, "asked", layout.SUMMARY))
        fake.fails, before = (lambda number: None), len(fake.bodies)
        assert ask(root, fake, "--folds", "speaker") == 0
        # 46 clips of 3 orders each; 40 were answered, 2 refused.
        assert len(fake.bodies) - before == 3 * 46 - 40
        assert right(root) > 0.7

    def test_the_fusion_waits_for_all_answers(self, root, fake, capsys):
        fake.fails = lambda number: 503 if number >= 40 else None
        assert ask(root, fake, "--folds", "speaker") == 1
        capsys.readouterr()
        assert run(["ensemble", "--root", root, "--runs", "asked", "--task", "emotion"]) == 1
        assert "affuse ask --config" in capsys.readouterr().err

    def test_a_complete_run_asks_nothing(self, root, fake, capsys):
        assert ask(root, fake) == 0
        before = len(fake.bodies)
        assert ask(root, fake) == 0
        assert len(fake.bodies) == before
        assert "nothing to do" in capsys.readouterr().out

    def test_another_run_asks_only_what_is_new(self, root, fake):
        assert ask(root, fake, "--folds", "speaker") == 0
        before = len(fake.bodies)
        assert ask(root, fake, "--run", "again") == 0
        assert len(fake.bodies) == before
        assert ask(root, fake, "--run", "third", "--orders", 1, "--question", "What?") == 0
        assert len(fake.bodies) == before + 8

    def test_a_name_is_not_taken_by_another_way_to_ask(self, root, fake, capsys):
        assert ask(root, fake) == 0
        assert ask(root, fake, "--orders", 1, "--limits.tries", 3) != 0
        said = capsys.readouterr().err
        assert "was made otherwise (orders 3, now 1); type another --run" in said

    def test_a_name_is_not_taken_from_a_run_that_was_trained(self, root, fake, capsys):
        assert ask(root, fake, "--folds", "speaker") == 0
        add_net(root, "voice", 0.8, 0)
        assert ask(root, fake, "--run", "voice") != 0
        assert "it is no run of affuse ask" in capsys.readouterr().err

    def test_a_start_without_an_answer_leaves_its_name_free(self, root, fake):
        fake.fails = lambda number: 503
        assert ask(root, fake) == 1
        fake.fails = lambda number: None
        assert ask(root, fake, "--orders", 1) == 0

    @pytest.mark.parametrize("typed", ["whisper_tiny_en_asr", "whisper_tiny_en_asr-1"])
    def test_other_words_of_the_same_transcriber_are_another_way_to_ask(
        self, root, fake, capsys, typed
    ):
        write_transcripts(root, "1")
        heard = ("--transcriber", typed)
        assert ask(root, fake, *heard) == 0
        before = len(fake.bodies)
        assert ask(root, fake, *heard) == 0
        assert "nothing to do" in capsys.readouterr().out
        shutil.move(f"{root}/transcripts/whisper_tiny_en_asr-1", f"{root}/gone")
        write_transcripts(root, "2")
        assert ask(root, fake, "--transcriber", typed.replace("-1", "-2")) != 0
        said = capsys.readouterr().err
        assert "transcriber" in said if "-1" in typed else "have changed since" in said
        assert "type another --run" in said
        assert len(fake.bodies) == before

    def test_a_transcriber_that_has_not_run_is_named_before_anything_is_sent(
        self, root, fake, capsys
    ):
        assert ask(root, fake, "--transcriber", "whisper_tiny_en_asr") == 1
        assert "--transcriber whisper_tiny_en_asr" in capsys.readouterr().err
        assert not fake.bodies
        assert not storage.exists(layout.run_uri(root, "asked"))

    def test_a_model_that_only_chats_is_said(self, root, fake, capsys):
        fake.speaks = "mute"
        assert ask(root, fake, "--folds", "speaker") == 1
        said = capsys.readouterr().err
        assert re.search(r"46 of 47 clips failed.*no JSON object.*--how or --model", said)

    def test_a_clip_that_the_server_refuses_costs_that_clip(self, root, fake, capsys):
        fake.refuses = "clip 110 "
        assert ask(root, fake, "--folds", "speaker") == 0
        table = held_out_rows(root, "asked", "emotion")
        known = zip(table["clip_id"].to_pylist(), table["scores"].to_pylist(), strict=True)
        assert [clip for clip, scores in known if scores is None] == [105, 110]
        assert "1 of 47 clips failed (2%): 1 x the server refuses it: too long" in (
            capsys.readouterr().out
        )

    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize("how", ["auto", "letters"])
    def test_a_clip_whose_answer_a_filter_empties_costs_that_clip(self, root, fake, how, first):
        fake.filters = f"clip {100 if first else 110} "
        assert ask(root, fake, "--folds", "speaker", "--how", how, "--limits.at-once", 1) == 0
        table = held_out_rows(root, "asked", "emotion")
        known = zip(table["clip_id"].to_pylist(), table["scores"].to_pylist(), strict=True)
        silent = [clip for clip, scores in known if scores is None]
        assert silent == sorted([100 if first else 110, 105])
        others = [body for body in fake.bodies if fake.filters not in json.dumps(body)]
        assert all("logprobs" in body for body in others)

    @pytest.mark.parametrize(("status", "said"), [(401, "AFFUSE_ASK_TOKEN"), (404, "--model")])
    def test_a_refusal_says_what_to_type(self, root, fake, capsys, status, said):
        fake.fails = lambda number: status
        assert ask(root, fake, "--how", "json") == 1
        err = capsys.readouterr().err
        assert said in err
        assert "Traceback" not in err

    @pytest.mark.parametrize(
        "wrong",
        [
            ("--server", "http://10.0.0.1/v1"),
            ("--show",),
            ("--orders", -1),
            ("--run", "../x"),
            ("--model", ""),
        ],
    )
    def test_what_cannot_be_is_refused_before_anything_is_sent(self, root, fake, wrong):
        assert ask(root, fake, *wrong) != 0
        assert fake.bodies == []


def write_transcripts(root, fingerprint, heard="heard"):
    """What a transcriber heard of every clip."""
    clips = read_manifest(root, ["clip_id"])["clip_id"].to_pylist()
    nothing = [None] * len(clips)
    columns = {"clip_id": clips, "text": [heard] * len(clips), "status": ["ok"] * len(clips)}
    columns |= {name: nothing for name in TRANSCRIPTS.schema.names if name not in columns}
    table = TRANSCRIPTS.conform(
        pa.table({f.name: pa.array(columns[f.name], f.type) for f in TRANSCRIPTS.schema})
    )
    uri = layout.transcripts_uri(root, f"whisper_tiny_en_asr-{fingerprint}")
    storage.publish_table(table, f"{uri}/rows.parquet")
    storage.publish_json({"name": "whisper_tiny_en_asr", "options": {}}, f"{uri}/descriptor.json")


def add_net(root, name, skill, seed):
    """A run with folds as `train` leaves it, but for its nets."""
    table = read_predictions(root, "asked")
    draws = np.random.default_rng(seed)
    target = np.array(table["target"].to_pylist())[:, 0].astype(int)
    scores = skill * np.eye(3)[target] + draws.normal(size=(len(target), 3))
    columns = {"run": [name] * len(target), "scores": scores.tolist()}
    for key, values in columns.items():
        table = table.set_column(table.column_names.index(key), key, pa.array(values))
    for fold in table["fold"].unique().to_pylist():
        rows = table.filter(pc.equal(table["fold"], fold))
        write_predictions(root, name, fold, 0, rows)
    storage.publish_json({"folds": "speaker"}, layout.run_uri(root, name, layout.CONFIG))


class TestMember:
    """What an ensemble makes of it."""

    @pytest.fixture
    def fuse(self, root, fake):
        def fuse(*more):
            assert ask(root, fake, "--folds", "speaker") == 0
            for seed, name in enumerate(("voice", "face")):
                add_net(root, name, 0.8, seed)
            words = ["ensemble", "--root", root, "--task", "emotion", "--resamples", "200"]
            assert run([*words, "--no-tracking", *more]) in (0, 1)
            return read_bundle(root, "ensemble")

        return fuse

    def test_one_that_knows_nothing_is_left_out(self, root, fake, fuse, capsys, monkeypatch):
        monkeypatch.setattr("jobs.ensemble.nets_among", lambda config: [])
        fake.model = knows_nothing
        facts = fuse("--runs", "voice", "face", "asked")
        assert set(facts["rule"]["members"]) <= {"voice", "face"}
        said = capsys.readouterr().out
        assert "asked: shows no gain" in said
        assert "scores no others" not in said

    @pytest.mark.slow
    def test_one_that_helps_is_fused_and_named_as_what_cannot_be_asked_again(
        self, root, fake, fuse, capsys, monkeypatch
    ):
        monkeypatch.setattr("jobs.ensemble.nets_among", lambda config: [])
        facts = fuse("--runs", "voice", "face", "asked")
        assert "asked" in facts["rule"]["members"]
        said = capsys.readouterr().out
        assert "asked: gains +" in said
        assert "asked: a large model's answers; `affuse score` leaves it out" in said
        words = ["evaluate", "--root", root, "--task", "emotion", "--bundle", "ensemble"]
        assert run(words) != 0
        assert re.search("say nothing of other clips: asked", capsys.readouterr().err)
        assert run(["report", "--root", root, "--task", "emotion", "--bundle", "ensemble"]) == 0
        assert (
            run(["compare", "--root", root, "--task", "emotion", "--runs", "voice", "asked"]) == 0
        )

    def test_verify_finds_its_run_whole(self, root, fake, capsys):
        assert ask(root, fake, "--folds", "speaker") == 0
        run(["verify", "--root", root])
        assert re.search(r"^runs/asked: .*: sound$", capsys.readouterr().out, re.MULTILINE)

    def test_it_has_no_net_for_other_clips(self, root, fake, capsys):
        assert ask(root, fake) == 0
        assert run(["evaluate", "--root", root, "--task", "emotion", "--runs", "asked"]) != 0
        assert "answers of a large model" in capsys.readouterr().err

"""Prepare: every fault of a label table is listed, faults of media stop nothing, units stay as they are."""

import csv
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from cluster.errors import ConfigError, LabelTableError, NotPreparedError
from encoders.media import ClipSource, Decoder, Source
from encoders.spec import Needs
from jobs import prepare
from jobs.__main__ import run
from jobs.catalog import manifest
from jobs.preparing.adapter import clip_id, decoded

DATA = Path(os.environ.get("AFFUSE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def write_sound(path, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(seconds * 8000), np.float32), 8000)


def write_labels(path, rows):
    header = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(count, **fields):
    return [
        {"name": f"clip{k:02d}", "mood": ["low", "high"][k % 2], "speaker": f"s{k % 4}", **fields}
        for k in range(count)
    ]


@pytest.fixture
def corpus(tmp_path):
    """Twelve half-second clips of four speakers, with labels."""
    for k in range(12):
        write_sound(tmp_path / "clips" / f"clip{k:02d}.wav")
    write_labels(tmp_path / "labels.csv", rows_of(12))
    return tmp_path


def configure(corpus, *flags, labels="labels.csv"):
    return prepare.configure(
        [
            "folder",
            "--source",
            str(corpus / "clips"),
            "--labels",
            str(corpus / labels),
            "--root",
            str(corpus / "root"),
            "--tasks",
            "mood=classification",
            "--workers",
            "1",
            *flags,
        ]
    )


def prepared(corpus, *flags, **options):
    prepare.main(configure(corpus, *flags, **options))
    return manifest.read_manifest(str(corpus / "root")).to_pylist()


class TestManifest:
    def test_every_row_has_its_media_length_label_and_stable_id(self, corpus):
        rows = prepared(corpus)
        assert [row["name"] for row in rows] == [f"clip{k:02d}" for k in range(12)]
        assert {row["duration_s"] for row in rows} == {0.5}
        assert all(row["audio"]["uri"].endswith(f"{row['name']}.wav") for row in rows)
        assert all(row["video"] is None for row in rows)
        assert [row["clip_id"] for row in rows] == [clip_id(row["name"]) for row in rows]
        dataset = manifest.read_dataset(str(corpus / "root"))
        assert dataset.tasks["mood"].classes == ("high", "low")

    def test_splits_and_folds_never_share_a_speaker(self, corpus):
        rows = prepared(corpus, "--split", "50/25/25", "--folds", "3")
        splits = {}
        for row in rows:
            splits.setdefault(row["speaker"], set()).add(row["split"])
        assert all(len(found) == 1 for found in splits.values())
        assert {split for found in splits.values() for split in found} == {"train", "valid", "test"}
        folds = manifest.read_folds(str(corpus / "root"), "group3")
        assert set(folds) == {row["clip_id"] for row in rows if row["split"] != "test"}
        of_speaker = {(row["speaker"], folds.get(row["clip_id"])) for row in rows}
        assert len(of_speaker) == 4

    def test_a_dialogue_longer_than_a_unit_is_a_unit_by_itself(self, corpus):
        rows = [{**row, "dialogue": f"d{k // 6}"} for k, row in enumerate(rows_of(12))]
        write_labels(corpus / "labels.csv", rows)
        prepared(corpus, "--unit-clips", "4", "--columns", "group=name")
        sizes = [ref.num_clips for ref in manifest.units(str(corpus / "root"))]
        assert sizes == [6, 6]

    def test_long_clips_are_cut_at_the_given_length(self, corpus):
        rows = prepared(corpus, "--max-clip-s", "0.2")
        assert len(rows) == 36
        assert [(row["name"], row["start_s"], row["end_s"]) for row in rows[:3]] == [
            ("clip00@0", 0.0, 0.2),
            ("clip00@0.2", 0.2, 0.4),
            ("clip00@0.4", 0.4, 0.5),
        ]

    def test_faults_of_media_stop_nothing_and_keep_their_source(self, corpus, capsys):
        (corpus / "clips" / "clip00.wav").write_bytes(b"")
        (corpus / "clips" / "clip01.wav").write_text("not a sound")
        (corpus / "clips" / "clip02.wav").unlink()
        rows = prepared(corpus)
        assert len(rows) == 12
        assert [row["duration_s"] for row in rows[:4]] == [None, None, None, 0.5]
        assert rows[0]["audio"]["uri"].endswith("clip00.wav")
        assert rows[2]["video"]["uri"].endswith("clips/clip02")
        out = capsys.readouterr().out
        assert "3 files cannot be opened" in out
        assert "empty: " in out
        assert "unreadable: " in out
        assert "missing: " in out


class TestRunningAgain:
    def test_nothing_new_is_said_and_nothing_is_written(self, corpus, capsys):
        prepared(corpus, "--split", "50/25/25", "--folds", "2")
        before = {p: p.stat().st_mtime_ns for p in (corpus / "root").rglob("*") if p.is_file()}
        capsys.readouterr()
        prepared(corpus, "--split", "50/25/25", "--folds", "2")
        assert "nothing to do" in capsys.readouterr().out
        after = {p: p.stat().st_mtime_ns for p in (corpus / "root").rglob("*") if p.is_file()}
        assert after == before

    def test_clips_that_are_added_make_new_units_and_leave_the_old_ones_alone(self, corpus):
        old = prepared(corpus, "--unit-clips", "5", "--split", "50/25/25")
        for k in range(12, 20):
            write_sound(corpus / "clips" / f"clip{k:02d}.wav")
        rows = [{**row, "speaker": f"s{k % 6}"} for k, row in enumerate(rows_of(20)) if k >= 12]
        write_labels(corpus / "labels.csv", [*rows, *rows_of(12)])
        new = prepared(corpus, "--unit-clips", "5", "--split", "50/25/25")
        assert new[:12] == old
        assert len(new) == 20
        assert not {row["unit"] for row in new[12:]} & {row["unit"] for row in old}

    def test_a_changed_file_leaves_the_units_and_changes_the_key_of_its_sound_alone(self, corpus):
        old = prepared(corpus, "--unit-clips", "4")
        write_sound(corpus / "clips" / "clip05.wav", seconds=0.7)
        new = {row["name"]: row for row in prepared(corpus, "--unit-clips", "4")}
        assert {new[row["name"]]["unit"] == row["unit"] for row in old} == {True}
        changed = {row["name"] for row in old if new[row["name"]]["keys"] != row["keys"]}
        assert changed == {"clip04", "clip05", "clip06", "clip07"}
        before = next(row["keys"] for row in old if row["name"] == "clip05")
        after = new["clip05"]["keys"]
        assert {part for part in after if after[part] != before[part]} == {"sound", "heard", "text"}
        assert new["clip05"]["duration_s"] == pytest.approx(0.7)

    def test_the_published_config_is_accepted_back(self, corpus):
        prepared(corpus, "--split", "50/25/25")
        [config] = (corpus / "root" / "manifest").glob("*/config.json")
        assert prepare.configure(["--config", str(config)]) == configure(
            corpus, "--split", "50/25/25"
        )
        assert json.loads(config.read_text())["dataset"] == "folder"


class TestFaultsOfTheLabelTable:
    def test_all_of_them_are_listed_and_nothing_is_written(self, corpus):
        rows = rows_of(12)
        rows[3]["name"] = "clip02"
        rows[5]["mood"] = "hihg"
        rows[7]["split"] = "tset"
        rows[8]["start_s"], rows[8]["end_s"] = "3", "2"
        rows[9]["turn"] = "first"
        rows[10]["name"] = ""
        write_labels(corpus / "labels.csv", rows)
        with pytest.raises(LabelTableError) as caught:
            prepared(corpus, "--classes", "mood=low,high")
        message = str(caught.value)
        for part in (
            "6 faults",
            "clip02: the name stands twice",
            "clip05: mood 'hihg' is not among its classes; did you mean 'high'?",
            "split 'tset'; did you mean 'test'?",
            "end_s 2 is not after start_s 3",
            "turn 'first'; expected a whole number",
            "row 11: has no name",
        ):
            assert part in message
        assert not (corpus / "root").exists()

    @pytest.mark.parametrize("name", ["1", "clip02"])
    def test_a_name_that_stands_twice_is_one_however_short_it_is(self, corpus, name):
        rows = [{"name": name, "mood": "low"}, {"name": name, "mood": "high"}]
        write_labels(corpus / "labels.csv", rows)
        with pytest.raises(LabelTableError, match=f"{name}: the name stands twice"):
            prepared(corpus)

    def test_numbers_are_checked_against_their_bounds(self, corpus):
        scores = ["0.5", "much", "9", "nan"]
        rows = [{"name": f"clip{k:02d}", "score": s} for k, s in enumerate(scores)]
        write_labels(corpus / "labels.csv", rows)
        flags = ("--tasks", "score=regression", "--ranges", "score=-3,3")
        with pytest.raises(LabelTableError, match="3 faults") as caught:
            prepared(corpus, *flags)
        assert "clip02: score 9 lies outside -3 to 3" in str(caught.value)
        assert "score 'much'; expected a number" in str(caught.value)

    @pytest.mark.parametrize("bounds", ["3,-3", "1,1", "nan,1", "-inf,inf", "1e400,2", "1", "a,b"])
    def test_bounds_that_are_none_are_refused(self, corpus, bounds):
        write_labels(corpus / "labels.csv", [{"name": "clip00", "score": 1}])
        flags = ("--tasks", "score=regression", "--ranges", f"score={bounds}")
        with pytest.raises(ConfigError, match=f"--ranges score={re.escape(bounds)}: expected"):
            prepared(corpus, *flags)

    @pytest.mark.parametrize("kind", ["classification", "multilabel"])
    def test_a_class_that_is_named_twice_is_a_fault(self, corpus, kind):
        flags = ("--tasks", f"mood={kind}", "--classes", "mood=low,high,low")
        with pytest.raises(LabelTableError, match="mood: the class 'low' is named twice"):
            prepared(corpus, *flags)
        assert not (corpus / "root").exists()

    def test_a_missing_column_names_the_nearest(self, corpus):
        write_labels(corpus / "labels.csv", [{"name": "clip00", "moood": "low"}])
        with pytest.raises(LabelTableError, match="no column 'mood'; did you mean 'moood'"):
            prepared(corpus)

    def test_a_speaker_in_two_given_splits_is_refused(self, corpus):
        rows = [{**row, "split": "train" if k < 6 else "test"} for k, row in enumerate(rows_of(12))]
        write_labels(corpus / "labels.csv", rows)
        with pytest.raises(LabelTableError, match="group 's0' stands in more than one split"):
            prepared(corpus)


class TestTables:
    def test_several_labels_in_a_cell_become_a_row_of_numbers(self, corpus):
        rows = [{"name": "clip00", "tags": "b|a"}, {"name": "clip01", "tags": ""}]
        write_labels(corpus / "labels.csv", rows)
        found = prepared(corpus, "--tasks", "tags=multilabel", "--classes", "tags=a,b,c")
        assert [row["tags"] for row in found] == [[1.0, 1.0, 0.0], None]

    @pytest.mark.parametrize("form", ["jsonl", "parquet"])
    def test_the_words_of_a_list_are_labels_as_they_are(self, corpus, form):
        lists = [["so, so"], ["anger; mild", "a|b"], [], None, ["so, so", "a|b"]]
        rows = [{"name": f"clip{k:02d}", "tags": tags} for k, tags in enumerate(lists)]
        path = corpus / f"labels.{form}"
        if form == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("\n".join(map(json.dumps, rows)))
        found = prepared(corpus, "--tasks", "tags=multilabel", labels=path.name)
        task = manifest.read_dataset(str(corpus / "root")).tasks["tags"]
        assert task.classes == ("anger; mild", "a|b", "so, so")
        said = [
            None if row["tags"] is None else
            {name for name, there in zip(task.classes, row["tags"], strict=True) if there}
            for row in found if row["name"] in {each["name"] for each in rows}
        ]  # fmt: skip
        assert said == [None if each is None else {*each} for each in lists]

    @pytest.mark.parametrize(
        ("cell", "labels"),
        [
            ("a|b", {"a", "b"}), ("a;b", {"a", "b"}), ("a, b", {"a", "b"}), ("|", set()),
            ("['a', 'x, y']", {"a", "x, y"}), ('["a"]', {"a"}), ("[]", set()), ("", None),
            ("NaN", None), ("['it\\'s', 'b',]", {"it's", "b"}),
        ],
    )  # fmt: skip
    def test_a_cell_of_text_holds_several_labels_or_a_list_in_quotes(self, corpus, cell, labels):
        rows = [{"name": "clip00", "tags": cell}, {"name": "clip01", "tags": "a|b"}]
        write_labels(corpus / "labels.csv", rows)
        found = {row["name"]: row["tags"] for row in prepared(corpus, "--tasks", "tags=multilabel")}
        classes = manifest.read_dataset(str(corpus / "root")).tasks["tags"].classes
        assert {*classes} == {"a", "b"} | (labels or set())
        flags = found["clip00"]
        there = flags and {name for name, flag in zip(classes, flags, strict=True) if flag}
        assert there == labels

    @pytest.mark.parametrize("cell", ["['a' 'b']", "[a, b]", "[1, 2]", "['a', __import__('os')]"])
    def test_what_only_looks_like_a_list_is_refused_with_what_to_type(self, corpus, cell):
        rows = [{"name": "clip00", "tags": cell}, {"name": "clip01", "tags": "a|b"}]
        write_labels(corpus / "labels.csv", rows)
        with pytest.raises(LabelTableError, match=r"\(1 such cells\): expected a\|b, or a list"):
            prepared(corpus, "--tasks", "tags=multilabel")

    def test_a_label_in_brackets_is_taken_as_it_stands(self, corpus):
        rows = [{"name": "clip00", "tags": "[laughs]"}, {"name": "clip01", "tags": "a"}]
        write_labels(corpus / "labels.csv", rows)
        prepared(corpus, "--tasks", "tags=multilabel", "--as-is", "tags")
        assert manifest.read_dataset(str(corpus / "root")).tasks["tags"].classes == (
            "[laughs]",
            "a",
        )

    def test_where_nothing_is_none_of_the_labels_it_is_said_how_that_is_written(
        self, corpus, capsys
    ):
        rows = [{"name": "clip00", "tags": ""}, {"name": "clip01", "tags": "a"}]
        write_labels(corpus / "labels.csv", rows)
        prepared(corpus, "--tasks", "tags=multilabel")
        said = " ".join(capsys.readouterr().out.split())
        assert "none of them is written |" in said
        shutil.rmtree(corpus / "root")
        write_labels(corpus / "labels.csv", [*rows, {"name": "clip02", "tags": "|"}])
        prepared(corpus, "--tasks", "tags=multilabel")
        assert "is written |" not in capsys.readouterr().out

    def test_json_lines_and_parquet_say_the_same_as_csv(self, corpus):
        lines = "\n".join(json.dumps(row) for row in rows_of(12))
        (corpus / "labels.jsonl").write_text(lines)
        pq.write_table(pa.Table.from_pylist(rows_of(12)), corpus / "labels.parquet")
        expected = prepared(corpus)
        for labels in ("labels.jsonl", "labels.parquet"):
            shutil.rmtree(corpus / "root")
            assert prepared(corpus, labels=labels) == expected

    def test_windows_quotes_are_mended(self):
        assert decoded("you\u2019re".encode("cp1252")) == "you\u2019re"
        assert decoded("you\x92re".encode()) == "you\u2019re"

    def test_a_folder_without_a_table_is_a_corpus_without_labels(self, corpus):
        prepare.main(
            prepare.configure(
                ["folder", "--source", str(corpus / "clips"), "--root", str(corpus / "root")]
            )
        )
        assert manifest.read_manifest(str(corpus / "root")).num_rows == 12


class TestShards:
    """Loose files, tars and Parquet files give the same clips with the same sound."""

    def waves(self, rows):
        needs = Needs(rates_hz=frozenset({16000}))
        with Decoder() as decoder:
            for row in rows:
                source = ClipSource(clip_id=row["clip_id"], audio=Source(**row["audio"]))
                yield row["name"], decoder.decode(source, needs).clip.waveforms[16000]

    def loose(self, corpus):
        """Rows and sounds of the loose files, all different; the manifest is then gone again."""
        for k in range(12):
            noise = np.random.default_rng(k).uniform(-0.5, 0.5, 4000 + 100 * k)
            soundfile.write(corpus / "clips" / f"clip{k:02d}.wav", noise, 8000)
        rows = prepared(corpus)
        shutil.rmtree(corpus / "root")
        return rows, dict(self.waves(rows))

    def assert_same_clips(self, loose, others):
        rows, expected = loose
        assert len(rows) == len(others)
        for name, wave in self.waves(others):
            np.testing.assert_array_equal(wave, expected[name])
        by_name = {row["name"]: row for row in others}
        for row in rows:
            other = by_name[row["name"]]
            for column in ("clip_id", "duration_s", "mood", "speaker", "cost"):
                assert row[column] == other[column]

    def test_packing_points_into_tars_that_hold_the_same_bytes(self, corpus):
        loose = self.loose(corpus)
        rows = prepared(corpus, "--pack", "--shard-mb", "0.03")
        shards = {row["audio"]["uri"] for row in rows}
        assert len(shards) > 2
        self.assert_same_clips(loose, rows)
        for row in rows:
            with tarfile.open(row["audio"]["uri"]) as tar:
                member = tar.getmember(f"{row['name']}.wav")
                assert (member.offset_data, member.size) == (
                    row["audio"]["offset"],
                    row["audio"]["size"],
                )
        for ref in manifest.units(str(corpus / "root")):
            unit = manifest.read_unit(ref).to_pylist()
            assert len({row["audio"]["uri"] for row in unit}) == 1
            offsets = [row["audio"]["offset"] for row in unit]
            assert offsets == sorted(offsets)

    def test_packing_again_packs_only_what_is_new_even_when_the_loose_files_are_gone(self, corpus):
        old = prepared(corpus, "--pack")
        shards = set((corpus / "root" / "shards").glob("*.tar"))
        shutil.rmtree(corpus / "clips")
        for k in range(12, 14):
            write_sound(corpus / "clips" / f"clip{k:02d}.wav")
        rows = [{**row, "audio": f"{row['name']}.wav"} for row in rows_of(14)]
        write_labels(corpus / "labels.csv", rows)
        new = prepared(corpus, "--pack")
        assert new[:12] == old
        assert len(set((corpus / "root" / "shards").glob("*.tar")) - shards) == 1

    def test_the_members_of_a_tar_are_found_as_files_are(self, corpus):
        loose = self.loose(corpus)
        with tarfile.open(corpus / "shard.tar", "w") as tar:
            for path in sorted((corpus / "clips").iterdir(), reverse=True):
                tar.add(path, path.name)
        shutil.rmtree(corpus / "clips")
        (corpus / "clips").mkdir()
        (corpus / "shard.tar").rename(corpus / "clips" / "shard.tar")
        rows = prepared(corpus)
        assert [row["name"] for row in rows] == [f"clip{k:02d}" for k in reversed(range(12))]
        self.assert_same_clips(loose, rows)

    @pytest.mark.parametrize("nested", [False, True])
    def test_the_values_of_a_parquet_file_are_read_in_place(self, corpus, nested):
        loose = self.loose(corpus)
        paths = sorted((corpus / "clips").iterdir())
        contents = [path.read_bytes() for path in paths]
        names = [path.name for path in paths]
        columns = {"name": names, "bytes": contents}
        if nested:
            pairs = zip(names, contents, strict=True)
            columns = {"audio": [{"path": name, "bytes": content} for name, content in pairs]}
        shutil.rmtree(corpus / "clips")
        (corpus / "clips").mkdir()
        where = corpus / "clips" / "shard.parquet"
        options = {"compression": "NONE", "use_dictionary": False, "row_group_size": 5}
        pq.write_table(pa.table(columns), where, **options)
        self.assert_same_clips(loose, prepared(corpus))
        shutil.rmtree(corpus / "root")
        pq.write_table(pa.table(columns), where)
        with pytest.raises(NotPreparedError, match="use_dictionary=False"):
            prepared(corpus)


class TestCommandLine:
    def test_a_dataset_that_does_not_exist_names_the_nearest(self, capsys):
        assert run(["prepare", "ravdes", "--root", "r"]) == 2
        assert "did you mean 'ravdess'?" in capsys.readouterr().err

    def test_no_dataset_lists_them(self, capsys):
        assert run(["prepare"]) == 2
        assert "expected a dataset: " in capsys.readouterr().err

    def test_help_lists_the_datasets(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            prepare.configure(["--help"])
        assert "ravdess" in capsys.readouterr().out

    def test_help_of_a_dataset_says_what_it_reads(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            prepare.configure(["folder", "--help"])
        assert "Columns go by these names" in " ".join(capsys.readouterr().out.split())

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--split", "60-40"), "expected shares such as 60/20/20"),
            (("--split", "nan/1/1"), "expected three shares"),
            (("--split", "inf/1/1"), "expected three shares"),
            (("--max-clip-s", "nan"), "expected a finite number"),
            (("--folds", "1"), "expected 0"),
            (("--columns", "speker=who"), "did you mean 'speaker'"),
            (("--tasks", "mood=class"), "did you mean 'classification'"),
            (("--tasks", "mood=1=classification"), "a name ends at the first ="),
            (("--classes", "other=a,b"), "--tasks does not name 'other'"),
        ],
    )
    def test_a_bad_value_says_what_was_expected(self, corpus, flags, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            configure(corpus, *flags)

    def test_an_absent_source_is_named(self, corpus):
        with pytest.raises(NotPreparedError, match="there is no such folder"):
            prepared(corpus / "nowhere")

    def test_a_file_in_place_of_a_folder_is_named(self, corpus):
        (corpus / "other").mkdir()
        (corpus / "other" / "clips").write_text("no folder")
        with pytest.raises(NotPreparedError, match="expected a folder, came a file"):
            prepared(corpus / "other")

    def test_a_root_that_is_a_file_is_one_line(self, corpus, capsys):
        words = ["--source", f"{corpus}/clips", "--root", f"{corpus}/labels.csv"]
        assert run(["prepare", "folder", *words]) == 1
        assert "a file stands where a folder is expected" in capsys.readouterr().err


@pytest.mark.skipif(not (DATA / "ravdess").is_dir(), reason="AFFUSE_DATA holds no ravdess folder")
class TestRavdess:
    def test_the_speech_corpus_comes_with_its_labels_and_subject_folds(self, tmp_path):
        root = str(tmp_path / "root")
        prepare.main(
            prepare.configure(
                ["ravdess", "--source", str(DATA / "ravdess"), "--root", root, "--workers", "2"]
            )
        )
        rows = {row["name"]: row for row in manifest.read_manifest(root).to_pylist()}
        folds = manifest.read_folds(root, "subject")
        with (DATA / "ravdess" / "labels.csv").open() as file:
            labels = list(csv.DictReader(file))
        assert len(rows) == len(labels) == 1440
        for label in labels:
            row = rows[label["name"]]
            assert row["emotion"] == label["emotion"]
            assert row["text"] == label["text"]
            assert row["profile"]["gender"] == label["sex"]
            assert row["speaker"] == f"actor-{int(label['actor']):02d}"
            assert folds[row["clip_id"]] == int(label["fold"])
            assert row["duration_s"] == pytest.approx(float(label["seconds"]), abs=1e-3)

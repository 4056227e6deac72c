"""A unit's id says which clips it holds; its keys say what was read of them, part by part."""

import csv
import errno
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from cluster import stamps, storage, tables
from encoders.registry import describe
from encoders.spec import View
from jobs.__main__ import run
from jobs.catalog.manifest import read_manifest, read_unit
from jobs.catalog.manifest import units as unit_refs
from jobs.preparing import probing, units
from jobs.stream.decode import with_context
from tests.jobs.preparing.clip_rows import in_units

FILMS = ("f0", "f1", "f2", "f3")


@pytest.fixture
def corpus(tmp_path):
    """Eight clips with sound and text in two dialogues, and the rows of their table."""
    (tmp_path / "clips").mkdir()
    for i in range(8):
        wave = 0.2 * np.sin(np.arange(4000) * (0.1 + 0.01 * i))
        soundfile.write(tmp_path / "clips" / f"c{i}.wav", wave, 8000)
    rows = [
        {
            "name": f"c{i}",
            "text": f"text {i}",
            "dialogue": f"d{i // 4}",
            "turn": i % 4,
            "group": f"c{i}",
            "split": "train",
        }
        for i in range(8)
    ]
    return tmp_path, rows


def prepared(corpus, rows, *flags):
    """The manifest's rows by name, through the command line."""
    folder, _ = corpus
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    flags = (*flags, "--labels", str(folder / "labels.csv"), "--workers", "1")
    source = ["--source", str(folder / "clips"), "--root", str(folder / "root")]
    assert run(["prepare", "folder", *source, *flags]) == 0
    return {row["name"]: row for row in read_manifest(str(folder / "root")).to_pylist()}


def changed(before, after):
    """Names of the parts whose keys changed for at least one clip; all units are the same."""
    assert {n: row["unit"] for n, row in before.items()} == {n: r["unit"] for n, r in after.items()}
    return {
        part
        for name, row in before.items()
        for part in tables.KEY_PARTS
        if row["keys"][part] != after[name]["keys"][part]
    }


class TestWhatDependsOnWhat:
    def test_a_typo_in_a_text_touches_neither_sound_nor_pictures(self, corpus):
        _, rows = corpus
        before = prepared(corpus, rows)
        rows[2]["text"] = "another text"
        assert changed(before, prepared(corpus, rows)) == {"text", "past", "around"}

    def test_turned_turns_change_what_reads_neighbours_and_nothing_else(self, corpus):
        _, rows = corpus
        before = prepared(corpus, rows)
        for row in rows:
            row["turn"] = 3 - row["turn"]
        assert changed(before, prepared(corpus, rows)) == {"past", "around", "people"}

    def test_regrouped_dialogues_change_what_reads_neighbours(self, corpus):
        _, rows = corpus
        before = prepared(corpus, rows)
        for i, row in enumerate(rows):
            row["dialogue"] = f"d{i % 2}"
        assert changed(before, prepared(corpus, rows)) == {"past", "around", "people"}

    def test_exchanged_splits_change_the_views_alone(self, corpus):
        _, rows = corpus
        rows[0]["split"] = "test"
        before = prepared(corpus, rows)
        rows[0]["split"], rows[7]["split"] = "train", "test"
        assert changed(before, prepared(corpus, rows)) == {"split"}

    def test_a_replaced_file_changes_its_sound_and_no_text(self, corpus):
        folder, rows = corpus
        before = prepared(corpus, rows)
        soundfile.write(folder / "clips" / "c3.wav", np.zeros(4000), 8000)
        assert changed(before, prepared(corpus, rows)) == {"sound"}

    def test_a_text_that_is_given_is_no_longer_heard(self, corpus):
        _, rows = corpus
        rows[5]["text"] = ""
        before = prepared(corpus, rows)
        rows[5]["text"] = "given"
        assert changed(before, prepared(corpus, rows)) == {"text", "past", "around", "heard"}

    @pytest.mark.parametrize(
        ("encoder", "reads"),
        [
            ("egemaps", {"sound"}),
            ("face_expression", {"picture"}),
            ("minilm", {"text", "words"}),
            ("minilm:context=past", {"text", "words", "past"}),
            ("minilm:context=both", {"text", "words", "around"}),
            ("wav2vec2_base:pool=words", {"sound", "words"}),
            ("whisper_tiny_en_asr", {"heard"}),
        ],
    )
    def test_an_encoder_reads_what_its_modality_and_options_say(self, encoder, reads):
        assert set(describe(encoder).reads) == reads
        assert reads <= set(tables.KEY_PARTS)

    def test_a_text_encoder_of_transcripts_reads_what_the_transcriber_heard(self):
        assert set(describe("minilm", upstream=("abc",)).reads) == {"text", "words", "heard"}

    def test_a_view_reads_the_split(self):
        from dataclasses import replace

        view = replace(describe("egemaps"), view=View(number=1, mirror=True))
        assert set(view.reads) == {"sound", "split"}


class TestUnitsAndDialogues:
    def test_whole_dialogues_fill_a_unit(self, corpus):
        _, rows = corpus
        assert len({row["unit"] for row in prepared(corpus, rows).values()}) == 1

    def test_a_dialogue_longer_than_a_unit_is_not_cut(self, corpus):
        _, rows = corpus
        found = prepared(corpus, rows, "--unit-clips", "2")
        assert {(row["dialogue"], row["unit"]) for row in found.values()} == {
            ("d0", found["c0"]["unit"]),
            ("d1", found["c7"]["unit"]),
        }
        assert all(row["before"] is row["after"] is None for row in found.values())

    def test_beyond_the_bound_the_pieces_bring_the_texts_around_them(self, corpus, monkeypatch):
        folder, rows = corpus
        monkeypatch.setattr(units, "LONGEST", 1)
        prepared(corpus, rows, "--unit-clips", "2")
        refs = unit_refs(str(folder / "root"))
        assert [ref.num_clips for ref in refs] == [2, 2, 2, 2]
        second = {
            row["name"]: row["context"] for row in with_context(read_unit(refs[1]).to_pylist())
        }
        assert second["c3"] == (("text 0", "text 1", "text 2"), ())
        assert second["c2"] == (("text 0", "text 1"), ("text 3",))

    def test_a_neighbour_in_another_unit_changes_the_key_of_the_context(self, corpus, monkeypatch):
        _, rows = corpus
        monkeypatch.setattr(units, "LONGEST", 1)
        before = prepared(corpus, rows, "--unit-clips", "2")
        rows[0]["text"] = "a typo mended"
        after = prepared(corpus, rows, "--unit-clips", "2")
        assert before["c3"]["keys"]["past"] != after["c3"]["keys"]["past"]
        assert before["c3"]["keys"]["text"] == after["c3"]["keys"]["text"]
        assert before["c4"]["keys"] == after["c4"]["keys"]

    def test_other_clips_leave_units_alone_and_a_further_turn_forms_its_dialogues_unit_anew(
        self, corpus
    ):
        folder, rows = corpus
        before = prepared(corpus, rows, "--unit-clips", "4")
        soundfile.write(folder / "clips" / "c8.wav", np.zeros(4000), 8000)
        more = {"name": "c8", "text": "more", "group": "c8", "split": "train"}
        after = prepared(
            corpus, [*rows, {**more, "dialogue": "d2", "turn": 0}], "--unit-clips", "4"
        )
        assert {n: (r["unit"], r["keys"]) for n, r in before.items()} == {
            n: (r["unit"], r["keys"]) for n, r in after.items() if n != "c8"
        }
        after = prepared(
            corpus, [*rows, {**more, "dialogue": "d1", "turn": 9}], "--unit-clips", "4"
        )
        same = {name for name, row in before.items() if after[name]["unit"] == row["unit"]}
        assert same == {"c0", "c1", "c2", "c3"}
        assert after["c8"]["unit"] == after["c4"]["unit"]

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["a", "b", "c", None]),
                st.one_of(st.none(), st.integers(0, 9)),
                st.one_of(st.none(), st.sampled_from(["x", "y", ""])),
                st.sampled_from([None, "s1.tar", "s2.tar"]),
            ),
            min_size=1,
            max_size=30,
        ),
        st.integers(1, 4),
        st.data(),
    )
    def test_a_context_never_depends_on_where_a_cut_fell(self, drawn, most, data):
        clips = [clip(i, *each) for i, each in enumerate(drawn)]
        whole = {row["clip_id"]: row["context"] for row in with_context(clips)}
        present = data.draw(st.lists(st.permutations(range(len(clips))), max_size=1))
        old = [list(ids[k : k + 3]) for ids in present for k in range(0, len(ids), 3)]
        done = in_units(clips, old, {}, most_clips=most)
        assert sorted(row["clip_id"] for row in done) == list(range(len(clips)))
        by_unit = {}
        for row in done:
            by_unit.setdefault(row["unit"], []).append(row)
        context = {r["clip_id"]: r["context"] for u in by_unit.values() for r in with_context(u)}
        assert context == whole
        for name in {row["dialogue"] for row in clips} - {None}:
            turns = [row for row in done if row["dialogue"] == name]
            assert len(turns) > units.LONGEST * most or len({row["unit"] for row in turns}) == 1
        present = [[row["clip_id"] for row in rows] for rows in by_unit.values()]
        again = in_units(clips[::-1], present, {}, most_clips=most)
        keys = {row["clip_id"]: (row["unit"], row["keys"]) for row in done}
        assert {row["clip_id"]: (row["unit"], row["keys"]) for row in again} == keys


class TestAStorageThatDoesNotAnswer:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch):
        monkeypatch.setattr(probing, "WAITS_S", (0.0, 0.0))

    def throttled(self, monkeypatch, times):
        """The first questions for each file are turned away."""
        asked = Counter()
        plain = stamps.source_facts

        def facts(uri):
            asked[uri] += 1
            if asked[uri] <= times:
                raise OSError(errno.EBUSY, "SlowDown: please reduce your request rate")
            return plain(uri)

        monkeypatch.setattr(stamps, "source_facts", facts)

    def test_is_asked_again_and_the_keys_are_the_same(self, corpus, monkeypatch):
        _, rows = corpus
        before = prepared(corpus, rows)
        self.throttled(monkeypatch, 2)
        assert prepared(corpus, rows) == before

    def test_stops_prepare_before_anything_is_written(self, corpus, monkeypatch, capsys):
        folder, rows = corpus
        before = prepared(corpus, rows)
        self.throttled(monkeypatch, 99)
        flags = ["--labels", str(folder / "labels.csv"), "--root", str(folder / "root")]
        assert run(["prepare", "folder", "--source", str(folder / "clips"), *flags]) == 1
        assert "nothing was written; type the same command again" in capsys.readouterr().err
        again = read_manifest(str(folder / "root")).to_pylist()
        assert {row["name"]: row for row in again} == before


class TestOlderLayouts:
    def test_a_manifest_of_an_older_version_is_refused_with_the_command_that_renews_it(
        self, corpus, capsys
    ):
        folder, rows = corpus
        prepared(corpus, rows)
        root = str(folder / "root")
        (file,) = Path(root).glob("manifest/*/*.parquet")
        table = storage.read_table(str(file)).drop_columns(["keys", "before", "after"])
        older = {tables.SCHEMA_KEY: b"MANIFEST/1"}
        storage.publish_table(table.replace_schema_metadata(older), str(file))
        file.parent.rename(file.parent.with_name("older"))
        facts = storage.read_json(f"{root}/dataset.json")
        storage.publish_json(facts | {"manifest": "older"}, f"{root}/dataset.json")
        assert run(["encode", "--root", root, "--encoders", "egemaps", "--no-tracking"]) == 1
        said = capsys.readouterr().err
        command = said.partition("type: affuse ")[2].split()
        assert "is MANIFEST/1, expected MANIFEST/2" in said
        assert run(command) == 0
        assert read_manifest(root, ["keys"])["keys"].null_count == 0


def clip(number, dialogue, turn, text, shard):
    blank = dict.fromkeys(tables.MANIFEST.schema.names)
    source = {"uri": shard or f"{number}.wav", "offset": number if shard else None, "size": 1}
    facts = {"clip_id": number, "name": f"c{number}", "audio": source, "duration_s": 1.0}
    return blank | facts | {"dialogue": dialogue, "turn": turn, "text": text}

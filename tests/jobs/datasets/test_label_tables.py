"""A table of labels is read whole or refused with every fault: `affuse prepare folder`, as it is typed."""

import json
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from jobs.__main__ import run
from jobs.catalog import manifest

TASK = ("--tasks", "mood=classification")
PLAIN = "name,mood,speaker\na,happy,p1\nb,sad,p2\n"


@pytest.fixture
def prepare(tmp_path, capsys):
    """Runs the job on a table given as text or bytes; returns exit status, output and rows by name."""

    def go(table, *flags, name="labels.csv"):
        (tmp_path / "media").mkdir(exist_ok=True)
        content = table if isinstance(table, bytes) else table.encode()
        (tmp_path / name).write_bytes(content)
        root = tmp_path / "root"
        arguments = ["--source", tmp_path / "media", "--labels", tmp_path / name, "--root", root]
        status = run(["prepare", "folder", *map(str, arguments), "--workers", "1", *flags])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        rows = manifest.read_manifest(str(root)).to_pylist() if status == 0 else []
        return status, said.out + said.err, {row["name"]: row for row in rows}

    return go


def sound(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"subtype": "PCM_16"}
    soundfile.write(path, np.zeros(4000), 8000, **kind)


class TestWhatIsFoundOut:
    @pytest.mark.parametrize(
        ("encoding", "said"),
        [
            ("utf-8", None),
            ("utf-8-sig", None),
            ("utf-16", "UTF-16"),
            ("utf-16-le", "UTF-16-LE"),
            ("utf-16-be", "UTF-16-BE"),
            ("utf-32", "UTF-32"),
            ("cp1252", "Windows-1252"),
        ],
    )
    def test_the_encoding(self, prepare, encoding, said):
        table = "name,mood\nZoë,fröhlich\nb,müde\n"
        status, out, rows = prepare(table.encode(encoding), *TASK)
        assert status == 0
        assert [row["mood"] for row in rows.values()] == ["fröhlich", "müde"]
        assert "Zoë" in rows
        assert (f"read as {said}" in out) if said else ("read as" not in out)

    def test_one_stray_byte_spoils_no_other_letter(self, prepare):
        status, _, rows = prepare("name,mood\nZoë,x\n".encode() + "é,y\n".encode("cp1252"), *TASK)
        assert status == 0
        assert set(rows) == {"Zoë", "é"}

    @pytest.mark.parametrize(
        ("sign", "said"), [(",", ""), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")]
    )
    @pytest.mark.parametrize("lines", ["\n", "\r\n", "\r"])
    def test_the_separator(self, prepare, sign, said, lines):
        table = PLAIN.replace(",", sign).replace("\n", lines)
        status, out, rows = prepare(table, *TASK)
        assert status == 0
        assert {(r["name"], r["mood"], r["speaker"]) for r in rows.values()} == {
            ("a", "happy", "p1"),
            ("b", "sad", "p2"),
        }
        assert (f"separated by {said}" in out) == bool(said)

    def test_the_separator_is_not_what_stands_inside_of_cells(self, prepare):
        table = "name;text;mood\na;hello, you;x\nb;well, no;y\n"
        status, _, rows = prepare(table, *TASK)
        assert status == 0
        assert rows["a"]["text"] == "hello, you"

    def test_decimal_commas(self, prepare):
        table = "name;score;start_s;end_s\na;1,5;0;2,25\nb;-0,5;1;3\n"
        status, out, rows = prepare(table, "--tasks", "score=regression")
        assert status == 0
        assert [(r["score"], r["end_s"]) for r in rows.values()] == [(1.5, 2.25), (-0.5, 3)]
        assert "score: decimal commas" in out

    def test_commas_that_may_part_thousands_are_asked_about(self, prepare):
        status, out, _ = prepare(
            'name,score\na,"1,234"\nb,"2,345"\n', "--tasks", "score=regression"
        )
        assert status == 1
        assert "write thousands without commas" in out

    def test_lines_before_the_header_are_told(self, prepare):
        status, out, rows = prepare("\n# a study, of us\n\n" + PLAIN, *TASK)
        assert (status, len(rows)) == (0, 2)
        assert "header in line 4 (the 3 lines before it are not read)" in out

    def test_a_line_for_excel_names_the_separator(self, prepare):
        status, _, rows = prepare("sep=;\r\n" + PLAIN.replace(",", ";"), *TASK)
        assert (status, len(rows)) == (0, 2)

    def test_names_keep_their_zeros_whatever_the_file(self, prepare):
        tables = {
            "labels.csv": b"name,mood\n007,x\n7,y\n",
            "labels.jsonl": b'{"name": "007", "mood": "x"}\n{"name": 7, "mood": "y"}\n',
            "labels.json": b'[{"name": "007", "mood": "x"}, {"name": "7", "mood": "y"}]',
        }
        for name, content in tables.items():
            status, _, rows = prepare(content, *TASK, name=name)
            assert (status, {n: r["mood"] for n, r in rows.items()}) == (0, {"007": "x", "7": "y"})

    def test_a_transcript_of_any_length_is_read(self, prepare):
        text = "word " * 60_000
        status, _, rows = prepare(f"name,text,mood\na,{text},x\nb,hi,y\n", *TASK)
        assert status == 0
        assert rows["a"]["text"] == text.strip()

    def test_a_line_of_json_ends_where_json_says_so(self, prepare):
        lines = [{"name": "a", "text": "one\u2028two\x85", "mood": "x"}, {"name": "b", "mood": "y"}]
        content = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
        status, _, rows = prepare(content, *TASK, name="labels.jsonl")
        assert (status, set(rows)) == (0, {"a", "b"})

    def test_names_are_one_in_both_forms_of_an_accent(self, prepare, tmp_path):
        (tmp_path / "media").mkdir()
        apart, one = (unicodedata.normalize(form, "Zoë") for form in ("NFD", "NFC"))
        soundfile.write(tmp_path / "media" / f"{apart}.wav", np.zeros(800, np.float32), 8000)
        status, _, rows = prepare(f"name,mood\n{one},x\n", *TASK)
        assert status == 0
        assert rows[one]["duration_s"] == pytest.approx(0.1)
        table = f"audio,mood\n{one}.wav,x\n"
        status, _, rows = prepare(table, *TASK)
        assert (status, rows[one]["duration_s"]) == (0, pytest.approx(0.1))


class TestWhatIsMissing:
    @pytest.mark.parametrize("word", ["", " ", "NaN", "nan", "NA", "null", "N/A", "#N/A", "None"])
    def test_no_label_is_no_class(self, prepare, word):
        status, _, rows = prepare(f"name,mood\na,x\nb,{word}\nc,y\n", *TASK)
        assert status == 0
        assert [row["mood"] for row in rows.values()] == ["x", None, "y"]

    def test_a_class_that_is_named_is_one_whatever_it_is_called(self, prepare):
        table = "name,mood\na,None\nb,happy\n"
        status, _, rows = prepare(table, *TASK, "--classes", "mood=None,happy")
        assert status == 0
        assert [row["mood"] for row in rows.values()] == ["None", "happy"]

    def test_nulls_of_parquet_and_json_are_no_class(self, prepare, tmp_path):
        pq.write_table(
            pa.table({"name": ["a", "b"], "mood": [0.0, float("nan")]}), tmp_path / "x.parquet"
        )
        status, _, rows = prepare((tmp_path / "x.parquet").read_bytes(), *TASK, name="l.parquet")
        assert (status, [row["mood"] for row in rows.values()]) == (0, ["0", None])
        lines = (
            '{"name": "a", "mood": "x"}\n{"name": "b", "mood": null}\n{"name": "c", "mood": NaN}'
        )
        status, _, rows = prepare(lines, *TASK, name="l.jsonl")
        assert (status, [row["mood"] for row in rows.values()]) == (0, ["x", None, None])


class TestWhatIsAskedBack:
    @pytest.mark.parametrize(
        ("column", "role"),
        [
            ("Speaker", "speaker"), ("speaker_id", "speaker"), ("SPEAKER", "speaker"),
            ("participant", "speaker"), ("Split", "split"), ("split ", None), ("Dialogue_ID", "dialogue"),
            ("Start", "start_s"), ("Transcript", "text"), ("video_id", "group"),
        ],
    )  # fmt: skip
    def test_a_column_that_is_nearly_one_that_is_read(self, prepare, column, role):
        table = f"name,mood,{column}\na,x,train\nb,y,train\n"
        status, out, _ = prepare(table, *TASK)
        if role is None:
            assert status == 0
            return
        assert status == 1
        assert f"column '{column}' is not read; did you mean '{role}'?" in out
        assert f"--columns {role}={column}" in out
        status, out, _ = prepare(table, *TASK, "--as-is", column)
        assert status == 0
        assert f"not read: {column}" in out

    def test_a_task_whose_column_differs_in_case_is_typed_as_the_column(self, prepare):
        table = "Name,Mood,Age\na,happy,3\nb,sad,4\n"
        flags = ("--columns", "name=NAME", "--tasks", "mood=classification", "--profile", "age")
        status, out, _ = prepare(table, *flags)
        assert status != 0
        assert "did you mean 'Mood'? type: --tasks Mood=classification\n" in out
        assert "did you mean 'Name'? type: --columns name=Name\n" in out
        assert "did you mean 'Age'? type: --profile Age\n" in out
        status, out, _ = prepare(table, "--columns", "name=Name", "mood=Mood", *TASK)
        assert status != 0
        assert "type: --tasks Mood=classification" in out
        typed = ("--columns", "name=Name", "--tasks", "Mood=classification", "--profile", "Age")
        assert prepare(table, *typed)[0] == 0

    @pytest.mark.parametrize("where", ["names", "paths"])
    def test_a_file_that_differs_in_case_only_is_asked_about(self, prepare, tmp_path, where):
        for name in ("set/c4.flac", "set/d.wav"):
            sound(tmp_path / "media" / name)
        names = {"names": "name,mood\nC4,happy\nd,sad\n"}.get(
            where, "audio,mood\nSet/c4.FLAC,happy\nset/d.wav,sad\n"
        )
        column = {"names": "name", "paths": "audio"}[where]
        status, out, _ = prepare(names, *TASK)
        assert status != 0
        assert "but 'set/c4.flac', which differs in case only; spell them alike" in out
        assert f"--as-is {column}" in out
        status, out, rows = prepare(names, *TASK, "--as-is", column)
        assert status == 0
        assert "1 files cannot be opened, and are counted as no modality" in out
        assert len(rows) == 2

    def test_a_file_that_is_not_there_is_a_row_and_counted_as_no_modality(self, prepare, tmp_path):
        for name in ("a.wav", "b.wav"):
            sound(tmp_path / "media" / name)
        status, out, rows = prepare("name,mood\na,x\nb,y\ngone,x\n", *TASK)
        assert status == 0
        assert set(rows) == {"a", "b", "gone"}
        (cells,) = [
            line.split()
            for line in out.replace("\u2502", " ").splitlines()
            if "all" in line.split()
        ]
        assert cells[1] == "3"
        assert cells[4:7] == ["0", "2", "0"]  # video, audio, text
        assert "1 files cannot be opened, and are counted as no modality" in out

    def test_a_table_that_names_its_clips_otherwise(self, prepare):
        status, out, _ = prepare("file,Mood\na,x\nb,y\n", *TASK)
        assert status == 1
        assert "type: --columns name=file" in out
        assert "no column 'mood'; did you mean 'Mood'?" in out

    @pytest.mark.parametrize(
        "words",
        [
            ("Happy", "happy"),
            ("happy", "HAPPY"),
            ("very  sad", "very sad"),
            ("1", "1.0"),
            ("1", "01"),
        ],
    )
    def test_classes_that_differ_in_case_or_spaces_only(self, prepare, words):
        table = "name,mood\n" + "".join(f"c{k},{word}\n" for k, word in enumerate(words))
        status, out, _ = prepare(table, *TASK)
        assert status == 1
        assert "differ only in case, spaces or zeros" in out
        assert prepare(table, *TASK, "--as-is", "mood")[0] == 0

    def test_people_that_differ_in_case_only(self, prepare):
        table = "name,mood,speaker\na,x,Joey\nb,y,joey\n"
        status, out, _ = prepare(table, *TASK)
        assert (status, "speaker: 'Joey' (1), 'joey' (1) differ only" in out) == (1, True)

    def test_spaces_around_a_class_are_none_of_it(self, prepare):
        status, _, rows = prepare("name,mood\na,happy \nb, happy\nc,sad\n", *TASK)
        assert (status, [row["mood"] for row in rows.values()]) == (0, ["happy", "happy", "sad"])

    def test_columns_that_nothing_is_made_of_are_named(self, prepare):
        status, out, _ = prepare("name,mood,age,notes\na,x,3,4\nb,y,5,6\n", *TASK)
        assert (status, "not read: age, notes" in out) == (0, True)


class TestMediaColumns:
    def test_a_clip_is_called_by_its_file_and_a_segment_also_by_its_start(self, prepare):
        table = "video,start_s,end_s,mood\nd/f.mp4,0,1,x\nd/f.mp4,1.5,2,y\n"
        status, _, rows = prepare(table, *TASK)
        assert (status, set(rows)) == (0, {"f@0", "f@1.5"})

    def test_two_files_of_one_stem_are_two_clips_of_one_name(self, prepare):
        status, out, _ = prepare("audio,mood\na/f.wav,x\nb/f.wav,y\n", *TASK)
        assert (status, "f: the name stands twice" in out) == (1, True)


class TestFilesInOtherColumns:
    def test_a_column_of_files_that_is_not_read_is_asked_back(self, prepare):
        table = "name,mood,recording\na,x,f1.wav\nb,y,f2.wav\n"
        status, out, _ = prepare(table, *TASK)
        assert (status, "type: --columns audio=recording" in out) == (1, True)
        status, out, rows = prepare(table, *TASK, "--columns", "audio=recording")
        assert (status, rows["a"]["audio"]["uri"].endswith("media/f1.wav")) == (0, True)

    @pytest.mark.parametrize("none", ["", " ", "NA", "null"])
    def test_a_film_for_which_no_sound_is_named_brings_its_own(self, prepare, none):
        table = f"name,mood,video,audio\na,x,f1.mp4,{none}\nb,y,f2.mp4,s2.wav\nc,y,{none},s3.wav\n"
        status, _, rows = prepare(table, *TASK)
        sounds = [rows[name]["audio"]["uri"].rpartition("/")[2] for name in "abc"]
        assert (status, sounds) == (0, ["f1.mp4", "s2.wav", "s3.wav"])
        assert rows["c"]["video"] is None

    @pytest.mark.parametrize("none", ["", "NA", "#N/A", "None"])
    def test_a_clip_without_a_name_is_called_by_the_file_that_it_has(self, prepare, none):
        status, _, rows = prepare(f"mood,video,audio\nx,f1.mp4,s1.wav\ny,{none},s2.wav\n", *TASK)
        assert (status, set(rows)) == (0, {"f1", "s2"})
        status, out, _ = prepare(f"mood,video,audio\nx,{none},{none}\n", *TASK)
        assert (status, "row 1: has no name" in out) == (1, True)

    def test_it_is_no_question_where_the_names_find_the_files(self, prepare, tmp_path):
        (tmp_path / "media").mkdir()
        soundfile.write(tmp_path / "media" / "a.wav", np.zeros(800, np.float32), 8000)
        status, out, _ = prepare("name,mood,recording\na,x,a.wav\n", *TASK)
        assert (status, "not read: recording" in out) == (0, True)


class TestFaults:
    def test_all_of_file_header_and_rows_are_listed_at_once(self, prepare):
        table = (
            "name,mood,mood,turn,speaker,Split\n"
            "a,happy,1,0,p,train\n"
            "b,sad\n"
            'c,"a"b,1,2,p,train\n'
            "a,Happy,1,x,P,train\n"
            ",sad,1,1,p,train\n"
        )
        status, out, rows = prepare(table, *TASK)
        assert (status, rows) == (1, {})
        for part in (
            "9 faults",
            "2 columns are called 'mood': columns 2, 3",
            "line 3: 2 cells, the header has 6",
            "line 4: a quote inside of a quoted cell is not doubled",
            "column 'Split' is not read",
            "mood: 'Happy' (1), 'happy' (1) differ only",
            "speaker: 'P' (1), 'p' (2) differ only",
            "row 2 (a): turn 'x'; expected a whole number",
            "row 3: has no name",
            "a: the name stands twice",
        ):
            assert part in out

    @pytest.mark.parametrize(
        ("content", "name", "said"),
        [
            (b"", "l.csv", "is empty"),
            (b"name,mood\n", "l.csv", "the source holds no clip"),
            (b"PK\x03\x04....", "l.csv", "save it as CSV"),
            (b"\x1f\x8b....", "l.csv", "unpack it first"),
            (b"name,mood\na,\x81\n", "l.csv", "neither UTF-8 nor Windows-1252 (first in line 2)"),
            (b"PAR1", "l.parquet", "damaged or cut off, expected Parquet"),
            (b"{]", "l.jsonl", "line 1: not JSON"),
            (b'{"name": "a", "name": "b"}', "l.jsonl", "'name' stands twice"),
            (b'name,mood\na,"x\nb,y\n', "l.csv", "a quote is opened and never closed"),
            (b"c1,0.5,3\nc2,0.25,4\n", "l.csv", "holds the number 0.5"),
            (b"# name,mood\n1,2\n3,4\n", "l.csv", "begins with #: is it the header?"),
            (b'{"name": "\\ud800", "mood": "x"}', "l.jsonl", "holds bytes that are no text"),
            (b'{"name": "a", "mood": "\\udfff"}', "l.jsonl", "holds bytes that are no text"),
            (b'{"name": "a", "mood": "x", "turn": ' + b"9" * 5000 + b"}", "l.jsonl", "not JSON"),
            (b"name,mood,turn\na,x,1e300\n", "l.csv", "turn '1e300'; expected a whole number"),
            (b"[" * 100_000, "l.json", "not JSON"),
            (b"name,mood\na,x\x00y\n", "l.csv", "UTF-16"),
        ],
    )
    def test_a_file_that_is_no_table(self, prepare, content, name, said):
        status, out, _ = prepare(content, *TASK, name=name)
        assert status == 1
        assert said in out

    def test_a_folder_in_its_place(self, tmp_path, capsys):
        words = [
            "--source",
            str(tmp_path),
            "--labels",
            str(tmp_path),
            "--root",
            str(tmp_path / "r"),
        ]
        assert run(["prepare", "folder", *words, *TASK]) == 1
        assert "a folder stands where a file is expected" in capsys.readouterr().err

    @pytest.mark.parametrize("column", ["name", "mood", "speaker", "text", "video", "start_s"])
    @pytest.mark.parametrize(
        "kind",
        [
            pa.struct([("a", pa.int64())]),
            pa.map_(pa.string(), pa.int64()),
            pa.list_(pa.struct([("a", pa.int64())])),
        ],
        ids=["object", "map", "list of objects"],
    )
    def test_objects_in_parquet(self, prepare, tmp_path, column, kind):
        plain = {"name": ["a"], "mood": ["x"], "speaker": ["s"], "text": ["t"], "start_s": [0.0]}
        table = pa.table({**plain, "other": pa.nulls(1, kind), column: pa.nulls(1, kind)})
        pq.write_table(table, tmp_path / "x.parquet")
        status, out, _ = prepare((tmp_path / "x.parquet").read_bytes(), *TASK, name="l.parquet")
        assert status == 1
        assert f"{column}: each cell is an object" in out
        assert "other: each" not in out

    def test_twins_in_parquet(self, prepare, tmp_path):
        twins = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["name", "mood", "mood"])
        pq.write_table(twins, tmp_path / "x.parquet")
        status, out, _ = prepare((tmp_path / "x.parquet").read_bytes(), *TASK, name="l.parquet")
        assert (status, "2 columns are called 'mood'" in out) == (1, True)


@pytest.mark.parametrize(
    ("encoding", "sign", "name"), [("utf-16", "\t", "export.csv"), ("cp1252", ";", "export.csv")]
)
def test_a_spreadsheet_is_read_with_the_flags_it_asks_for(prepare, tmp_path, encoding, sign, name):
    (tmp_path / "media").mkdir()
    lines = [["file", "Speaker", "Emotion", "Valence", "Notiz"]]
    for k in range(6):
        soundfile.write(tmp_path / "media" / f"Aufnahme {k}.wav", np.zeros(800, np.float32), 8000)
        value = f"{k / 4:.2f}".replace(".", ",")
        lines.append([f"Aufnahme {k}.wav", f"Zoë{k // 2}", ("froh", "müde")[k % 2], value, "x"])
    table = "\r\n".join(sign.join(line) for line in lines).encode(encoding)
    status, out, _ = prepare(table, "--tasks", "Emotion=classification", name=name)
    assert status == 1
    flags = ["--columns", "name=file", "speaker=Speaker"]
    assert all(flag in out for flag in flags[1:])
    tasks = ("--tasks", "Emotion=classification", "Valence=regression")
    status, out, rows = prepare(table, *tasks, *flags, "--folds", "3", name=name)
    assert status == 0
    assert [row["Valence"] for row in rows.values()] == [0, 0.25, 0.5, 0.75, 1, 1.25]
    assert all(row["duration_s"] == pytest.approx(0.1) for row in rows.values())
    assert "groups: 3 by speaker" in out
    assert "not read: Notiz" in out


COUNTS = "name,mood,n_happy,n_sad,n_other\na,happy,2,1,4\nb,sad,0,3,0\nc,,,,\nd,sad,,0,\n"
CHOICES = (
    "name,mood,raters\na,happy,happy|sad|happy|other\nb,sad,sad;sad;sad\nc,,NaN\nd,sad,other\n"
)
HAPPY, SAD = [1.0, 0.0], [0.0, 1.0]


class TestVotesOfRaters:
    @pytest.mark.parametrize(
        ("table", "named", "left_out"),
        [
            (COUNTS, "mood=n_*", "n_other"),
            (CHOICES, "mood=raters", "2 for 'other'"),
        ],
    )
    def test_are_what_each_rater_chose_of_the_classes(self, prepare, table, named, left_out):
        status, said, rows = prepare(table, *TASK, "--votes", named)
        assert status == 0, said
        votes = {name: row["votes"]["mood"] for name, row in rows.items()}
        assert sorted(votes["a"]) == [SAD, HAPPY, HAPPY]
        assert votes["b"] == [SAD] * 3
        assert votes["c"] is None
        assert votes["d"] is None
        assert f"votes of mood: left out, not for a class: {left_out}" in said
        assert "not read" not in said

    def test_both_ways_make_the_same_manifest(self, prepare, tmp_path):
        found = []
        for table, named in ((COUNTS, "mood=n_*"), (CHOICES, "mood=raters")):
            _, _, rows = prepare(table, *TASK, "--votes", named)
            found.append({name: sorted(row["votes"]["mood"] or []) for name, row in rows.items()})
        assert found[0] == found[1]
        assert manifest.read_dataset(str(tmp_path / "root")).votes == ("mood",)

    def test_without_the_flag_the_columns_are_not_read(self, prepare, tmp_path):
        status, said, rows = prepare(COUNTS, *TASK)
        assert status == 0
        assert "n_happy" in said
        assert "votes" not in rows["a"]
        assert manifest.read_dataset(str(tmp_path / "root")).votes == ()

    def test_of_two_tasks_each_has_its_own(self, prepare):
        table = (
            "name,mood,tone,v_happy,v_sad,w_loud,w_soft\na,happy,loud,1,0,0,1\nb,sad,soft,0,1,2,0\n"
        )
        flags = ("--tasks", "tone=classification", "mood=classification")
        _, _, rows = prepare(table, *flags, "--votes", "tone=w_*", "mood=v_*")
        assert rows["a"]["votes"] == {"mood": [HAPPY], "tone": [SAD]}
        assert rows["b"]["votes"] == {"mood": [SAD], "tone": [HAPPY, HAPPY]}

    @pytest.mark.parametrize(
        ("table", "named", "said"),
        [
            (COUNTS.replace("2,1,4", "2.5,1,4"), "mood=n_*", "expected a whole number"),
            (COUNTS.replace("2,1,4", "-2,1,4"), "mood=n_*", "expected counts"),
            (COUNTS.replace("2,1,4", "x,1,4"), "mood=n_*", "row 1 (a): n_happy 'x'"),
            (COUNTS.replace("2,1,4", "900000000,1,4"), "mood=n_*", "expected at most 1000"),
            (COUNTS.replace("n_sad", "n_Sad"), "mood=n_*", "no column 'n_sad' for the class 'sad'"),
            (COUNTS, "mood=m_*", "--votes mood=m_*: no such column"),
            (COUNTS, "mood=rater", "--votes mood=rater: no such column"),
            (CHOICES, "mood=rater", "did you mean 'raters'?"),
            (CHOICES.replace("|sad|", "|Sad|"), "mood=raters", "'Sad' (1), 'sad'"),
            (CHOICES, "moods=raters", "--votes moods=...: expected a task with classes"),
        ],
    )
    def test_what_is_no_vote_is_a_fault(self, prepare, table, named, said):
        status, text, _ = prepare(table, *TASK, "--votes", named)
        assert status != 0
        assert said in text

    def test_the_columns_may_be_of_any_kind_of_table(self, prepare, tmp_path):
        counts = {"n_happy": [2, 0], "n_sad": pa.array([1, None], pa.int8())}
        table = pa.table({"name": ["a", "b"], "mood": ["happy", "sad"], **counts})
        pq.write_table(table, tmp_path / "labels.parquet")
        content = (tmp_path / "labels.parquet").read_bytes()
        _, said, rows = prepare(content, *TASK, "--votes", "mood=n_*", name="labels.parquet")
        assert len(rows["a"]["votes"]["mood"]) == 3, said
        assert rows["b"]["votes"]["mood"] is None

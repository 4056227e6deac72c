"""`prepare` knows how long things are: what it finds, what lies beyond, and what a piece is told."""

import csv
import itertools
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from encoders.spec import Word
from jobs.__main__ import run
from jobs.preparing.adapter import AUDIO_SUFFIXES, VIDEO_SUFFIXES, Row, passed_over
from jobs.preparing.lengths import Measured, pieces


def tone(path, seconds):
    path.parent.mkdir(exist_ok=True)
    wave = 0.3 * np.sin(np.arange(int(8000 * seconds)) * 0.1)
    soundfile.write(path, wave.astype(np.float32), 8000, format="WAV")
    return path


def prepare(folder, capsys, *flags, table=None):
    """Run the command; the rows of the manifest by name, and what was printed."""
    arguments = ["--source", str(folder / "clips"), "--root", str(folder / "root"), *flags]
    if table is not None:
        with (folder / "labels.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        arguments += ["--labels", str(folder / "labels.csv")]
    assert run(["prepare", "folder", *arguments]) == 0
    files = (folder / "root" / "manifest").glob("*/*.parquet")
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return {row["name"]: row for row in rows}, " ".join(capsys.readouterr().out.split())


class TestWhatIsFound:
    def test_every_suffix_of_cameras_phones_and_recorders_is_taken(self, tmp_path, capsys):
        suffixes = sorted(AUDIO_SUFFIXES | VIDEO_SUFFIXES)
        for number, suffix in enumerate(suffixes):
            shout = suffix.upper() if number % 2 else suffix
            tone(tmp_path / "clips" / f"f{number}{shout}", 0.1)
        rows, _ = prepare(tmp_path, capsys)
        assert len(rows) == len(suffixes) > 80
        assert all(row["duration_s"] == pytest.approx(0.1, abs=0.01) for row in rows.values())

    def test_other_files_are_counted_by_suffix_in_one_line(self, tmp_path, capsys):
        tone(tmp_path / "clips" / "a.wav", 0.2)
        for name in ("b.jpg", "c.JPG", "notes.txt", "LICENSE"):
            (tmp_path / "clips" / name).write_text("x")
        rows, said = prepare(tmp_path, capsys)
        assert set(rows) == {"a.wav"}
        assert "passed over, not taken for sound or film: 2 .jpg" in said
        assert "1 .txt" in said
        assert "1 without a suffix" in said

    def test_nothing_passed_over_is_not_spoken_of(self):
        assert passed_over([]) == []


class TestSegments:
    def test_those_beyond_their_file_are_listed_and_count_no_time(self, tmp_path, capsys):
        tone(tmp_path / "clips" / "long.wav", 10)
        table = [
            {"name": f"s{k}", "audio": "long.wav", "start_s": 1000 * k, "end_s": 1000 * k + 900}
            for k in range(8)
        ]
        rows, said = prepare(tmp_path, capsys, table=table)
        assert "7 of 8 segments begin beyond the end of their file" in said
        assert "s1 (1000 to 1900 s of 10.00 s)" in said
        assert "are start_s and end_s in seconds?" in said
        assert "1 of 8 segments end beyond the end of their file" in said
        assert sum(row["duration_s"] for row in rows.values()) == pytest.approx(10, abs=0.01)

    def test_one_that_ends_with_its_file_but_for_rounding_is_not_spoken_of(self, tmp_path, capsys):
        tone(tmp_path / "clips" / "long.wav", 3)
        table = [
            {"name": "a", "audio": "long.wav", "start_s": 0, "end_s": 1},
            {"name": "b", "audio": "long.wav", "start_s": 1, "end_s": 3.2},
        ]
        _, said = prepare(tmp_path, capsys, table=table)
        assert "beyond" not in said

    def test_the_length_is_that_of_what_is_there_whatever_the_header_tells(self, tmp_path, capsys):
        path = tone(tmp_path / "clips" / "cut.wav", 4)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        endless = tone(tmp_path / "clips" / "endless.wav", 2)
        content = bytearray(endless.read_bytes())
        at = content.find(b"data")
        content[at + 4 : at + 8] = bytes(4)
        endless.write_bytes(content)
        rows, _ = prepare(tmp_path, capsys)
        assert rows["cut.wav"]["duration_s"] == pytest.approx(2, abs=0.02)
        assert rows["endless.wav"]["duration_s"] == pytest.approx(2, abs=0.02)


class TestPieces:
    def test_a_text_without_word_times_is_given_to_no_piece_and_that_is_said(
        self, tmp_path, capsys
    ):
        tone(tmp_path / "clips" / "talk.wav", 5)
        tone(tmp_path / "clips" / "short.wav", 1)
        table = [
            {"name": "talk", "text": "all that was ever said"},
            {"name": "short", "text": "hello"},
        ]
        rows, said = prepare(tmp_path, capsys, "--max-clip-s", "2", table=table)
        assert {name: row["text"] for name, row in rows.items()} == {
            "talk@0": None,
            "talk@2": None,
            "talk@4": None,
            "short": "hello",
        }
        assert "1 clips longer than 2 s became 3 pieces" in said
        assert "their pieces have no text" in said
        assert "--transcriber" in said

    @given(
        starts=st.lists(st.floats(-1, 70, allow_nan=False), max_size=20),
        length=st.floats(0.5, 60),
        most=st.floats(0.5, 20),
    )
    def test_every_word_goes_to_one_piece_and_pieces_cover_the_clip(self, starts, length, most):
        words = [Word(str(k), start, start + 0.3) for k, start in enumerate(sorted(starts))]
        row = Row(name="a", text="whole", words=words)
        cut = pieces(Measured(row, length), most)
        if length <= most:
            assert cut == [row]
            return
        assert len(cut) == math.ceil(length / most - 1e-9)
        said = [word.text for piece in cut for word in piece.words]
        assert said == [word.text for word in words]
        assert [piece.text for piece in cut] == [
            " ".join(word.text for word in piece.words) for piece in cut
        ]
        assert cut[0].start_s == 0
        assert cut[-1].end_s == pytest.approx(length)
        for one, other in itertools.pairwise(cut):
            assert one.end_s == pytest.approx(other.start_s)

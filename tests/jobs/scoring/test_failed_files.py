"""Files that fail: their answers are written, and too many of them end the job with status 1."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import tables
from cluster.errors import TooManyFailuresError
from jobs.__main__ import run
from jobs.scoring.outcome import conclude_files


def write_files(toys, folder, broken, whole):
    """Sounds, some of which are none; returns their folder."""
    toys.corpus.write_corpus(folder, broken + whole, seconds=0.05)
    toys.bundle.write_bundle(folder)
    for number in range(broken):
        (folder / "media" / f"{number}.wav").write_bytes(b"no sound")
    return folder / "media"


def score(folder, *words):
    bundle = str(folder.parent / "bundles" / "b")
    return run(["score", *map(str, words), "--bundle", bundle])


class TestTooManyFailedFiles:
    @pytest.mark.parametrize("how", [(), ("--by", "window")], ids=["clips", "windows"])
    @pytest.mark.parametrize("count", [1, 3])
    def test_end_with_status_1_after_their_answers_are_written(
        self, toys, tmp_path, capsys, count, how
    ):
        folder = write_files(toys, tmp_path, broken=count, whole=0)
        out = tmp_path / "out.jsonl"
        assert score(folder, *folder.iterdir(), "--out", out, *how) == 1
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [row["status"] for row in rows] == ["failed"] * count
        said = capsys.readouterr()
        assert f"{count} of {count} clips failed" in said.err
        assert "more than --max-failed-share 0.2" in said.err
        assert f"wrote {out}" in said.out

    @pytest.mark.parametrize("how", [(), ("--by", "window")], ids=["clips", "windows"])
    def test_are_more_than_the_share_that_was_typed(self, toys, tmp_path, capsys, how):
        folder = write_files(toys, tmp_path, broken=1, whole=2)
        assert score(folder, folder, *how) == 1
        assert score(folder, folder, *how, "--max-failed-share", "0.3") == 1
        assert score(folder, folder, *how, "--max-failed-share", "0.4") == 0
        assert "1 of 3 clips failed (33%)" in capsys.readouterr().out

    def test_of_a_stream_end_so_too(self, toys, tmp_path, here, capsys):
        folder = write_files(toys, tmp_path, broken=22, whole=8)
        out = tmp_path / "out.jsonl"
        assert score(folder, folder, "--out", out) == 1
        assert "22 of 30 clips failed" in capsys.readouterr().err
        assert len(out.read_text().splitlines()) == 30
        assert not (tmp_path / "out.jsonl.affuse").exists()


@given(
    st.dictionaries(
        st.sampled_from("abcdefg"), st.lists(st.booleans(), min_size=1, max_size=4), min_size=1
    ),
    st.floats(0, 1),
)
def test_a_file_in_pieces_failed_where_all_of_its_pieces_did(files, most):
    rows = [
        {
            "clip_id": number, "name": name, "task": "mood", "bundle": bundle, "label": None,
            "confidence": None, "probabilities": None, "value": None, "modalities": [],
            "status": "failed" if failed else "ok",
            "error": f"unreadable: {name}.mp4: no media" if failed else None,
        }
        for bundle in ("b", "other")
        for name, pieces in files.items()
        for number, failed in enumerate(pieces)
    ]  # fmt: skip
    table = tables.SCORES.conform(pa.Table.from_pylist(rows, tables.SCORES.schema))
    failed = sum(map(all, files.values()))
    if failed > most * len(files):
        with pytest.raises(TooManyFailuresError, match=rf"^{failed} of {len(files)} clips failed"):
            conclude_files(table, most)
    else:
        conclude_files(table, most)

"""Two jobs on one root: neither fails of what the other gathers, and neither undoes what the other did."""

import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import storage, tables
from cluster.unit_tables import UnitIndex, locate, mended, publish_unit
from encoders import ENCODERS, TRANSCRIBERS
from encoders.registry import describe
from jobs import encode
from jobs.__main__ import run
from jobs.catalog.compaction import compact, recall
from jobs.catalog.features import FeatureReader, read_features, read_transcripts
from jobs.catalog.layout import features_uri, former_uri
from jobs.catalog.manifest import read_unit, units

TOYS = str(Path(__file__).parents[1] / "toys")


@pytest.fixture
def corpus(monkeypatch):
    """The toys; no Ray: all units are published already, as by an encode killed before its end."""
    monkeypatch.syspath_prepend(TOYS)
    monkeypatch.setitem(ENCODERS, "toy_text", "toy_text")
    monkeypatch.setitem(TRANSCRIBERS, "toy_ear", "toy_ear")
    monkeypatch.setattr(encode, "ray_session", None)  # it would fail if it were started
    import toy_corpus

    yield toy_corpus
    for name in [name for name in sys.modules if name.startswith("toy_")]:
        del sys.modules[name]


@pytest.fixture
def root(corpus, tmp_path):
    """Twelve clips in three units, whose files are not gathered yet."""
    root = str(corpus.write_corpus(tmp_path / "root", 12))
    storage.publish_json(describe("toy_text").facts(), f"{table_of(root)}/descriptor.json")
    for ref in units(root):
        publish(root, ref)
    return root


def table_of(root):
    return features_uri(root, describe("toy_text").folder)


def publish(root, ref, failed=(), **how):
    version = ref.version(describe("toy_text").reads)
    publish_unit(
        table_of(root), version, rows(read_unit(ref)["clip_id"].to_pylist(), failed), **how
    )


def rows(ids, failed=()):
    values = [None if i in failed else [[float(i)] * 3] for i in ids]
    times = pa.array([None if i in failed else [0.0] for i in ids], pa.list_(pa.float32()))
    table = pa.table(
        {
            "clip_id": pa.array(ids, pa.int64()),
            "values": pa.array(values, pa.list_(pa.list_(pa.float32(), 3))),
            "step_start_s": times,
            "step_end_s": times,
            "valid": pa.array([None if i in failed else [True] for i in ids], pa.list_(pa.bool_())),
            "status": ["failed" if i in failed else "ok" for i in ids],
            "error": pa.nulls(len(ids), pa.string()),
        }
    )
    return tables.features(3).conform(table)


def encode_again(root):
    return run(["encode", "--root", root, "--encoders", "toy_text", "--no-tracking"])


@contextmanager
def in_the_middle(act, *, of="publish_bytes", at=0, where=".parquet"):
    """`act` once, before the n-th time that the storage is asked for something of a table."""
    plain, count = getattr(storage, of), 0

    def call(*arguments, **options):
        nonlocal count
        if any(where in str(argument) for argument in arguments):
            count += 1
            if count == at + 1:
                act()
        return plain(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, of, call)
        yield


def raw_ids(root):
    files = Path(table_of(root)).glob("*.parquet")
    return sorted(i for file in files for i in pq.read_table(file)["clip_id"].to_pylist())


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("of", ["open_parquet", "publish_bytes", "remove"])
def test_an_encode_that_ends_in_the_middle_of_another_disturbs_nothing(root, of, at):
    with in_the_middle(lambda: encode_again(root), of=of, at=at, where=table_of(root)):
        assert encode_again(root) == 0
    assert encode_again(root) == 0
    assert raw_ids(root) == list(range(12))


@pytest.mark.parametrize("at", range(6))
def test_a_reader_goes_on_while_files_are_gathered_under_it(root, at):
    folder = describe("toy_text").folder
    with in_the_middle(lambda: encode_again(root), of="open_parquet", at=at, where=table_of(root)):
        assert len(read_features(root, folder)["clip_id"].unique()) == 12


def test_a_reader_of_pieces_goes_on_where_it_was(root):
    reader = FeatureReader(root, describe("toy_text").folder)
    pieces = reader.pieces(np.arange(12), ["clip_id"])
    seen = next(pieces)["clip_id"].to_pylist()
    assert encode_again(root) == 0
    seen += [i for piece in pieces for i in piece["clip_id"].to_pylist()]
    assert sorted(seen) == list(range(12))


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("of", ["publish_bytes", "remove"])
def test_rows_mended_while_another_job_gathers_are_kept(root, of, at):
    first = units(root)[0]
    publish(root, first, failed={1})

    def mend():
        publish(root, first, mended=True)

    Path(table_of(root), "-".join(first.version(describe("toy_text").reads)) + ".parquet").unlink()
    publish(root, first, failed={1})
    with in_the_middle(mend, of=of, at=at, where=table_of(root)):
        assert encode_again(root) == 0
    assert encode_again(root) == 0
    assert set(read_features(root, describe("toy_text").folder)["status"].to_pylist()) == {"ok"}
    assert raw_ids(root) == list(range(12))


def test_a_job_that_began_before_clips_were_added_leaves_their_rows_where_they_are(root, corpus):
    def add():
        corpus.write_corpus(Path(root), 20)
        for ref in units(root)[3:]:
            publish(root, ref)

    with in_the_middle(add, where=table_of(root)):
        assert encode_again(root) == 0
    assert raw_ids(root) == list(range(20))
    assert not Path(former_uri(table_of(root))).exists()


def test_a_job_whose_manifest_grew_meanwhile_says_what_to_type(root, corpus, capsys):
    with in_the_middle(lambda: corpus.write_corpus(Path(root), 20), where=table_of(root)):
        assert encode_again(root) == 1
    said = capsys.readouterr().err
    assert "8 of 20 clips have no row" in said
    assert f"type: affuse encode --root {root} --encoders toy_text" in said


@pytest.mark.parametrize("cycles", range(1, 5))
@pytest.mark.parametrize("gathered", [False, True])
def test_a_unit_that_left_was_mended_and_left_again_comes_back_mended(root, cycles, gathered):
    uri, reads = table_of(root), describe("toy_text").reads
    order = [ref.version(reads) for ref in units(root)]
    Path(uri, "-".join(order[1]) + ".parquet").unlink()
    publish(root, units(root)[1], failed={5, 6})

    def leave_and_return():
        compact(uri, lambda: [order[0], order[2]], former=former_uri(uri))
        assert order[1] not in locate(uri)
        assert recall(uri, set(order)) == 1
        assert not list(Path(former_uri(uri)).glob("*.parquet"))
        if gathered:
            compact(uri, lambda: order, former=former_uri(uri))

    for _ in range(cycles):
        leave_and_return()
    before = UnitIndex(uri).read(order[1])
    assert before["status"].to_pylist().count("failed") == 2
    publish_unit(uri, order[1], mended(before, rows([5, 6])), mended=True)
    for _ in range(cycles):
        leave_and_return()
    assert UnitIndex(uri).read(order[1])["status"].to_pylist() == ["ok"] * 4


def test_two_jobs_that_mended_different_clips_of_a_unit_both_count(root):
    uri, reads = table_of(root), describe("toy_text").reads
    order = [ref.version(reads) for ref in units(root)]
    Path(uri, "-".join(order[0]) + ".parquet").unlink()
    publish(root, units(root)[0], failed={1, 2})
    before = UnitIndex(uri).read(order[0])
    for clip in (1, 2):
        publish_unit(uri, order[0], mended(before, rows([clip])), mended=True)
    assert encode_again(root) == 0
    assert UnitIndex(uri).read(order[0])["status"].to_pylist() == ["ok"] * 4


def test_a_twin_with_more_failed_rows_does_not_replace_a_luckier_one(root):
    publish(root, units(root)[0], failed={1})
    assert set(read_features(root, describe("toy_text").folder)["status"].to_pylist()) == {"ok"}


class TestRowsOfAnOlderVersion:
    def test_they_are_refused_by_name_and_moved_apart_by_encode(self, root):
        for file in Path(table_of(root)).glob("*.parquet"):
            table = pq.read_table(file)
            unit = file.name.partition("-")[0]
            listed = f'[["{unit}", {table.num_rows}]]'.encode()
            old = table.replace_schema_metadata({b"affuse.units": listed})
            storage.publish_table(old, str(file.with_name(f"{unit}.parquet")))
            file.unlink()
        with pytest.raises(Exception, match="rows of an older version do not say") as caught:
            read_features(root, describe("toy_text").folder)
        assert f"affuse encode --root {root} --encoders toy_text" in str(caught.value)
        reads = describe("toy_text").reads
        compact(table_of(root), lambda: [ref.version(reads) for ref in units(root)],
                former=former_uri(table_of(root)))  # fmt: skip
        assert raw_ids(root) == []


class TestTranscripts:
    def table(self, root, name, text, **options):
        """One transcript table whose rows are all that text."""
        facts = describe("toy_ear").facts()
        folder = f"{root}/transcripts/toy_ear-{name}"
        facts["options"] = {**facts["options"], **options}
        storage.publish_json({**facts, "manifest": "x"}, f"{folder}/descriptor.json")
        for ref in units(root):
            ids = read_unit(ref)["clip_id"]
            columns = {"clip_id": ids, "text": [text] * len(ids), "status": ["ok"] * len(ids)}
            blank = {n: [None] * len(ids) for n in ("words", "language", "confidence", "error")}
            part = tables.TRANSCRIPTS.conform(pa.table(blank | columns))
            publish_unit(folder, ref.version(describe("toy_ear").reads), part)

    def test_several_tables_of_one_transcriber_are_not_taken_by_chance(self, corpus, tmp_path):
        root = str(corpus.write_corpus(tmp_path / "root", 4, texts=[None] * 4))
        self.table(root, "a", "one", pool="mean")
        self.table(root, "b", "two")
        with pytest.raises(
            ValueError, match="means several tables; type one of: toy_ear-a, toy_ear-b"
        ):
            read_transcripts(root, "toy_ear")
        assert read_transcripts(root, "toy_ear-b")["text"].to_pylist() == ["two"] * 4
        assert read_transcripts(root, "toy_ear:pool=mean")["text"].to_pylist() == ["one"] * 4
        shutil.rmtree(f"{root}/transcripts/toy_ear-b")
        assert read_transcripts(root, "toy_ear")["text"].to_pylist() == ["one"] * 4

    def test_half_of_them_is_refused(self, corpus, tmp_path):
        root = str(corpus.write_corpus(tmp_path / "root", 8, texts=[None] * 8))
        self.table(root, "a", "one")
        next(Path(root, "transcripts", "toy_ear-a").glob("*.parquet")).unlink()
        with pytest.raises(Exception, match=r"4 of 8 clips have no row .*--transcriber toy_ear"):
            read_transcripts(root, "toy_ear")

"""Scoring stored features: linear in clips, bounded in memory, and the same scores as all at once."""

import pathlib
from collections import Counter
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage, tables
from cluster.errors import AffuseError, ConfigError, NotPreparedError
from cluster.unit_tables import publish_units, with_versions
from encoders.registry import describe
from jobs import score
from jobs.__main__ import run
from jobs.catalog.features import read_features
from jobs.catalog.layout import features_uri
from jobs.catalog.manifest import UnitRef, read_manifest, units
from jobs.scoring import member_nets, outlook, stacks, stored
from jobs.scoring.opening import open_bundle
from jobs.scoring.scorer import Scorer
from jobs.scoring.stored import spans

DIMS = {"toy_text": 3, "toy_audio": 2}


def features_of(clip_ids, dim, kind="float32", seed=0, most_steps=4):
    """FEATURES of some clips: one to some steps, noise that depends on the clip alone."""
    values, valid = [], []
    for clip in clip_ids:
        draws = np.random.default_rng([seed, int(clip)])
        steps = 1 + int(clip) % most_steps
        values.append(draws.normal(size=(steps, dim)).astype(kind).tolist())
        valid.append([True] * steps)
    times = pa.array([[0.0] * len(v) for v in valid], pa.list_(pa.float32()))
    element = tables.features(dim, kind).schema.field("values").type
    columns = {
        "clip_id": pa.array(clip_ids, pa.int64()),
        "values": pa.array(values, element),
        "step_start_s": times,
        "step_end_s": times,
        "valid": pa.array(valid, pa.list_(pa.bool_())),
        "status": ["ok"] * len(values),
        "error": pa.nulls(len(values), pa.string()),
    }
    return tables.features(dim, kind).conform(pa.table(columns))


def write_table(root, encoder, files, *, group=6, listed=True):
    """One feature table as some files of units, their row groups cut across units.

    Args:
        root: of a corpus.
        encoder: toy_text or toy_audio.
        files: units of each file, in its order.
        group: rows of a row group.
        listed: whether the files say which units they hold.
    """
    manifest = read_manifest(str(root), ["clip_id", "unit"])
    descriptor = describe(encoder)
    versions = {ref.unit: ref.version(descriptor.reads) for ref in units(str(root))}
    folder = features_uri(str(root), descriptor.folder)
    for number, names in enumerate(files):
        inside, parts = [], []
        for unit in names:
            ids = manifest.filter(pc.equal(manifest["unit"], unit))["clip_id"].to_pylist()
            inside.append((versions[unit], len(ids), 0))
            parts.append(features_of(ids, DIMS[encoder], descriptor.spec.dtype, seed=len(encoder)))
        table = pa.concat_tables(parts)
        if listed:
            table = with_versions(table, inside)
        storage.publish_table(table, f"{folder}/part-{number}.parquet", row_group_size=group)
    storage.publish_json(descriptor.facts() | {"manifest": "h"}, f"{folder}/descriptor.json")


def with_columns(root, **columns):
    """Values of columns in the manifest, in its order."""
    (file,) = (root / "manifest").glob("*/part-00000.parquet")
    table = storage.read_table(str(file))
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
    storage.publish_table(table, str(file), row_group_size=4)


def scored(root, **options):
    score.main(score.Config(root=str(root), bundle="b", source="features", **options))
    table = score.read_scores(str(root), options.get("name", "b")).sort_by("clip_id")
    return table.to_pylist()


def all_at_once(root):
    """The scores by one call on everything."""
    scorer = Scorer(open_bundle("b", str(root)), str(root))
    columns = ["clip_id", "name", "dialogue", "turn", "speaker", "group"]
    facts = read_manifest(str(root), columns).to_pylist()
    features = {f: read_features(str(root), f) for f in scorer.bundle.folders}
    return scorer.scores(facts, features).to_pylist()


def assert_equal(left, right):
    assert [row["clip_id"] for row in left] == [row["clip_id"] for row in right]
    for mine, theirs in zip(left, right, strict=True):
        assert dict(mine["probabilities"]) == pytest.approx(dict(theirs["probabilities"]), abs=1e-6)
        assert mine["label"] == theirs["label"]


def shuffled(names):
    """All tables gathered by an order that the manifest has no longer."""
    return [np.random.default_rng(0).permutation(names).tolist()]


@pytest.fixture
def reads(monkeypatch):
    """(file, row group) of feature tables -> how often it was read with its values."""
    counts = Counter()
    opened = storage.open_parquet

    class Counted:
        def __init__(self, uri, **how):
            self._uri, self._file = uri, opened(uri, **how)

        def __getattr__(self, name):
            return getattr(self._file, name)

        def _count(self, groups, columns):
            if "/features/" in self._uri and (columns is None or "values" in columns):
                counts.update((self._uri, group) for group in groups)

        def read(self, columns=None):
            self._count(range(self._file.num_row_groups), columns)
            return self._file.read(columns=columns)

        def read_row_group(self, group, columns=None):
            self._count([group], columns)
            return self._file.read_row_group(group, columns=columns)

        def read_row_groups(self, groups, columns=None):
            self._count(groups, columns)
            return self._file.read_row_groups(groups, columns=columns)

    monkeypatch.setattr(storage, "open_parquet", Counted)
    return counts


class TestReading:
    @pytest.fixture
    def root(self, toys, tmp_path):
        """500 clips in 125 units, more than one span."""
        toys.corpus.write_corpus(tmp_path, 500, seconds=0.01)
        toys.bundle.write_bundle(tmp_path)
        return tmp_path

    @pytest.mark.parametrize(
        ("text", "audio"),
        [
            (lambda names: [names], lambda names: [names]),
            (lambda names: [names[0::2], names[1::2]], lambda names: [names[::-1]]),
            (lambda names: [names[60:], names[:60]], lambda names: [names[i::2] for i in range(2)]),
            (shuffled, shuffled),
            (lambda names: [[name] for name in names[:9]] + [names[9:]], lambda names: [names]),
        ],
    )
    def test_every_row_group_is_read_once_however_units_lie(self, root, reads, text, audio):
        names = [ref.unit for ref in units(str(root))]
        write_table(root, "toy_text", text(names))
        write_table(root, "toy_audio", audio(names))
        rows = scored(root)
        assert len(rows) == 500
        assert set(reads.values()) == {1}
        assert len({uri for uri, _ in reads}) == len(text(names)) + len(audio(names))
        assert_equal(rows, all_at_once(root))

    def test_files_that_list_no_units_are_read_once_by_their_clips(self, root, reads):
        names = [ref.unit for ref in units(str(root))]
        write_table(root, "toy_text", [names], group=50)
        write_table(root, "toy_audio", [names[:60], names[60:]], group=50, listed=False)
        rows = scored(root)
        assert set(reads.values()) == {1}
        assert_equal(rows, all_at_once(root))

    @pytest.mark.parametrize(("spans_", "most_bytes"), [(1, 10**9), (3, 10**9), (8, 16_000)])
    def test_no_more_clips_are_in_hand_than_a_stack_holds(
        self, root, monkeypatch, spans_, most_bytes
    ):
        names = [ref.unit for ref in units(str(root))]
        write_table(root, "toy_text", [names])
        write_table(root, "toy_audio", [names])
        monkeypatch.setattr(stored, "SPAN_CLIPS", 40)
        monkeypatch.setattr(stored, "STACK_SPANS", spans_)
        monkeypatch.setattr(stacks, "STACK_BYTES", most_bytes)
        monkeypatch.setattr(stacks, "STACK_S", 1e9)
        sizes = []
        inner = Scorer.scores_in_turn

        def counted(self, facts, features, parts):
            sizes.append(len(facts))
            assert max(parts) <= 40
            assert sum(parts) == len(facts)
            assert {table.num_rows for table in features.values()} == {len(facts)}
            assert len(parts) == 1 or sum(t.nbytes for t in features.values()) <= most_bytes
            return inner(self, facts, features, parts)

        monkeypatch.setattr(Scorer, "scores_in_turn", counted)
        scored(root)
        assert sum(sizes) == 500
        assert max(sizes) <= 40 * spans_
        assert spans_ == 1 or max(sizes) > 40
        assert most_bytes == 10**9 or max(sizes) < 40 * spans_

    @pytest.mark.parametrize("modalities", [("toy_audio",), ("toy_text", "toy_audio")])
    def test_a_span_of_damaged_clips_costs_only_them(self, root, monkeypatch, modalities):
        names = [ref.unit for ref in units(str(root))]
        monkeypatch.setattr(stored, "SPAN_CLIPS", 8)
        for encoder in DIMS:
            write_table(root, encoder, [names])
            if encoder in modalities:
                (file,) = (root / "features").glob(f"{encoder}*/part-0.parquet")
                table = storage.read_table(str(file))
                damaged = [
                    [[np.nan] * DIMS[encoder]] * len(steps) if clip < 8 else steps
                    for clip, steps in zip(*table.select(["clip_id", "values"]), strict=True)
                    for clip, steps in [(clip.as_py(), steps.as_py())]
                ]
                at = table.column_names.index("values")
                column = pa.array(damaged, table.schema.field("values").type)
                storage.publish_table(table.set_column(at, "values", column), str(file))
        rows = scored(root)
        left = {"audio", "text"} - {encoder.removeprefix("toy_") for encoder in modalities}
        assert {row["status"] for row in rows[8:]} == {"ok"}
        assert {row["status"] for row in rows[:8]} == {"partial" if left else "failed"}
        assert all(set(row["modalities"] or ()) == left for row in rows[:8])
        assert all("steps are not finite" in row["error"] for row in rows[:8])

    def test_what_was_scored_before_a_stop_is_not_scored_again(self, root, monkeypatch, capsys):
        names = [ref.unit for ref in units(str(root))]
        write_table(root, "toy_text", [names])
        write_table(root, "toy_audio", [names])
        monkeypatch.setattr(stored, "SPAN_CLIPS", 100)
        monkeypatch.setattr(stored, "STACK_SPANS", 1)
        published = []

        def stops(uri, inside, rows):
            if published:
                raise KeyboardInterrupt
            published.append(len(rows))
            publish_units(uri, inside, rows)

        monkeypatch.setattr(stored, "FILE_CLIPS", 200)
        with monkeypatch.context() as patch:
            patch.setattr(stored, "publish_units", stops)
            with pytest.raises(KeyboardInterrupt):
                scored(root)
        rows = scored(root)
        assert "300 of 500 clips to score" in capsys.readouterr().out
        assert_equal(rows, all_at_once(root))

    @pytest.mark.parametrize("named", [True, False])
    def test_the_outlook_names_as_many_after_a_stop_as_in_one_pass(self, root, monkeypatch, named):
        names = [ref.unit for ref in units(str(root))]
        write_table(root, "toy_text", [names])
        write_table(root, "toy_audio", [names])
        with_columns(root, group=[f"g{row % 7}" if named else None for row in range(500)])
        counted = mock.Mock(wraps=outlook.groups_in)
        monkeypatch.setattr(outlook, "groups_in", counted)
        scored(root)
        assert counted.call_count == 0
        once = storage.read_json(f"{root}/scores/b/outlook.json")
        assert once["people"] == (7 if named else 1)
        scored(root)
        assert counted.call_count == 1
        assert storage.read_json(f"{root}/scores/b/outlook.json") == once

    def test_units_of_which_other_things_are_read_are_scored_again_and_no_others(
        self, root, capsys
    ):
        names = [ref.unit for ref in units(str(root))]
        write_table(root, "toy_text", [names])
        write_table(root, "toy_audio", [names])
        scored(root)
        keys = [{"text": "a typo mended" if unit == names[3] else None} for unit in names]
        with_columns(root, keys=[each for each in keys for _ in range(4)])
        with pytest.raises(NotPreparedError, match=r"4 of 500 clips .* type: affuse encode"):
            scored(root)
        write_table(root, "toy_text", [names])
        capsys.readouterr()
        rows = scored(root)
        assert "4 of 500 clips to score" in capsys.readouterr().out
        assert len({row["clip_id"] for row in rows}) == len(rows) == 500

    def test_a_table_that_lacks_rows_is_refused_with_what_to_type(self, root):
        names = [ref.unit for ref in units(str(root))]
        write_table(root, "toy_text", [names])
        write_table(root, "toy_audio", [names[:-1]])
        with pytest.raises(NotPreparedError, match=r"4 of 500 clips .* type: affuse encode"):
            scored(root)


class TestWhatBelongsTogether:
    def test_a_net_over_dialogues_sees_each_of_them_whole(self, toys, tmp_path, monkeypatch):
        toys.corpus.write_corpus(tmp_path, 120, seconds=0.01)
        # Nine turns a dialogue, four clips a unit: dialogues and units straddle each other.
        with_columns(
            tmp_path,
            dialogue=[f"d{i // 9}" if i < 100 else None for i in range(120)],
            turn=[i % 9 for i in range(120)],
        )
        toys.bundle.write_bundle(tmp_path, net="sdt")
        names = [ref.unit for ref in units(str(tmp_path))]
        for encoder in DIMS:
            write_table(tmp_path, encoder, [names])
        monkeypatch.setattr(stored, "SPAN_CLIPS", 20)
        rows = scored(tmp_path)
        assert_equal(rows, all_at_once(tmp_path))

    def test_a_stream_is_refused_where_there_are_dialogues_and_taken_where_none(
        self, toys, tmp_path, monkeypatch, capsys
    ):
        toys.corpus.write_corpus(tmp_path, 8, seconds=0.01)
        toys.bundle.write_bundle(tmp_path, net="sdt")

        def stream(*_given):
            raise AffuseError("the clips are streamed")

        monkeypatch.setattr(score, "score_clips", stream)
        command = ["score", "--root", str(tmp_path), "--bundle", "b", "--source", "clips"]
        assert run(command) == 1
        assert "the clips are streamed" in capsys.readouterr().err
        with_columns(tmp_path, dialogue=["d0"] * 8)
        assert run(command) == 2
        assert "type first: affuse encode" in capsys.readouterr().err

    def test_statistics_of_a_speaker_are_over_all_of_their_clips(self, toys, tmp_path, monkeypatch):
        toys.corpus.write_corpus(tmp_path, 120, seconds=0.01)
        with_columns(tmp_path, speaker=[f"s{i // 16}" for i in range(120)])
        toys.bundle.write_bundle(tmp_path, normalise="speaker")
        names = [ref.unit for ref in units(str(tmp_path))]
        for encoder in DIMS:
            write_table(tmp_path, encoder, [names])
        monkeypatch.setattr(stored, "SPAN_CLIPS", 20)
        assert_equal(scored(tmp_path), all_at_once(tmp_path))

    @given(
        dialogues=st.lists(st.integers(0, 12) | st.none(), min_size=1, max_size=60),
        unit_size=st.integers(1, 5),
        done=st.sets(st.integers(0, 60)),
        bound=st.integers(1, 25),
    )
    def test_spans_part_no_dialogue_and_miss_no_unit(self, dialogues, unit_size, done, bound):
        unit = [f"u{row // unit_size}" for row in range(len(dialogues))]
        names = list(dict.fromkeys(unit))
        refs = [
            UnitRef(unit=name, file="", row_group=0, num_clips=unit.count(name), cost=0)
            for name in names
        ]
        values = pa.array([None if d is None else str(d) for d in dialogues], pa.string())
        table = pa.table({"unit": unit, "dialogue": values})
        finished = {f"u{number}" for number in done}
        with mock.patch.object(stored, "read_manifest", return_value=table):
            found = [*spans("", refs, finished, ["dialogue"], bound)]
        flat = [ref.unit for span in found for ref in span]
        assert len(flat) == len(set(flat))
        assert set(names) - finished <= set(flat)
        span_of = {ref.unit: number for number, span in enumerate(found) for ref in span}
        for dialogue in {d for d in dialogues if d is not None}:
            of = {u for u, d in zip(unit, dialogues, strict=True) if d == dialogue}
            assert len({span_of.get(u) for u in of}) == 1
        # Without anything that links units a span is bounded, and nothing that is done is done again.
        loose = [*spans("", refs, finished, [], bound)]
        assert {ref.unit for span in loose for ref in span} == set(names) - finished


class TestImportedInputs:
    def test_are_scored_where_all_are_there_and_refused_with_the_way_where_not(
        self, toys, tmp_path, capsys
    ):
        toys.corpus.write_corpus(tmp_path, 24, seconds=0.01)
        np.savez(
            tmp_path / "loud.npz",
            x=np.random.default_rng(0).normal(size=(24, 2)).astype(np.float32),
            name=np.array([f"c{i}" for i in range(24)]),
        )
        root = str(tmp_path)
        typed = [
            "--file",
            f"{root}/loud.npz",
            "--array",
            "x",
            "--name",
            "loud",
            "--modality",
            "audio",
        ]
        assert run(["features", "import", "--root", root, *typed]) == 0
        (folder,) = storage.names(features_uri(root))
        facts = storage.read_json(features_uri(root, f"{folder}/descriptor.json"))
        sound = {
            "features": folder, "name": "loud", "options": {}, "pool": "mean",
            "fingerprint": facts.get("fingerprint"),
        }  # fmt: skip
        toys.bundle.write_bundle(tmp_path, sound=sound)
        write_table(tmp_path, "toy_text", [[ref.unit for ref in units(root)]])
        capsys.readouterr()
        assert run(["score", "--root", root, "--bundle", "b", "--source", "features"]) == 0
        rows = score.read_scores(root, "b").sort_by("clip_id").to_pylist()
        assert_equal(rows, all_at_once(tmp_path))
        assert {tuple(row["modalities"]) for row in rows} == {("audio", "text")}
        assert run(["score", "--root", root, "--bundle", "b", "--name", "auto"]) == 0

        capsys.readouterr()
        assert (
            run(["score", "--root", root, "--bundle", "b", "--name", "raw", "--source", "clips"])
            == 2
        )
        assert "was imported: no encoder makes it for other clips" in capsys.readouterr().err
        with pytest.raises(ConfigError, match="affuse features import"):
            score.main(score.Config(clips=(str(tmp_path / "media"),), root=root, bundle="b"))
        storage.remove(
            features_uri(
                root, f"{folder}/{storage.names(features_uri(root, folder), '.parquet')[0]}"
            )
        )
        assert run(["score", "--root", root, "--bundle", "b", "--name", "less"]) == 1
        assert "type: affuse features import" in capsys.readouterr().err
        storage.remove(features_uri(root, f"{folder}/descriptor.json"))
        assert run(["score", "--root", root, "--bundle", "b", "--name", "none"]) == 1
        assert "--name loud --file FILE" in capsys.readouterr().err

    @pytest.fixture
    def imported(self, toys):
        """Writes a dataset of some clips with imported sound and words; returns its root."""

        def write(folder, count, dim=2):
            toys.corpus.write_corpus(folder, count, seconds=0.01)
            loud = np.random.default_rng(0).normal(size=(24, dim)).astype(np.float32)[:count]
            names = np.array([f"c{i}" for i in range(count)])
            np.savez(folder / "loud.npz", x=loud, name=names)
            typed = ["--array", "x", "--name", "loud", "--modality", "audio"]
            file = str(folder / "loud.npz")
            root = str(folder)
            assert run(["features", "import", "--root", root, "--file", file, *typed]) == 0
            write_table(folder, "toy_text", [[ref.unit for ref in units(root)]])
            return root

        return write

    @pytest.fixture
    def trained(self, toys, imported, tmp_path):
        """The dataset on which a bundle was trained, with its scores."""
        root = imported(tmp_path / "trained", 24)
        (folder,) = (name for name in storage.names(features_uri(root)) if "loud" in name)
        sound = {"features": folder, "name": "loud", "options": {}, "pool": "mean"}
        toys.bundle.write_bundle(tmp_path / "trained", sound=sound)
        assert run(["score", "--root", root, "--bundle", "b"]) == 0
        return root

    def test_of_other_clips_stand_under_their_name_for_those_of_the_training(
        self, trained, imported, tmp_path, capsys
    ):
        other = imported(tmp_path / "other", 12)
        bundle = ["--bundle", f"{trained}/bundles/b"]
        for _ in range(2):
            assert run(["score", "--root", other, *bundle, "--per", "speaker"]) == 0
            said = capsys.readouterr().out
            assert "input loud: loud-" in said
            assert "imported here, stands for loud-" in said
        rows = score.read_scores(other, "b").sort_by("clip_id").to_pylist()
        assert_equal(rows, score.read_scores(trained, "b").sort_by("clip_id").to_pylist()[:12])
        assert {tuple(row["modalities"]) for row in rows} == {("audio", "text")}

    def test_two_of_that_name_are_refused_with_what_can_be_done(
        self, trained, imported, tmp_path, capsys
    ):
        other, command = imported(tmp_path / "other", 12), ["--bundle", f"{trained}/bundles/b"]
        imported(tmp_path / "other", 12, dim=3)  # the same name, other content
        (wrong,) = (
            name
            for name in storage.names(features_uri(other))
            if name.startswith("loud")
            and storage.read_json(features_uri(other, f"{name}/descriptor.json"))["dim"] == 3
        )
        assert run(["score", "--root", other, *command]) == 2
        said = capsys.readouterr().err
        assert wrong in said
        assert "move those that are not meant out of there" in said
        pathlib.Path(features_uri(other, wrong)).rename(tmp_path / wrong)
        assert run(["score", "--root", other, *command]) == 0

    def test_of_another_width_are_refused(self, trained, imported, tmp_path, capsys):
        other = imported(tmp_path / "other", 12, dim=3)
        assert run(["score", "--root", other, "--bundle", f"{trained}/bundles/b"]) == 2
        said = capsys.readouterr().err
        assert "has 3 features a step, and the bundle was trained on loud of 2" in said

    def test_of_other_clips_that_have_none_say_what_to_type(self, trained, toys, tmp_path, capsys):
        other = toys.corpus.write_corpus(tmp_path / "other", 12, seconds=0.01)
        assert run(["score", "--root", str(other), "--bundle", f"{trained}/bundles/b"]) == 1
        assert f"features import --root {other} --name loud --file FILE" in capsys.readouterr().err


class TestBatches:
    @pytest.mark.parametrize("net", ["concat_mlp", "lf_dnn", "self_mm"])
    def test_no_bit_of_an_answer_depends_on_how_many_rows_of_one_step_a_net_is_given(
        self, toys, tmp_path, monkeypatch, net
    ):
        toys.corpus.write_corpus(tmp_path, 300, seconds=0.01)
        toys.bundle.write_bundle(tmp_path, net=net)
        scorer = Scorer(open_bundle("b", str(tmp_path)), str(tmp_path))
        facts = read_manifest(str(tmp_path), ["clip_id", "name"])
        features = {
            describe(encoder).folder: features_of(facts["clip_id"].to_pylist(), dim, most_steps=1)
            for encoder, dim in DIMS.items()
        }
        whole = scorer.scores(facts, features)
        assert whole["label"].null_count == 0
        for rows in (64, 100, 128):  # of one row or few a matrix is multiplied otherwise
            monkeypatch.setattr(member_nets, "ROWS_OF_ONE_STEP", rows)
            assert scorer.scores(facts.to_pylist()[::-1], features).equals(whole)

    @pytest.mark.parametrize("most_steps", [1, 4])
    @pytest.mark.parametrize("net", ["concat_mlp", "lf_dnn", "mult"])
    def test_no_bit_of_an_answer_depends_on_what_is_scored_in_the_same_call(
        self, toys, tmp_path, net, most_steps
    ):
        toys.corpus.write_corpus(tmp_path, 300, seconds=0.01)
        toys.bundle.write_bundle(tmp_path, net=net)
        scorer = Scorer(open_bundle("b", str(tmp_path)), str(tmp_path))
        facts = read_manifest(str(tmp_path), ["clip_id", "name"])
        facts = facts.take(pa.array(np.random.default_rng(0).permutation(len(facts))))
        ids = facts["clip_id"].to_pylist()
        features = {
            describe(encoder).folder: features_of(ids, dim, most_steps=most_steps)
            for encoder, dim in DIMS.items()
        }
        sizes = (7, 128, 1, 100, 64)
        together = scorer.scores_in_turn(facts, features, sizes)
        assert together["clip_id"].to_pylist() == ids
        assert together["label"].null_count == 0
        parts, start = [], 0
        for size in sizes:
            rows = facts.slice(start, size)
            mine = {folder: table.slice(start, size) for folder, table in features.items()}
            parts.append(scorer.scores_in_turn(rows, mine))
            by_id = scorer.scores(rows, mine)
            assert by_id.equals(parts[-1].sort_by("clip_id"))
            start += size
        assert together.equals(pa.concat_tables(parts))


class TestStackSize:
    """How much is scored by one call follows from how long the last one took."""

    def test_one_span_is_tried_then_as_many_as_a_second_holds(self, monkeypatch):
        monkeypatch.setattr(stacks, "STACK_S", 1.0)
        size = stacks.StackSize(8)
        assert size.spans == 1
        found = []
        for seconds in (0.3, 0.9, 0.01, 0.5, 20.0, 3.0):
            size.took(seconds, size.spans)
            found.append(size.spans)
        assert found == [3, 3, 8, 8, 1, 1]

    @given(st.lists(st.integers(1, 5), max_size=30), st.integers(1, 4), st.integers(1, 2000))
    def test_every_span_comes_once_in_its_order(self, counts, at_once, most_bytes):
        size = stacks.StackSize(4)
        size.spans = at_once
        read = []
        for number, count in enumerate(counts):
            rows = pa.table({"clip_id": [number] * count})
            read.append(stacks.Stack([f"u{number}"], [count], rows, {"f": rows}))
        with mock.patch.object(stacks, "STACK_BYTES", most_bytes):
            made = [*stacks.stacks(iter(read), size)]
        assert [ref for stack in made for ref in stack.refs] == [one.refs[0] for one in read]
        assert [count for stack in made for count in stack.counts] == counts
        for stack in made:
            assert stack.clips["clip_id"].to_pylist() == stack.features["f"]["clip_id"].to_pylist()
            assert len(stack.counts) <= at_once
            assert len(stack.counts) == 1 or stack.num_bytes <= most_bytes


class TestThreads:
    """A span is read and a file written beside the scoring: neither fault is lost, nor any row behind it."""

    def test_what_is_read_ahead_comes_in_order_and_a_fault_at_its_place(self):
        def read():
            yield from range(5)
            raise NotPreparedError("gathered by another job")

        found = []
        with pytest.raises(NotPreparedError, match="gathered by another job"):
            found.extend(stored.ahead(read()))
        assert found == [0, 1, 2, 3, 4]

    def test_one_that_stops_early_has_read_one_more_at_most(self):
        begun = []
        reading = stored.ahead(begun.append(number) or number for number in range(9))
        assert next(reading) == 0
        reading.close()
        assert begun in ([0], [0, 1])

    def test_a_file_that_could_not_be_written_ends_the_job_and_the_rows_behind_it_are_kept(
        self, monkeypatch
    ):
        kept = []

        def publish(uri, inside, rows):
            if not kept:
                kept.append("refused")
                raise OSError(28, "no space left")
            kept.extend(rows["row"].to_pylist())

        monkeypatch.setattr(stored, "publish_units", publish)
        monkeypatch.setattr(stored, "FILE_CLIPS", 2)

        def score_all():
            with stored.Gathering("nowhere") as out:
                for row in range(0, 8, 2):
                    out.add([(row, 2)], pa.table({"row": [row, row + 1]}))

        with pytest.raises(OSError, match="no space left"):
            score_all()
        assert kept == ["refused", 2, 3]


class TestGroups:
    """How many people there are follows from the clips as they are read, or from the manifest."""

    @given(st.lists(st.lists(st.sampled_from([None, "a", "b", "c", "d"]), max_size=6), max_size=8))
    def test_texts_are_counted_once_and_null_not_at_all(self, parts):
        seen = stored.Distinct()
        for part in parts:
            seen.add(pa.chunked_array([part], pa.string()))
        assert len(seen) == len({text for part in parts for text in part} - {None})

    def test_of_many_texts_none_is_held_twice_for_long(self):
        seen = stored.Distinct()
        texts = pa.chunked_array([[f"speaker {number}" for number in range(5000)]])
        for _ in range(100):
            seen.add(texts)
            assert sum(map(len, seen._seen.chunks)) <= 65536 + 5000
        assert len(seen) == 5000

"""`affuse verify`: a whole root is sound, every kind of fault is found and named, nothing is touched."""

import json
import os
import shlex
import shutil
import time
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage, tables
from cluster.unit_tables import UNITS_KEY, publish_unit
from jobs import verify
from jobs.__main__ import run
from jobs.catalog.compaction import compact
from jobs.catalog.layout import former_uri, transcripts_uri
from jobs.catalog.manifest import read_unit, units
from jobs.verification import leftovers
from jobs.verification.findings import KINDS
from jobs.verification.rows import not_finite

COUNT = 24
TRAIN = [
    "train", "--root", "root", "--inputs", "au", "--folds", "group3", "--epochs", "2", "--no-tracking",
    "--net-options", "hidden=8",
]  # fmt: skip
CHAIN = [
    ["prepare", "folder", "--source", "clips", "--labels", "labels.csv", "--root", "root", "--tasks",
     "mood=classification", "joy=regression", "--folds", "3", "--workers", "1", "--unit-clips", "4"],
    ["features", "import", "--root", "root", "--file", "au.npz", "--array", "x", "--name", "au",
     "--modality", "video"],
    [*TRAIN, "--run", "one", "--tasks", "mood"],
    [*TRAIN, "--run", "two", "--tasks", "mood", "--seeds", "1"],
    ["ensemble", "--root", "root", "--runs", "one", "two", "--task", "mood", "--resamples", "100"],
    ["evaluate", "--root", "root", "--bundle", "ensemble", "--resamples", "100"],
    ["score", "--root", "root", "--bundle", "ensemble"],
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A root on which every job ran that needs neither Ray nor weights, with transcripts beside it."""
    base = tmp_path_factory.mktemp("whole")
    (base / "clips").mkdir()
    lines = ["name,mood,joy,speaker,split"]
    for k in range(COUNT):
        soundfile.write(base / "clips" / f"c{k}.wav", np.zeros(800, np.float32), 8000)
        split = "test" if k % 8 > 5 else "train"
        lines.append(f"c{k},{'abc'[k % 3]},{k / 10},s{k % 8},{split}")
    (base / "labels.csv").write_text("\n".join(lines) + "\n")
    values = (
        np.random.default_rng(0).normal(size=(COUNT, 3, 4)) + np.arange(COUNT)[:, None, None] % 3
    )
    names = np.array([f"c{k}" for k in range(COUNT)])
    np.savez(base / "au.npz", x=values.astype("f4"), name=names)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        for words in CHAIN:
            assert run(words) == 0, words
    write_transcripts(str(base / "root"))
    return base / "root"


def write_transcripts(root):
    """What a transcriber heard, in one file a unit."""
    uri = transcripts_uri(root, "whisper_tiny_en_asr-1")
    facts = {"name": "whisper_tiny_en_asr", "options": {}, "reads": ["heard"]}
    storage.publish_json(facts, f"{uri}/descriptor.json")
    for ref in units(root):
        words = [{"text": "so", "start_s": 0.0, "end_s": 0.1}]
        rows = [
            {"clip_id": clip, "text": "so", "words": words, "language": "en", "confidence": 0.5,
             "status": "ok", "error": None}
            for clip in read_unit(ref)["clip_id"].to_pylist()
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows, tables.TRANSCRIPTS.schema)
        publish_unit(uri, ref.version(["heard"]), tables.TRANSCRIPTS.conform(table))


@pytest.fixture
def root(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "root"))


def found_in(root, tmp_path, *words):
    """Exit status and kinds of fault by table."""
    out = tmp_path / f"{uuid.uuid4().hex}.json"
    status = run(["verify", "--root", str(root), "--json", str(out), *words])
    facts = json.loads(out.read_text())
    assert facts["sound"] == (status == 0)
    return status, {t["table"]: t["faults"] for t in facts["tables"] if t["faults"]}


def snapshot(root):
    return {p: p.stat().st_mtime_ns for p in sorted(Path(root).rglob("*"))}


def test_what_the_jobs_wrote_is_sound_and_stays_as_it_is(whole, capsys):
    before = snapshot(whole)
    assert run(["verify", "--root", str(whole)]) == 0
    said = capsys.readouterr().out
    for table in ("manifest/", "folds/group3", "features/au-", "transcripts/", "runs/one", "runs/two",
                  "bundles/ensemble", "scores/ensemble", "units/"):  # fmt: skip
        assert f"{table}" in said
    assert said.splitlines()[-1].startswith("sound: 9 tables, ")
    assert snapshot(whole) == before


# ---- faults, made through files


def only(root, pattern):
    (path,) = Path(root).glob(pattern)
    return path


def first(root, pattern):
    return sorted(Path(root).glob(pattern))[0]


def rewrite(path, change):
    """Write a Parquet file anew, its footer kept; one row group a unit in a manifest, as it was."""
    parquet = pq.ParquetFile(path)
    groups = [parquet.read_row_group(n) for n in range(parquet.num_row_groups)]
    metadata = parquet.schema_arrow.metadata
    table = change(pa.concat_tables(groups))
    metadata = {**metadata, **(table.schema.metadata or {})}
    size = groups[0].num_rows if len({g.num_rows for g in groups}) == 1 else None
    storage.publish_table(table.replace_schema_metadata(metadata), str(path), row_group_size=size)


def column(path, name, change, type_=None):
    """Change the values of one column."""

    def changed(table):
        kind = type_ or table.schema.field(name).type
        values = pa.array(change(table[name].to_pylist()), kind)
        return table.set_column(table.column_names.index(name), name, values)

    rewrite(path, changed)


def at(place, value):
    """A change of one value, by the value or by a function of it."""

    def change(values):
        values = list(values)
        values[place] = value(values[place]) if callable(value) else value
        return values

    return change


def units_listed(path, change):
    def changed(table):
        listed = json.loads(pq.ParquetFile(path).schema_arrow.metadata[UNITS_KEY])
        return table.replace_schema_metadata({UNITS_KEY: json.dumps(change(listed)).encode()})

    rewrite(path, changed)


def document(path, change):
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    """One bit of the numbers of the first column, the ids of the clips."""
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[begin + chunk.total_compressed_size - 2] ^= 1
    path.write_bytes(content)


def without_last_unit(path):
    def changed(table):
        listed = json.loads(table.schema.metadata[UNITS_KEY])
        metadata = {UNITS_KEY: json.dumps(listed[:-1]).encode()}
        return table.slice(0, len(table) - listed[-1][2]).replace_schema_metadata(metadata)

    rewrite(path, changed)


def copied(path, name):
    shutil.copy(path, path.with_name(name))


AU, SCORES = "features/au-*/*.parquet", "scores/ensemble/*.parquet"
MANIFEST, FOLDS = "manifest/*/*.parquet", "folds/group3.parquet"
PART = "runs/one/fold=1/seed=0"
PREDICTIONS = f"{PART}/predictions.parquet"
NET = "bundles/ensemble/nets/one/seed=0/model.safetensors"


def nan_step(steps):
    return [[float("nan"), *steps[0][1:]], *steps[1:]]


FAULTS = {
    "features without the rows of a unit": (
        "features", {"missing"}, lambda r: without_last_unit(only(r, AU))),
    "features that stand in two files": (
        "features", {"twice"}, lambda r: copied(only(r, AU), "part-0123456789abcdef.parquet")),
    "features of another version of a unit": (
        "features", {"left", "missing"},
        lambda r: units_listed(only(r, AU), lambda u: [[u[0][0], "other", *u[0][2:]], *u[1:]])),
    "features under the names of other clips": (
        "features", {"misplaced", "missing"},
        lambda r: column(only(r, AU), "clip_id", lambda ids: [ids[-1], *ids[1:-1], ids[0]])),
    "a clip that stands twice in its unit": (
        "features", {"twice", "missing"},
        lambda r: column(only(r, AU), "clip_id", lambda ids: [ids[1], *ids[1:]])),
    "a footer with another number of rows": (
        "features", {"footer", "missing"},
        lambda r: units_listed(only(r, AU), lambda u: [[*u[0][:2], u[0][2] + 1, 0], *u[1:]])),
    "a footer with another number of failed rows": (
        "features", {"footer"},
        lambda r: units_listed(only(r, AU), lambda u: [[*u[0][:3], 1], *u[1:]])),
    "a unit's file under another unit's name": (
        "transcripts", {"footer"},
        lambda r: first(r, "transcripts/*/*.parquet").rename(
            first(r, "transcripts/*/*.parquet").with_name("u1-k1.parquet"))),
    "a table of another version": (
        "features", {"schema", "missing"},
        lambda r: rewrite(only(r, AU), lambda t: t.replace_schema_metadata(
            {b"affuse.schema": b"FEATURES/0"}))),
    "a column that is not there": (
        "features", {"schema", "missing"},
        lambda r: rewrite(only(r, AU), lambda t: t.drop_columns(["valid"]))),
    "a column of another type": (
        "features", {"schema", "missing"},
        lambda r: column(only(r, AU), "status", lambda v: [1] * len(v), pa.int64())),
    "a row of no clip": (
        "features", {"misplaced", "missing"}, lambda r: column(only(r, AU), "clip_id", at(0, None))),
    "a footer with fewer rows than none": (
        "features", {"footer", "missing"},
        lambda r: units_listed(only(r, AU), lambda u: [
            [*u[0][:2], -1, 0], [*u[1][:2], u[0][2] + u[1][2] + 1, 0], *u[2:]])),
    "features that are not finite": (
        "features", {"values"}, lambda r: column(only(r, AU), "values", at(2, nan_step))),
    "fewer flags than steps": (
        "features", {"steps"}, lambda r: column(only(r, AU), "valid", at(3, [True]))),
    "a step that ends before it starts": (
        "features", {"steps"},
        lambda r: [column(only(r, AU), f"step_{end}_s", at(0, [value] * 3))
                   for end, value in (("start", 2.0), ("end", 1.0))]),
    "an unknown status": (
        "features", {"status"}, lambda r: column(only(r, AU), "status", at(1, "fine"))),
    "ok without values": (
        "features", {"status", "steps"}, lambda r: column(only(r, AU), "values", at(1, None))),
    "missing with values": (
        "features", {"status"}, lambda r: column(only(r, AU), "status", at(1, "missing"))),
    "ok with an error": (
        "features", {"status"}, lambda r: column(only(r, AU), "error", at(1, "timeout: 9 s"))),
    "half a file of features": (
        "features", {"unreadable", "missing"}, lambda r: truncated(only(r, AU))),
    "a bit of features that has changed": (
        "features", {"unreadable", "missing"}, lambda r: flipped(only(r, AU))),
    "a table without its descriptor": (
        "features", {"absent"}, lambda r: only(r, "features/au-*/descriptor.json").unlink()),
    "a descriptor that is no JSON": (
        "features", {"unreadable"},
        lambda r: only(r, "features/au-*/descriptor.json").write_text("{")),
    "a transcript without text": (
        "transcripts", {"status"},
        lambda r: column(first(r, "transcripts/*/*.parquet"), "text", at(0, None))),
    "a word that ends before it starts": (
        "transcripts", {"steps"},
        lambda r: column(first(r, "transcripts/*/*.parquet"), "words",
                         at(0, [{"text": "so", "start_s": 2.0, "end_s": 1.0}]))),
    "a confidence that is not finite": (
        "transcripts", {"values"},
        lambda r: column(first(r, "transcripts/*/*.parquet"), "confidence", at(0, float("nan")))),
    "a class that the task has not": (
        "manifest", {"labels"}, lambda r: column(only(r, MANIFEST), "mood", at(0, "z"))),
    "a length that is not finite": (
        "manifest", {"values"}, lambda r: column(only(r, MANIFEST), "duration_s", at(0, float("inf")))),
    "a value that is not finite": (
        "manifest", {"labels"}, lambda r: column(only(r, MANIFEST), "joy", at(0, float("nan")))),
    "a clip that ends before it starts": (
        "manifest", {"steps"},
        lambda r: [column(only(r, MANIFEST), f"{end}_s", at(0, value))
                   for end, value in (("start", 2.0), ("end", 1.0))]),
    "people in two splits": (
        "manifest", {"divided"}, lambda r: column(only(r, MANIFEST), "split", at(0, "valid"))),
    "a clip that stands twice in the manifest": (
        "manifest", {"twice"},
        lambda r: column(only(r, MANIFEST), "clip_id", lambda ids: [ids[1], *ids[1:]])),
    "half a manifest": ("manifest", {"unreadable"}, lambda r: truncated(only(r, MANIFEST))),
    "a bit of the manifest that has changed": (
        "manifest", {"unreadable"}, lambda r: flipped(only(r, MANIFEST))),
    "no manifest": ("manifest", {"absent"}, lambda r: only(r, MANIFEST).unlink()),
    "people in two folds": (
        "folds", {"divided"}, lambda r: column(only(r, FOLDS), "fold", at(0, lambda f: (f + 1) % 3))),
    "a clip with two folds": (
        "folds", {"twice"}, lambda r: rewrite(only(r, FOLDS), lambda t: pa.concat_tables([t, t[:1]]))),
    "a fold of a clip that left": (
        "folds", {"left"}, lambda r: column(only(r, FOLDS), "clip_id", at(0, 5))),
    "half a file of folds": ("folds", {"unreadable"}, lambda r: truncated(only(r, FOLDS))),
    "a run that was stopped": (
        "runs/one", {"unfinished"}, lambda r: only(r, "runs/one/summary.json").unlink()),
    "a part that was stopped": (
        "runs/one", {"unfinished"}, lambda r: only(r, PREDICTIONS).unlink()),
    "predictions of another fold": (
        "runs/one", {"misplaced"}, lambda r: column(only(r, PREDICTIONS), "fold", at(0, 2))),
    "predictions of the test split": (
        "runs/one", {"misplaced", "missing"},
        lambda r: column(only(r, PREDICTIONS), "role", lambda v: ["test" if x == "oof" else x for x in v])),
    "predictions that are not finite": (
        "runs/one", {"values"},
        lambda r: column(only(r, PREDICTIONS), "scores", at(0, lambda s: [float("inf"), *s[1:]]))),
    "predictions of too few classes": (
        "runs/one", {"labels"}, lambda r: column(only(r, PREDICTIONS), "scores", at(0, lambda s: s[1:]))),
    "a clip that is predicted twice": (
        "runs/one", {"twice"},
        lambda r: rewrite(only(r, PREDICTIONS), lambda t: pa.concat_tables([t, t[:1]]))),
    "a clip that no fold held out": (
        "runs/one", {"missing"},
        lambda r: rewrite(only(r, PREDICTIONS), lambda t: t.filter(pc.not_equal(t["role"], "oof")))),
    "predictions of clips that left": (
        "runs/one", {"left"},
        lambda r: column(only(r, PREDICTIONS), "clip_id", lambda ids: [ids[0] + 1, *ids[1:]]),
    ),
    "half a file of predictions": (
        "runs/one", {"unreadable", "missing"}, lambda r: truncated(only(r, PREDICTIONS))),
    "half a net": ("runs/one", {"weights"}, lambda r: truncated(only(r, f"{PART}/model.safetensors"))),
    "a net without its card": ("runs/one", {"absent"}, lambda r: only(r, f"{PART}/model.json").unlink()),
    "a card of a net that there is none of": (
        "runs/one", {"weights"},
        lambda r: document(only(r, f"{PART}/model.json"), lambda f: f.update(net="bigger"))),
    "a net with a weight that is not finite": (
        "runs/one", {"values"}, lambda r: spoilt(only(r, f"{PART}/model.safetensors"))),
    "another net than was bundled": (
        "bundles/ensemble", {"weights"},
        lambda r: shutil.copy(only(r, f"{PART}/model.safetensors"), only(r, NET))),
    "a bundle without a net": ("bundles/ensemble", {"weights"}, lambda r: only(r, NET).unlink()),
    "a bundle whose facts are cut off": (
        "bundles/ensemble", {"unreadable"}, lambda r: truncated(only(r, "bundles/*/bundle.json"))),
    "a bundle without its results": (
        "bundles/ensemble", {"absent"}, lambda r: only(r, "bundles/*/results.json").unlink()),
    "results of a bundle that are cut off": (
        "bundles/ensemble", {"unreadable"}, lambda r: truncated(only(r, "bundles/*/results.json"))),
    "fused predictions that are cut off": (
        "bundles/ensemble", {"unreadable"}, lambda r: truncated(only(r, "bundles/*/fused.parquet"))),
    "what people left out would meet, cut off": (
        "bundles/ensemble", {"unreadable"}, lambda r: truncated(only(r, "bundles/*/covered.parquet"))),
    "scores without the rows of a unit": (
        "scores", {"missing"}, lambda r: without_last_unit(only(r, SCORES))),
    "scores that stand in two files": (
        "scores", {"twice"}, lambda r: copied(only(r, SCORES), "part-0123456789abcdef.parquet")),
    "probabilities that do not sum to 1": (
        "scores", {"labels"},
        lambda r: column(only(r, SCORES), "probabilities", at(0, lambda p: [(c, 0.2) for c, _ in p]))),
    "a label that the bundle has not": (
        "scores", {"labels"}, lambda r: column(only(r, SCORES), "label", at(0, ["z"]))),
    "a score without a label": (
        "scores", {"status"}, lambda r: column(only(r, SCORES), "label", at(0, None))),
    "scores without what they were made with": (
        "scores", {"absent"}, lambda r: only(r, "scores/*/bundle.json").unlink()),
}  # fmt: skip


def spoilt(path):
    from safetensors.numpy import load_file, save

    state = load_file(path)
    name = next(key for key, value in state.items() if value.dtype.kind == "f" and value.size)
    state[name] = state[name] * np.float32("nan")
    path.write_bytes(save(state))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_where_it_is_and_said_with_what_to_type(name, root, tmp_path, capsys):
    table, kinds, make = FAULTS[name]
    make(root)
    status, faults = found_in(root, tmp_path)
    assert status == 1
    (where,) = [each for each in faults if each.startswith(table)]
    assert {fault["kind"] for fault in faults[where]} == kinds, faults
    assert table == "manifest" or list(faults) == [where], faults
    for fault in faults[where]:
        assert 0 < len(fault["examples"]) <= 5
        assert "type: affuse " in fault["mend"]
    said = capsys.readouterr()
    assert f"{faults[where][0]['kind']}: " in said.out
    assert said.err.count("\n") == 1


def test_every_kind_of_fault_is_made_here():
    assert set().union(*(kinds for _, kinds, _ in FAULTS.values())) == set(KINDS)


def test_several_faults_are_all_found_and_at_most_five_examples_named(root, tmp_path, capsys):
    column(only(root, AU), "status", lambda v: ["fine"] * len(v))
    truncated(only(root, FOLDS))
    status, faults = found_in(root, tmp_path)
    assert status == 1
    assert len(faults) == 2
    (fault,) = next(f for t, f in faults.items() if t.startswith("features"))
    assert fault["count"] == COUNT
    assert len(fault["examples"]) == 5
    assert ", ...)" in capsys.readouterr().out


DOCUMENTS = [
    "",
    "{",
    "[]",
    "{}",
    "null",
    '{"tasks": 5, "manifest": "x", "reads": 1, "members": [1]}',
]


def test_whatever_a_document_holds_there_is_an_answer_and_no_traceback(root, tmp_path):
    for number, path in enumerate(sorted(root.rglob("*.json"))):
        kept, content = path.read_bytes(), DOCUMENTS[number % len(DOCUMENTS)]
        path.write_text(content)
        assert run(["verify", "--root", str(root)]) in (0, 1, 2), (path, content)
        path.write_bytes(kept)
    assert found_in(root, tmp_path) == (0, {})


def test_whatever_bytes_change_in_a_table_there_is_an_answer_and_no_traceback(root, tmp_path):
    draws = np.random.default_rng(0)
    for path in sorted(root.rglob("*.parquet")):
        kept = path.read_bytes()
        content = bytearray(kept)
        for place in draws.integers(len(kept), size=draws.integers(1, 20)):
            content[place] = draws.integers(256)
        path.write_bytes(content)
        assert run(["verify", "--root", str(root)]) in (0, 1), path
        path.write_bytes(kept)
    assert found_in(root, tmp_path) == (0, {})


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (
            "features/au-*",
            "affuse features import --root {root} --name au --file FILE --modality MODALITY",
        ),
        ("features/minilm-0123", "affuse encode --root {root} --encoders minilm"),
        ("transcripts/*", "affuse encode --root {root} --transcriber "),
    ],
)
def test_a_table_without_descriptor_and_record_is_made_again_by_its_name(table, what, root, capsys):
    root = root.rename(root.with_name("a root"))
    if "*" not in table:
        shutil.copytree(only(root, "features/au-*"), root / table)
    for name in ("descriptor.json", "config.json"):
        (only(root, table) / name).unlink(missing_ok=True)
    assert run(["verify", "--root", str(root)]) == 1
    assert what.format(root=shlex.quote(str(root))) in capsys.readouterr().out


@pytest.mark.parametrize("name", ["fold=x", "fold=0/seed=x", "refit/seed=x", "trials/1.json"])
def test_a_folder_of_a_run_that_is_none_of_ours_is_no_traceback(name, root, capsys):
    (root / "runs" / "one" / name).mkdir(parents=True)
    assert run(["verify", "--root", str(root)]) in (0, 1)
    assert "runs/one: 54 rows" in capsys.readouterr().out


# ---- what is no fault


class TestNotes:
    def test_what_was_made_from_an_earlier_manifest_is_noted_and_sound(
        self, root, tmp_path, capsys
    ):
        for card in root.rglob("model.json"):
            document(card, lambda facts: facts["facts"].update(manifest="earlier"))
        document(only(root, "bundles/*/bundle.json"), lambda f: f.update(manifest="earlier"))
        assert found_in(root, tmp_path) == (0, {})
        said = capsys.readouterr().out
        assert said.count("note: made from manifest earlier, which is ") == 3

    def test_nets_whose_features_are_gone_are_noted(self, root, tmp_path, capsys):
        shutil.rmtree(only(root, "features/au-*"))
        shutil.rmtree(root / "scores")
        assert found_in(root, tmp_path) == (0, {})
        assert capsys.readouterr().out.count("which are not there") == 3

    def test_a_bundle_that_names_no_hashes_is_loaded_all_the_same(self, root, tmp_path):
        def unnamed(facts):
            for member in facts["members"]:
                del member["sha256"]

        document(only(root, "bundles/*/bundle.json"), unnamed)
        assert found_in(root, tmp_path) == (0, {})
        truncated(only(root, NET))
        assert found_in(root, tmp_path)[0] == 1

    def test_an_import_that_gave_its_name_away_may_lack_rows(self, root, tmp_path):
        without_last_unit(only(root, AU))
        document(only(root, "features/au-*/descriptor.json"), lambda f: f.update(superseded="au-2"))
        assert found_in(root, tmp_path) == (0, {})

    def test_tables_without_checksums_are_read(self, root, tmp_path):
        only(root, "units/*.parquet").unlink()  # of files of other sizes, below
        for path in root.rglob("*.parquet"):
            if "bundles" in path.parts:  # tied to bundle.json by their hashes
                continue
            table = pq.ParquetFile(path).read()
            pq.write_table(table, path, row_group_size=4)
        assert found_in(root, tmp_path) == (0, {})

    def test_the_rows_of_clips_that_left_are_named(self, root, tmp_path, capsys):
        uri = str(only(root, "transcripts/*"))
        compact(
            uri,
            lambda: [ref.version(["heard"]) for ref in units(str(root))][1:],
            former=former_uri(uri),
        )
        assert found_in(root, tmp_path)[1].keys() == {"transcripts/whisper_tiny_en_asr-1"}
        assert "former/transcripts/whisper_tiny_en_asr-1 keeps rows of clips that left" in (
            capsys.readouterr().out
        )


def test_a_root_that_was_never_prepared_is_refused(tmp_path, capsys):
    assert run(["verify", "--root", str(tmp_path)]) == 1
    assert "type: affuse prepare" in capsys.readouterr().err


def test_a_table_that_is_gathered_meanwhile_is_sound(root, tmp_path, monkeypatch):
    uri = str(only(root, "transcripts/*"))
    plain, reads = storage.open_parquet, []

    def read(file, *arguments, **options):
        if options and file.startswith(uri) and not reads:
            reads.append(file)
            compact(uri, lambda: [ref.version(["heard"]) for ref in units(str(root))])
        return plain(file, *arguments, **options)

    monkeypatch.setattr(storage, "open_parquet", read)
    assert found_in(root, tmp_path) == (0, {})
    assert reads


def test_a_bucket_is_verified_and_cleared(root, monkeypatch, capsys):
    fs = fsspec.filesystem("memory")
    fs.put(str(root), "/bucket/root", recursive=True)
    try:
        assert run(["verify", "--root", "memory://bucket/root"]) == 0
        fs.pipe_file("/bucket/root/bundles/half/nets/one/seed=0/model.safetensors", b"12345")
        words = ["verify", "--root", "memory://bucket/root", "--gc"]
        assert run(words) == 0
        assert "1 younger than 86400 s stay" in capsys.readouterr().out
        assert run([*words, "--older-than-s", "0"]) == 0
        assert "bundles without a bundle.json: 1 removed, 5 bytes" in capsys.readouterr().out
        assert not fs.exists("/bucket/root/bundles/half")
        (part,) = fs.glob("/bucket/root/features/au-*/part-*.parquet")
        fs.pipe_file(part, fs.cat_file(part)[:500])
        assert run(["verify", "--root", "memory://bucket/root"]) == 1
        assert "unreadable: files that cannot be read: 1 (part-" in capsys.readouterr().out
    finally:
        fs.rm("/bucket", recursive=True)


# ---- what killed writers left


class TestLeftovers:
    def test_a_folder_that_somebody_has_begun_to_fill_meanwhile_stays(
        self, root, left, monkeypatch
    ):
        plain = leftovers.leftovers

        def found(*arguments, **options):
            yield from list(plain(*arguments, **options))
            (root / "runs" / "begun" / "config.json").write_text("{}")

        monkeypatch.setattr(verify, "leftovers", found)
        assert run(["verify", "--root", str(root), "--gc"]) == 0
        assert left[3].exists()
        assert not left[2].exists()

    @pytest.fixture
    def left(self, root):
        """Of every kind one, two days old."""
        files = [
            only(root, "features/au-*") / f".u1-k1.parquet.{uuid.uuid4().hex}.tmp",
            root / f".dataset.json.{uuid.uuid4().hex}.tmp",
            root / "bundles" / "half" / "nets" / "one" / "seed=0" / "model.json",
            root / "runs" / "begun" / "identity.json",
            root / "probes" / "p1.parquet",
        ]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"123")
            os.utime(file, (time.time() - 2 * 86400,) * 2)
        return files

    def test_they_are_no_fault_and_are_named(self, root, left, capsys):
        assert run(["verify", "--root", str(root)]) == 0
        said = capsys.readouterr().out
        for what in ("temporary files", "runs without results", "bundles without", "probes of"):
            assert f"{what}" in said
        assert all(file.exists() for file in left)

    def test_a_dry_run_names_them_and_removes_nothing(self, root, left, capsys):
        before = snapshot(root)
        assert run(["verify", "--root", str(root), "--gc", "--dry-run"]) == 0
        assert capsys.readouterr().out.count("would be removed: ") == 5
        assert snapshot(root) == before

    def test_gc_removes_them_and_nothing_else(self, root, left, whole, capsys):
        assert run(["verify", "--root", str(root), "--gc"]) == 0
        assert "temporary files: 2 removed, 6 bytes" in capsys.readouterr().out
        files = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
        assert files == {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}

    @pytest.mark.parametrize("changed", ["just now", "later than now"])
    def test_what_another_job_may_be_writing_stays(self, root, left, changed):
        for file in left:
            os.utime(file, (time.time() + 3600 * (changed != "just now"),) * 2)
        assert run(["verify", "--root", str(root), "--gc"]) == 0
        assert all(file.exists() for file in left)

    def test_a_folder_stays_while_one_of_its_files_is_young(self, root, left):
        young = root / "bundles" / "half" / "nets" / "two.json"
        young.write_text("{}")
        assert run(["verify", "--root", str(root), "--gc"]) == 0
        assert left[2].exists()
        assert not left[3].exists()

    def test_a_run_that_can_go_on_stays(self, root, left):
        begun = root / "runs" / "begun" / "fold=0" / "seed=0" / "checkpoint.pt"
        begun.parent.mkdir(parents=True)
        begun.write_bytes(b"1")
        os.utime(begun, (0, 0))
        assert run(["verify", "--root", str(root), "--gc"]) == 1
        assert begun.exists()

    def test_rows_of_clips_that_left_go_only_when_asked_for(self, root, left, capsys):
        former = root / "former" / "features" / "au-1" / "part-1.parquet"
        former.parent.mkdir(parents=True)
        former.write_bytes(b"1")
        os.utime(former, (0, 0))
        assert run(["verify", "--root", str(root), "--gc"]) == 0
        assert former.exists()
        assert run(["verify", "--root", str(root), "--gc", "--former"]) == 0
        assert not former.exists()

    def test_links_are_not_followed(self, root, left, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        kept = outside / left[0].name
        kept.write_bytes(b"1")
        os.utime(kept, (0, 0))
        (root / "features" / "linked").symlink_to(outside)
        run(["verify", "--root", str(root), "--gc"])
        assert kept.exists()

    def test_its_flags_belong_to_gc(self, root, capsys):
        assert run(["verify", "--root", str(root), "--dry-run"]) == 2
        assert "--dry-run belongs to --gc" in capsys.readouterr().err


def test_an_encode_that_has_not_ended_is_named_where_rows_are_missing(root, capsys):
    note = "an encode has begun and not ended"
    folder = root / "encodings" / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert run(["verify", "--root", str(root)]) == 0
    assert note not in capsys.readouterr().out
    first(root, "transcripts/*/*.parquet").unlink()
    for name, said in (("config.json", True), ("summary.json", False), ("config.json", True)):
        time.sleep(0.02)
        (folder / name).write_text("{}")
        assert run(["verify", "--root", str(root)]) == 1
        assert (note in capsys.readouterr().out) == said


def test_json_is_written_again_by_the_same_command_and_over_nothing_else(root, tmp_path, capsys):
    out = tmp_path / "found.json"
    words = ["verify", "--root", str(root), "--json", str(out)]
    assert run(words) == 0
    assert run(words) == 0
    out.write_text("my notes")
    assert run(words) == 2
    assert out.read_text() == "my notes"
    assert run([*words, "--overwrite"]) == 0


# ---- values


@given(
    rows=st.lists(
        st.none() | st.lists(st.lists(st.floats(width=16), min_size=2, max_size=2), max_size=3),
        max_size=6,
    ),
    half=st.booleans(),
    skipped=st.integers(0, 3),
)
def test_rows_that_are_not_finite_are_those_of_the_obvious_loop(rows, half, skipped):
    element = pa.float16() if half else pa.float32()
    cells = [None if r is None else [[np.float16(x) for x in s] for s in r] for r in rows]
    column = pa.chunked_array([pa.array(cells, pa.list_(pa.list_(element, 2)))]).slice(skipped)
    expected = [any(not np.isfinite(x) for s in r or () for x in s) for r in rows][skipped:]
    assert not_finite(column).tolist() == expected


def test_a_value_or_a_step_that_is_null_is_not_finite():
    kind = pa.list_(pa.list_(pa.float32(), 2))
    rows = pa.chunked_array([pa.array([[[1.0, None]], [None], [[1.0, 2.0]], None, []], kind)])
    assert not_finite(rows).tolist() == [True, True, False, False, False]


class TestTheTableOfUnits:
    """A wrong, stale or damaged one is named, with what to type; none at all is no fault."""

    @staticmethod
    def changed(root, change):
        file = only(root, "units/*.parquet")
        table = storage.read_table(str(file))
        storage.publish_table(change(table), str(file))

    def faults(self, root, tmp_path):
        status, faults = found_in(root, tmp_path)
        of_units = [fault for table, some in faults.items() if "units/" in table for fault in some]
        assert status == (1 if faults else 0)
        assert all(f"remove {root}/units/" in fault["mend"] for fault in of_units)
        return {(fault["kind"], fault["count"]) for fault in of_units}

    @pytest.mark.parametrize(
        ("name", "value"), [("cost", 9.0), ("wordless", 77), ("num_clips", 1000), ("row_group", 55)]
    )
    def test_a_wrong_number_is_named(self, root, tmp_path, name, value):
        def change(table):
            at = table.column_names.index(name)
            values = [value, *table[name].to_pylist()[1:]]
            column = pa.array(values, table.schema.field(name).type)
            return table.set_column(at, table.schema.field(name), column)

        self.changed(root, change)
        assert self.faults(root, tmp_path) == {("footer", 1)}

    def test_a_row_that_is_not_there_is_missed(self, root, tmp_path):
        self.changed(root, lambda table: table.slice(0, len(table) - 1))
        assert self.faults(root, tmp_path) == {("missing", 1)}

    def test_one_of_other_files_is_stale(self, root, tmp_path):
        self.changed(root, lambda table: table.replace_schema_metadata(None))
        assert self.faults(root, tmp_path) == {("footer", 1)}

    def test_a_damaged_one_is_unreadable(self, root, tmp_path):
        file = only(root, "units/*.parquet")
        file.write_bytes(file.read_bytes()[:-40])
        assert self.faults(root, tmp_path) == {("unreadable", 1)}

    def test_none_is_no_fault(self, root, tmp_path):
        only(root, "units/*.parquet").unlink()
        assert self.faults(root, tmp_path) == set()

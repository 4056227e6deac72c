"""Every job on a root that lacks something: one line that says what, and never a traceback."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage, tables
from jobs import __main__ as command
from jobs.catalog import layout

CLIP = 103


def manifest(root: str) -> list[str]:
    folder = layout.manifest_uri(root, "abc")
    return [storage.join(folder, name) for name in storage.names(folder)]


def only(root: str, keep) -> None:
    """Keep some rows of the manifest; `keep` maps a table to a mask."""
    for number, file in enumerate(manifest(root)):
        table = storage.read_table(file)
        table = table.filter(pa.array(keep(table), pa.bool_()))
        storage.remove(file)
        if table.num_rows or number == 0:
            storage.publish_table(table, file)


def change(root: str, column: str, value) -> None:
    for file in manifest(root):
        table = storage.read_table(file)
        at = table.column_names.index(column)
        kind = table.schema.field(column).type
        other = pa.array([value] * table.num_rows, kind)
        storage.publish_table(table.set_column(at, table.schema.field(column), other), file)


def facts(root: str, **changed) -> None:
    uri = layout.dataset_uri(root)
    storage.publish_json({**storage.read_json(uri), **changed}, uri)


def nothing(root: str) -> None:
    shutil.rmtree(root)


def no_tasks(root: str) -> None:
    facts(root, tasks={})


def no_features(root: str) -> None:
    shutil.rmtree(layout.features_uri(root))


def no_runs(root: str) -> None:
    del root


def no_labels(root: str) -> None:
    change(root, "emotion", None)
    change(root, "arousal", None)


def one_class(root: str) -> None:
    change(root, "emotion", "sad")
    change(root, "arousal", 0.5)


def one_group(root: str) -> None:
    change(root, "group", "everybody")
    change(root, "split", None)


def all_test(root: str) -> None:
    change(root, "split", "test")


def one_clip(root: str) -> None:
    only(root, lambda table: np.array(table["clip_id"].to_pylist()) == CLIP)


def no_clips(root: str) -> None:
    only(root, lambda table: np.zeros(table.num_rows, bool))


def no_manifest(root: str) -> None:
    shutil.rmtree(layout.manifest_uri(root, "abc"))


def begun_run(root: str) -> None:
    """A run that was stopped before its first net."""
    storage.publish_json({"net": "lf_dnn"}, layout.run_uri(root, "voice", layout.CONFIG))
    storage.publish_bytes(b"", layout.part_uri(root, "voice", 0, 0, layout.CHECKPOINT))


def mute_run(root: str) -> None:
    """A run that says nothing of any clip."""
    rows = {f.name: pa.nulls(0, f.type) for f in tables.PREDICTIONS.schema}
    storage.publish_json({"net": "lf_dnn"}, layout.run_uri(root, "voice", layout.CONFIG))
    table = tables.PREDICTIONS.conform(pa.table(rows))
    storage.publish_table(table, layout.part_uri(root, "voice", 0, 0, layout.PREDICTIONS))


BARE = {
    each.__name__: each
    for each in (
        nothing, no_tasks, no_features, no_runs, no_labels, one_class, one_group, all_test, one_clip,
        no_clips, no_manifest, begun_run, mute_run,
    )
}  # fmt: skip

COMMANDS = {
    "train": "train --inputs voice --epochs 1 --no-tracking",
    "train by folds": "train --inputs voice --folds speaker --epochs 1 --no-tracking",
    "train a dialogue net": "train --inputs voice --net m2fnet --epochs 1 --no-tracking",
    "train a task": "train --inputs voice --tasks emotion --epochs 1 --no-tracking",
    "tune": "tune --inputs voice --trials 1 --no-tracking",
    "ensemble": "ensemble --runs voice",
    "ensemble of a task": "ensemble --runs voice --task emotion",
    "evaluate a run": "evaluate --runs voice",
    "evaluate a bundle": "evaluate --bundle best",
    "score a bundle": "score --bundle best",
    "score features": "score --bundle face_expression --source features",
    "report runs": "report --runs voice",
    "report a bundle": "report --bundle best",
    "compare": "compare --runs voice face",
    "compare a task": "compare --runs voice face --task emotion",
    "compare bundles": "compare --bundles best other",
    "annotate": "annotate clip.mp4 --scores {root}/scores/best",
    "features export": "features export --inputs video=face --task emotion --out {out}/out.npz",
    "features import": "features import --file {out}/in.csv --name mine --modality audio",
}


def refusal(root: str, words: str, out: Path, capsys) -> tuple[int, list[str]]:
    """Exit status of a command and what it says on stderr."""
    argv = words.format(root=root, out=out).split()
    if argv[0] != "annotate":
        at = 2 if argv[0] == "features" else 1
        argv[at:at] = ["--root", root]
    capsys.readouterr()
    status = command.run(argv)
    return status, capsys.readouterr().err.strip().splitlines()


@pytest.mark.parametrize("bare", BARE.values(), ids=BARE.keys())
def test_every_job_says_in_one_line_what_a_root_lacks(bare, write_root, tmp_path, capsys):
    root = write_root(str(tmp_path / "own"))
    Path(tmp_path, "in.csv").write_text("name,a,b\nclip0,1,2\n")
    bare(root)
    wrong = {}
    for name, words in COMMANDS.items():
        if name.startswith(("train", "tune")) and bare in (no_runs, begun_run, mute_run):
            continue  # nothing is lacking
        try:
            status, said = refusal(root, words, tmp_path, capsys)
        except Exception as error:  # noqa: BLE001  (a traceback, of whatever)
            wrong[name] = repr(error)
            continue
        may = words.startswith("features")
        if (status, len(said)) not in [(1, 1), (2, 1), *([(0, 0)] if may else [])]:
            wrong[name] = f"{status}: {said}"
    assert not wrong


OF_A_BUNDLE = {
    "score": "score clip.wav --bundle best",
    "score features": "score --bundle best --source features",
    "explain": "explain --bundle best",
    "serve": "serve --bundle best --port 0",
    "report": "report --bundle best",
    "evaluate": "evaluate --bundle best",
    "bundle export": "bundle export --bundle best --out {out}/hub",
    "bundle register": "bundle register --bundle best",
    "bundle promote": "bundle promote --bundle best",
}


@pytest.mark.parametrize("words", OF_A_BUNDLE.values(), ids=OF_A_BUNDLE.keys())
@pytest.mark.parametrize(
    ("bare", "next_step"),
    [
        (nothing, "holds no dataset.json; type: affuse prepare DATASET"),
        (no_runs, "there is none at all, and no run; type: affuse train --root"),
        (begun_run, "there is none at all; type: affuse ensemble --root"),
    ],
)
def test_where_there_is_no_bundle_the_step_that_comes_next_is_named(
    bare, next_step, words, write_root, tmp_path, capsys
):
    root = write_root(str(tmp_path / "own"))
    Path(tmp_path, "clip.wav").write_bytes(b"")
    bare(root)
    argv = words.format(out=tmp_path).split()
    capsys.readouterr()
    assert command.run([*argv, "--root", root]) in (1, 2)
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert next_step in said
    assert said.endswith(root) or f"--root {root}" in said
    assert not Path(tmp_path, "hub").exists()


DAMAGE = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
}


@pytest.mark.parametrize(
    ("place", "damage"),
    [
        ("manifest", "empty"),
        ("folds", "cut off"),
        ("features", "cut off"),
        ("runs", "cut off"),
        ("bundles", "empty"),
    ],
)
def test_every_job_says_in_one_line_that_a_table_is_damaged(
    place, damage, write_root, tmp_path, capsys
):
    """Jobs that do not read it go their way; `verify` has tests of its own."""
    root = write_root(str(tmp_path / "own"))
    Path(tmp_path, "in.csv").write_text("name,a,b\nclip0,1,2\n")
    if place in ("runs", "bundles"):
        train = f"train --root {root} --inputs voice --net linear --folds speaker --no-tracking --run voice"
        assert command.run(train.split()) == 0
        assert (
            command.run(f"ensemble --root {root} --runs voice --task emotion --bundle best".split())
            == 0
        )
    spoilt = [path for path in Path(root, place).rglob("*.parquet") if path.is_file()]
    assert spoilt
    for path in spoilt:
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    wrong, met = {}, 0
    for name, words in COMMANDS.items():
        if name.startswith("tune"):
            continue  # it reads what train does
        try:
            status, said = refusal(root, words, tmp_path, capsys)
        except Exception as error:  # noqa: BLE001  (a traceback, of whatever)
            wrong[name] = repr(error)
            continue
        met += any("damaged or cut off" in line for line in said)
        if status and len(said) != 1:
            wrong[name] = f"{status}: {said}"
    assert not wrong
    assert met

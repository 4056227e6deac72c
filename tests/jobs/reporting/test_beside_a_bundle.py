"""A report of a bundle says what `ensemble` said: runs shown beside it change none of its rows."""

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage
from jobs import ensemble, report, train
from jobs.evaluation.results_table import from_facts
from jobs.reporting.evidence import gather

SEED = 3
"""Of the bootstrap, and of the folds that one split is cut into."""

FIXED = np.where(np.arange(72) // 8 < 4, "train", "valid").astype(object)

NAMES = dict(zip([f"s{each}" for each in range(9)], "abcdhefig", strict=True))
"""Group of a speaker: of those of the validation split the order of clips is not that of names."""


def rewritten(root, name, change):
    """Write a column of the manifest as it is after a change: (id of a clip, old value) -> new value."""
    for path in sorted(Path(root, "manifest", "abc").glob("*.parquet")):
        table = storage.read_table(str(path))
        pairs = zip(table["clip_id"].to_pylist(), table[name].to_pylist(), strict=True)
        column = pa.array([change(*pair) for pair in pairs], table[name].type)
        place = table.column_names.index(name)
        storage.publish_table(table.set_column(place, name, column), str(path))


@pytest.fixture(scope="module", params=["speaker", None], ids=["folds", "one split"])
def root(request, write_root, tmp_path_factory):
    """A bundle of two runs of a face and a voice, and a better run beside them."""
    root = write_root(str(tmp_path_factory.mktemp("beside") / "root"), splits=FIXED)
    rewritten(root, "group", lambda _, old: NAMES[old])
    runs = {"voice": ("voice",), "face": ("face",), "both": ("voice", "face")}
    for name, inputs in runs.items():
        train.main(
            train.Config(
                root=root, run=name, inputs=inputs, net="linear", folds=request.param,
                tasks=("emotion",), tracking=False,
            )
        )  # fmt: skip
    for bundle, members in (("pair", ("voice", "face")), ("face_alone", ("face",))):
        ensemble.main(
            ensemble.Config(
                root=root, runs=members, bundle=bundle, task="emotion", resamples=100,
                num_folds=2, seed=SEED,
            )
        )  # fmt: skip
    return root


def lines_of(root, runs, bundle="pair"):
    found = gather(root, runs=runs, bundle=bundle, task=None, resamples=100, seed=SEED)
    return found, {line.name: line for line in found.lines}


@pytest.mark.parametrize("runs", [(), ("both", "face", "voice"), ("voice", "face", "both")])
def test_every_row_of_the_ensemble_has_the_same_figures_in_its_report(root, runs):
    results = from_facts(storage.read_json(f"{root}/bundles/pair/results.json"))
    found, lines = lines_of(root, runs)
    assert {"plain mean", "calibrated mean", "unfitted log pool", "ensemble"} <= set(lines)
    for row in results.rows:
        assert lines[row.name].n == row.n, row.name
        for name, figure in row.figures.items():
            ours = lines[row.name].figures[name]
            ends = [(each.value, each.low, each.high) for each in (ours, figure)]
            assert ends[0] == pytest.approx(ends[1], nan_ok=True), (row.name, name)
    assert found.best_single.name == results.best_single
    assert len(found.clips) == results.num_rows
    assert found.gate == results.gate


def test_rows_that_only_another_run_has_are_not_judged(root):
    results = from_facts(storage.read_json(f"{root}/bundles/face_alone/results.json"))
    found, lines = lines_of(root, ("face", "both"), bundle="face_alone")
    assert len(found.clips) == results.num_rows
    assert "plain mean" not in lines
    assert found.best_single.name == "face"


def test_a_run_beside_the_bundle_is_marked_and_the_table_says_what_is_fused(root, tmp_path):
    where = report.main(
        report.Config(
            root=root, runs=("both", "voice", "face"), bundle="pair", resamples=100,
            out=str(tmp_path / "out"),
        )
    )  # fmt: skip
    page = storage.read_bytes(where).decode()
    assert "Not in the bundle: shown beside it, and part of no fusion here." in page
    assert "The plain fusions are of its members: voice, face." in page
    text = storage.read_bytes(where.replace("report.html", "results.csv")).decode()
    names = [row[0] for row in csv.reader(io.StringIO(text))]
    assert "both (not in the bundle)" in names
    assert not {"both", "voice (not in the bundle)"} & set(names)


def test_plain_fusions_of_members_that_are_not_all_shown_are_left_out(root):
    found, lines = lines_of(root, ("voice", "both"))
    assert not {"plain mean", "calibrated mean", "unfitted log pool"} & set(lines)
    assert found.judged.unshown == ["face"]
    assert found.best_single.name == "voice"


def test_corrected_labels_are_counted_on_the_judged_rows_alone(root, capsys):
    before = {}
    rewritten(root, "emotion", lambda clip, old: before.setdefault(clip, old) and other(old))
    found, _ = lines_of(root, ("face", "both"), bundle="face_alone")
    said = capsys.readouterr().out
    rewritten(root, "emotion", lambda clip, _: before[clip])
    count = len(found.clips)
    assert f"warning: {count} of {count} clips have another emotion" in said
    assert f"n = {count}, {count} of them by labels that were corrected since" in found.protocol


def other(label):
    return "sad" if label == "calm" else "calm"

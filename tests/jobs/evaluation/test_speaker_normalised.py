"""Runs normalised by their speaker stand apart: in a table of their own, beside the same run without."""

import csv
import dataclasses

import pyarrow as pa
import pytest

from cluster import storage
from cluster.errors import ConfigError
from jobs import compare, ensemble, report, train
from jobs.catalog.bundles import nets_of_run
from jobs.scoring.bundle import Bundle, check_speakers
from jobs.scoring.opening import _clips_of_speaker

HOWS = ("none", "speaker", "speaker:3")


def config(root, **changes):
    plain = train.Config(
        root=root,
        inputs=("voice",),
        tasks=("emotion",),
        net_options={"hidden": 4},
        epochs=3,
        pool="mean",
        folds="speaker",
        tracking=False,
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture
def made(root):
    for how in HOWS:
        train.main(config(root, run=f"net-{how}", normalise=how))
    return root


def grid(folder, name):
    text = storage.read_bytes(f"{folder}/{name}.csv").decode()
    return list(csv.reader(text.splitlines()))


def test_they_are_not_among_the_others_but_beside_the_same_run_without(made):
    runs = tuple(f"net-{how}" for how in HOWS)
    where = report.main(report.Config(root=made, task="emotion", runs=runs, resamples=100))
    folder = where.rsplit("/", 1)[0]
    names = [row[0] for row in grid(folder, "results")[1:]]
    assert "net-none" in names
    assert not {"net-speaker", "net-speaker:3"} & set(names)
    header, *rows = grid(folder, "normalised")
    assert [row[:2] for row in rows] == [["net-speaker", "speaker"], ["net-speaker:3", "speaker:3"]]
    raw = next(row[2] for row in grid(folder, "results") if row[0] == "net-none")
    assert all(row[header.index("accuracy without")] == f"net-none: {raw}" for row in rows)
    page = storage.read_bytes(where).decode()
    assert "<h2>Normalised by speaker</h2>" in page
    assert "net-speaker:3 (normalised by speaker:3)" in page


def test_alone_they_are_marked(made):
    where = report.main(
        report.Config(root=made, task="emotion", runs=("net-speaker:3",), resamples=100)
    )
    page = storage.read_bytes(where).decode()
    assert "normalised by speaker:3 (transductive)" in page
    assert "not comparable with runs that do not" in page
    assert not storage.exists(f"{where.rsplit('/', 1)[0]}/normalised.csv")


def test_a_fusion_with_such_a_member_stands_apart_too_and_says_so(made, capsys):
    runs = ("net-none", "net-speaker")
    ensemble.main(ensemble.Config(root=made, runs=runs, task="emotion", resamples=100))
    assert "not comparable with runs that are not: net-speaker (speaker)" in capsys.readouterr().out
    where = report.main(report.Config(root=made, task="emotion", bundle="ensemble", resamples=100))
    folder = where.rsplit("/", 1)[0]
    assert "ensemble" not in [row[0] for row in grid(folder, "results")]
    assert ["ensemble", "speaker"] in [row[:2] for row in grid(folder, "normalised")]


PLAIN = {"plain mean", "calibrated mean", "unfitted log pool"}


def test_plain_fusions_beside_a_mixed_bundle_are_of_its_raw_members(made):
    train.main(config(made, run="face", inputs=("face",)))
    runs = ("net-none", "face", "net-speaker")
    ensemble.main(ensemble.Config(root=made, runs=runs, task="emotion", resamples=100))
    ways = {"root": made, "bundle": "ensemble", "task": "emotion", "resamples": 100}
    pages, rows = {}, {}
    for shown in ((), ("net-none", "face"), ("net-none", "net-speaker")):
        where = report.main(report.Config(**ways, runs=shown, out=f"{made}/out{len(pages)}"))
        pages[shown] = storage.read_bytes(where).decode()
        rows[shown] = {row[0] for row in grid(where.rsplit("/", 1)[0], "results")}
    assert rows[()] >= PLAIN | {"net-none", "face"}
    assert "The plain fusions are of its members: net-none, face." in pages[()]
    assert "Members that are not shown" not in pages[()]
    assert rows["net-none", "face"] >= PLAIN
    assert "Members that are not shown: net-speaker.<" in pages["net-none", "face"]
    assert not PLAIN & rows["net-none", "net-speaker"]
    assert "Members that are not shown: face; the plain" in pages["net-none", "net-speaker"]


def test_compare_sets_them_beside_each_other_but_not_beside_raw_ones(made):
    ways = {"runs": ("net-speaker", "net-speaker:3"), "task": "emotion", "resamples": 100}
    compare.main(compare.Config(root=made, **ways))
    with pytest.raises(ConfigError, match="are not compared with others"):
        compare.main(compare.Config(root=made, **{**ways, "runs": ("net-none", "net-speaker:3")}))


def test_a_bundle_asks_for_as_many_clips_as_were_enrolled(made):
    cards = [
        storage.read_json(f"{uri}/model.json")
        for how in HOWS
        for uri in nets_of_run(made, f"net-{how}").values()
    ]
    assert [_clips_of_speaker(card) for card in cards] == [0, 8, 3]
    bundle = Bundle(name="b", uri=None, encoders=(), transcriber=None, clips_of_speaker=3)
    few = pa.chunked_array([["ann"] * 3 + ["bob"] * 2])
    check_speakers(few[:3], bundle.clips_of_speaker)
    with pytest.raises(ConfigError, match="needs 3 clips of everybody, 'bob' has 2"):
        check_speakers(few, bundle.clips_of_speaker)


def test_another_normalisation_is_refused(root):
    with pytest.raises(ConfigError, match="expected none, speaker or speaker:K"):
        config(root, normalise="group")

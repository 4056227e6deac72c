"""Films of every kind and broken ones in one job: a row each, and the healthy ones as if alone."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cluster.resources import WorkersConfig
from cluster.session import SessionConfig, ray_session
from encoders import ENCODERS
from jobs import encode
from jobs.catalog.features import read_features, resolve_features
from jobs.stream.job import DecodingConfig

TOYS = str(Path(__file__).parent / "toys")
FAULTY_CHILD = str(Path(__file__).parents[1] / "encoders" / "faulty_child")
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]
ENCODER_NAMES = ("logmel_stats", "toy_video")
FAULTS = {f"faulty/{name}": name for name in ("crash", "hang", "leak")}
DAMAGED = 300

LIMIT_S = 45.0
"""Of one clip: far above what a healthy one takes on a machine that does other things."""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """The toys and a Ray whose decoding children crash, hang or leak where a file's name says so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOYS)
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        patch.setenv("PYTHONPATH", os.pathsep.join([TOYS, FAULTY_CHILD]))
        patch.setenv("FAULTS_BY_NAME", json.dumps(FAULTS))
        patch.setitem(ENCODERS, "toy_video", "toy_video")
        import toy_films

        with ray_session(SessionConfig(num_cpus=2, num_gpus=0)):
            yield toy_films
        for name in [name for name in sys.modules if name.startswith("toy_")]:
            del sys.modules[name]


def encoded(root):
    """Encode with both encoders; encoder -> clip's name -> row."""
    encode.main(
        encode.Config(
            root=str(root),
            encoders=ENCODER_NAMES,
            tracking=False,
            max_failed_share=1.0,
            workers=WorkersConfig(gpus_per_actor=0),
            decoding=DecodingConfig(
                time_limit_s=LIMIT_S, time_limit_per_s=0.1, memory_limit_gb=0.5
            ),
            session=SessionConfig(num_cpus=2, num_gpus=0),
        )
    )
    return {
        name: read_features(str(root), resolve_features(str(root), name)).to_pylist()
        for name in ENCODER_NAMES
    }


@pytest.fixture(scope="module")
def media(films, tmp_path_factory):
    """Healthy, faulty and damaged files."""
    folder = tmp_path_factory.mktemp("media")
    healthy = films.write_healthy(folder / "healthy")
    faulty = films.write_faulty(folder / "faulty", healthy)
    return healthy, faulty, films.write_damaged(folder / "damaged", healthy, DAMAGED)


@pytest.fixture(scope="module")
def alone(films, media, tmp_path_factory):
    """The rows of the healthy files by themselves."""
    return encoded(films.write_root(tmp_path_factory.mktemp("alone"), media[0]))


@pytest.fixture(scope="module")
def beside(films, media, tmp_path_factory, sound):
    """All files, mixed; names in the order of their ids, and the rows.

    Decoder children crash, hang and leak; of Ray's own workers none dies, and nothing goes to disk.
    """
    healthy, faulty, damaged = (list(files.items()) for files in media)
    mixed = []
    while healthy or faulty or damaged:
        for files, count in ((healthy, 1), (faulty, 1), (damaged, 30)):
            mixed += files[:count]
            del files[:count]
    root = films.write_root(tmp_path_factory.mktemp("beside"), dict(mixed))
    with sound():
        return [name for name, _ in mixed], encoded(root)


def test_every_format_is_read(media, alone):
    names = list(media[0])
    sound, pictures = alone["logmel_stats"], alone["toy_video"]
    assert [row["status"] for row in sound] == ["ok"] * len(names)
    states = {names[row["clip_id"]]: row["status"] for row in pictures}
    assert {name for name, status in states.items() if status == "ok"} == {
        name for name in names if not name.endswith(".flac")
    }
    shapes = {names[row["clip_id"]]: row["values"][0][:2] for row in pictures if row["values"]}
    assert shapes["phone.mp4"][0] > shapes["phone.mp4"][1]  # upright
    assert shapes["4k.mp4"][0] == 32


def test_every_clip_has_one_row_whatever_is_the_matter_with_it(media, beside):
    names, tables = beside
    assert len(names) == sum(map(len, media))
    for rows in tables.values():
        assert sorted(row["clip_id"] for row in rows) == list(range(len(names)))


def test_each_fault_says_what_it_is(beside):
    names, tables = beside
    said = {names[row["clip_id"]]: (row["status"], row["error"]) for row in tables["toy_video"]}
    expected = {
        "empty.mp4": "empty",
        "text.mp4": "unreadable",
        "truncated.mp4": "truncated",
        "missing.mp4": "missing",
        "crash.mp4": "crashed",
        "hang.mp4": "timeout",
        "leak.mp4": "too_large",
    }
    for name, fault in expected.items():
        status, error = said[name]
        assert (status, error.partition(":")[0]) == ("failed", fault)


def test_damaged_files_are_read_in_part_or_fail_by_name(beside):
    names, tables = beside
    for encoder, rows in tables.items():
        damaged = [row for row in rows if names[row["clip_id"]].startswith("damaged")]
        states = Counter(row["status"] for row in damaged)
        assert states.total() == DAMAGED
        assert set(states) <= {"ok", "partial", "missing", "failed"}, encoder
        assert all(row["error"] for row in damaged if row["status"] != "ok")
        assert all(row["values"] for row in damaged if row["status"] in ("ok", "partial"))


def test_healthy_clips_have_the_same_rows_with_faults_beside_them(media, alone, beside):
    names, tables = beside
    for encoder, rows in tables.items():
        by_name = {names[row["clip_id"]]: row for row in rows}
        for expected in alone[encoder]:
            came = by_name[list(media[0])[expected["clip_id"]]]
            assert (came["status"], came["error"]) == (expected["status"], expected["error"])
            assert came["step_start_s"] == expected["step_start_s"]
            if expected["values"] is not None:
                np.testing.assert_allclose(came["values"], expected["values"], rtol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_decoding_child_outlives_its_worker(beside):
    """Children there are belong to workers that are; none has been left to itself."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"encoders.decoding.child" in command and os.getuid() == folder.stat().st_uid:
            assert parent != "1", command

"""kill -9 at random moments of the whole chain, prepare to score: its end equals that of an undisturbed run.

Each command is killed at a moment drawn from the length it has when nobody disturbs it, typed again, killed
again, and at last left alone. AFFUSE_KILLS kills or more (by default 4) are dealt out over the chain, one a
command at least; AFFUSE_KILLS=30 is a storm of a quarter of an hour.
"""

import json
import os
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage
from jobs.__main__ import run as typed
from jobs.catalog.features import feature_folders, read_features
from jobs.catalog.predictions import read_predictions

HERE = Path(__file__).resolve().parent
TOYS = HERE.parent / "jobs" / "toys"
CHECKOUT = HERE.parent.parent
CLIPS, SPEAKERS = 60, 6
MOODS = ("calm", "glad", "sad")
KILLS = int(os.environ.get("AFFUSE_KILLS", "4"))
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]

SPACE = {
    "net": ["concat_mlp"],
    "inputs": [["toy_audio"], ["toy_text"], ["toy_audio", "toy_text"]],
    "lr": {"log": [1e-3, 1e-2]},
}


def write_source(folder: Path) -> Path:
    """Sixty sounds of six speakers; loudness and words tell the mood, with some noise."""
    draws = np.random.default_rng(5)
    folder.mkdir(parents=True)
    lines = ["name,speaker,text,mood"]
    for clip in range(CLIPS):
        mood = int(draws.integers(3))
        loudness = 0.2 + 0.25 * mood + 0.1 * draws.standard_normal()
        samples = np.clip(loudness, 0.05, 0.9) * np.sin(np.arange(4000) * 0.3)
        with wave.open(str(folder / f"c{clip:02d}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        word = "xyz"[mood] if draws.random() < 0.7 else "xyz"[int(draws.integers(3))]
        lines.append(f"c{clip:02d},p{clip % SPEAKERS},{word * 3} said,{MOODS[mood]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "space.yaml").write_text(json.dumps(SPACE))
    return folder


def chain(source: Path, root: Path) -> dict[str, list[str]]:
    """Stage -> the words that a user types."""
    here = ["--root", str(root)]
    two = ["--session.num-cpus", "2"]
    inputs = ["--inputs", "toy_audio", "toy_text", "--pool", "mean", "--folds", "group3"]
    short = ["--epochs", "6", "--no-tracking"]
    labels = ["--labels", str(source / "labels.csv"), "--tasks", "mood=classification"]
    return {
        "prepare": ["prepare", "folder", "--source", str(source), *labels, *here, "--folds", "3",
                    "--unit-clips", "5"],
        "encode": ["encode", *here, "--encoders", "toy_audio", "toy_text", "--no-tracking", *two],
        "train": ["train", *here, *inputs, *short, "--net", "gated", "--run", "one",
                  "--seeds", "0", "1"],
        "again": ["train", *here, *inputs, *short, "--net", "lf_dnn", "--run", "two"],
        "tune": ["tune", *here, *inputs, *short, "--run", "found", "--trials", "5",
                 "--space", str(source / "space.yaml"), "--no-prune", "--parallel", "1",
                 "--keep", "2", "--member-seeds", "0", *two],
        "ensemble": ["ensemble", *here, "--runs", "one", "two", "--bundle", "both"],
        "score": ["score", *here, "--bundle", "both", "--source", "clips", *two],
    }  # fmt: skip


def start(words: list[str]) -> subprocess.Popen:
    """The command line of a user, with the toys registered; slow enough to be met at work."""
    path = os.pathsep.join([str(CHECKOUT), str(TOYS)])
    return subprocess.Popen(
        [sys.executable, str(TOYS / "toy_corpus.py"), *words],
        env=os.environ | {"PYTHONPATH": path, "TOY_SLEEP_S": "0.05"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(words: list[str]) -> float:
    """Run a command to its end; how long it took [s]."""
    begun = time.monotonic()
    process = start(words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"{' '.join(words)}\n{output}"
    return time.monotonic() - begun


def kill_after(words: list[str], seconds: float) -> bool:
    """Start a command and kill its driver; False where it had ended before, and well."""
    process = start(words)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        process.stdout.close()
        return True
    assert process.returncode == 0, f"{' '.join(words)}\n{output}"
    return False


def undisturbed(source: Path, root: Path) -> dict[str, float]:
    """Run the chain; the seconds of each stage."""
    seconds = {}
    for stage, words in chain(source, root).items():
        seconds[stage] = finish(words)
    return seconds


def stormy(source: Path, root: Path, seconds: dict[str, float], kills: int, seed: int) -> int:
    """Run the chain with about so many kills, dealt out by the length of the stages; how many fell."""
    draws = np.random.default_rng(seed)
    total = sum(seconds.values())
    fallen = 0
    for stage, words in chain(source, root).items():
        least = int(stage != "again")  # one training tells what another would
        for _ in range(max(least, round(kills * seconds[stage] / total))):
            fallen += kill_after(words, draws.uniform(0.1, 0.9) * seconds[stage])
        finish(words)
    return fallen


def outcome(root: Path) -> dict[str, object]:
    """All that a user reads of a root, which is whole: rows by clip, figures by name."""
    assert typed(["verify", "--root", str(root)]) == 0
    found: dict[str, object] = {}
    manifest = storage.read_json(str(root / "dataset.json"))["manifest"]
    found["manifest"] = manifest
    for folder in feature_folders(str(root)):
        rows = read_features(str(root), folder).sort_by("clip_id")
        found[f"features/{folder}"] = rows.select(["clip_id", "status", "values"]).to_pydict()
    runs = sorted(path.name for path in (root / "runs").iterdir())
    found["runs"] = runs
    for run in runs:
        if any((root / "runs" / run).glob("fold=*")):
            rows = read_predictions(str(root), run)
            order = [(key, "ascending") for key in ("clip_id", "fold", "seed", "role")]
            rows = rows.sort_by(order)
            found[f"predictions/{run}"] = rows.select(
                ["clip_id", "fold", "seed", "role", "scores"]
            ).to_pydict()
    for bundle in ("both", "found"):
        found[f"bundles/{bundle}"] = storage.read_json(
            str(root / "bundles" / bundle / "results.json")
        )
    files = sorted((root / "scores" / "both").glob("*.parquet"))
    scores = pa.concat_tables(
        [storage.read_table(str(file)).replace_schema_metadata(None) for file in files]
    ).sort_by("clip_id")
    found["scores"] = scores.select(["clip_id", "name", "task", "label", "status"]).to_pydict()
    found["confidence"] = scores["confidence"].to_pylist()
    return found


def assert_same(came: object, expected: object, where: str = "") -> None:
    """Equal in every key, name and count, and in every number within 1e-4."""
    if isinstance(expected, dict):
        assert isinstance(came, dict), where
        assert came.keys() == expected.keys(), where
        for key, value in expected.items():
            if key not in ("seconds", "created"):
                assert_same(came[key], value, f"{where}/{key}")
    elif isinstance(expected, list):
        assert isinstance(came, list), where
        assert len(came) == len(expected), where
        for number, (left, right) in enumerate(zip(came, expected, strict=True)):
            assert_same(left, right, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert came == pytest.approx(expected, abs=1e-4, nan_ok=True), where
    else:
        assert came == expected, where


@pytest.mark.skipif(sys.platform != "linux", reason="kills by Linux's signals")
def test_a_chain_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path):
    source = write_source(tmp_path / "source")
    seconds = undisturbed(source, tmp_path / "calm")
    expected = outcome(tmp_path / "calm")
    assert len(expected["scores"]["clip_id"]) == CLIPS
    fallen = storm = 0
    while fallen < KILLS:
        root = tmp_path / f"storm{storm}"
        fallen += stormy(source, root, seconds, KILLS - fallen, seed=storm)
        assert_same(outcome(root), expected)
        storm += 1
    print(f"{fallen} kills over {storm} runs of the chain; calm: {seconds}")

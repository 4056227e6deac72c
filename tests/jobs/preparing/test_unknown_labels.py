"""Some labels of a clip may be unknown (nan): from prepare to report those that are known are counted."""

from pathlib import Path

import numpy as np
import pytest

from cluster import storage
from jobs.__main__ import run as affuse
from jobs.catalog.manifest import read_manifest

LABELS = ("joy", "fear", "rare", "nobody")


@pytest.fixture(scope="module")
def tags():
    """Labels [clip label] of 72 clips of nine speakers: nan where unknown, a whole clip too."""
    draws = np.random.default_rng(0)
    tags = (draws.standard_normal((72, 4)) > 0.5).astype(float)
    tags[draws.random(tags.shape) < 0.3] = np.nan
    tags[16:, 2] = np.nan
    tags[:, 3] = 0
    tags[5] = np.nan
    return tags


def test_summary_figures_fusion_and_report_are_of_known_labels(tags, tmp_path, capsys):
    draws = np.random.default_rng(1)
    voice = np.nan_to_num(tags, nan=0.5) + 0.6 * draws.standard_normal(tags.shape)
    people = np.array([f"s{row // 8}" for row in range(len(tags))])
    names = np.array([f"c{row:02d}" for row in range(len(tags))])
    file, root = str(tmp_path / "l.npz"), str(tmp_path / "root")
    np.savez(file, name=names, speaker=people, tags=tags, v=voice.astype("f4"))
    assert affuse(
        ["prepare", "arrays", "--source", file, "--root", root, "--tasks", "tags=multilabel",
         "--classes", f"tags={','.join(LABELS)}", "--folds", "3"]
    ) == 0  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())
    for label, column in zip(LABELS, tags.T, strict=True):
        unknown = int(np.isnan(column).sum()) - 1
        told = f"{label} {int(np.nansum(column))}" + (f" ({unknown} unknown)" if unknown else "")
        assert told in said
    assert "; 1 without" in said
    assert "nan" not in said

    add = ["--array", "v", "--name", "voice", "--modality", "audio"]
    assert affuse(["features", "import", "--root", root, "--file", file, *add]) == 0
    for run, more in {"lin": ["--net", "linear"], "mlp": ["--epochs", "3"]}.items():
        start = ["train", "--root", root, "--inputs", "voice", "--folds", "group3", "--no-tracking"]
        assert affuse([*start, "--run", run, *more]) == 0
        figures = storage.read_json(f"{root}/runs/{run}/summary.json")["roles"]["oof"]
        assert figures["tags/multilabel_nll"]["mean"] == pytest.approx(
            by_hand(root, run, tags, names)
        )

    fuse = ["ensemble", "--root", root, "--runs", "lin", "mlp", "--bundle", "b", "--no-tracking"]
    assert affuse([*fuse, "--resamples", "100"]) == 0
    capsys.readouterr()
    assert affuse(["report", "--root", root, "--bundle", "b"]) == 0
    shown = f"{by_hand(root, 'lin', tags, names):.3f}"
    line = next(line for line in capsys.readouterr().out.splitlines() if "│ lin " in line)
    assert f" {shown} " in line
    assert (Path(root) / "reports" / "b" / "report.html").exists()


def by_hand(root: str, run: str, tags: np.ndarray, names: np.ndarray) -> float:
    """Mean of -log p of what is so, over every known label of the clips out of fold."""
    clips = read_manifest(root, ["clip_id", "name"]).to_pydict()
    row = {
        clip: int(np.flatnonzero(names == name)[0])
        for clip, name in zip(clips["clip_id"], clips["name"], strict=True)
    }
    found = []
    for path in Path(root, "runs", run).rglob("predictions.parquet"):
        for answer in storage.read_table(str(path)).to_pylist():
            if answer["role"] == "oof":
                pairs = zip(tags[row[answer["clip_id"]]], answer["scores"], strict=True)
                found += [np.log1p(np.exp(-s if y else s)) for y, s in pairs if not np.isnan(y)]
    assert len(found) == int((~np.isnan(tags)).sum())
    return float(np.mean(found))

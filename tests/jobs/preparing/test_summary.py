"""The summary of `prepare` counts what the manifest holds, however few clips are looked at together."""

import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import prepare
from jobs.catalog.manifest import read_manifest
from jobs.preparing import workplace

ROWS = 300


def counted(said):
    """Split -> clips, groups and units, as they are printed."""
    cells = (re.findall(r"[^\s│]+", line) for line in said.splitlines() if line.startswith("│"))
    return {row[0]: (row[1], row[3], row[7]) for row in cells}


@pytest.mark.parametrize("together", [7, 10**6])
def test_clips_groups_and_units_of_every_split_are_those_of_the_manifest(
    together, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(workplace, "RANGE_ROWS", together)
    rows = {
        "name": [f"c{k}" for k in range(ROWS)],
        "text": ["so"] * ROWS,
        "speaker": [f"s{k % 40}" for k in range(ROWS)],
        # Units hold clips of several splits, and some clips are of none.
        "split": [[None, "train", "valid", "test"][k % 40 % 4] for k in range(ROWS)],
    }
    pq.write_table(pa.table(rows), tmp_path / "labels.parquet")
    source, root = str(tmp_path), str(tmp_path / "root")
    words = ["folder", "--source", source, "--root", root, "--labels", f"{source}/labels.parquet"]
    prepare.main(prepare.configure([*words, "--unit-clips", "16"]))
    table = read_manifest(root, ["split", "group", "unit"])
    expected = {
        name or "(none)": table.filter(pc.equal(table["split"].fill_null(""), name or ""))
        for name in pc.unique(table["split"]).to_pylist()
    }
    assert len(expected) == 4
    assert counted(capsys.readouterr().out) == {
        name: (str(part.num_rows), *(str(len(pc.unique(part[of]))) for of in ("group", "unit")))
        for name, part in {**expected, "all": table}.items()
    }

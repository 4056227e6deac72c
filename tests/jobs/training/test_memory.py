"""`--memory-gb` holds: features above it are never in memory whole, and the batches are the same."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from cluster import storage, tables
from cluster.errors import PlanError
from jobs.training.loading import Request, load
from jobs.training.mapped import Mapped, MemoryBudget

CLIPS, STEPS, DIM = 2400, 50, 512
CONSTANT_MB = 60
"""What reading, pages of the mapped file and batches take, however large the table is."""

CHILD = """
import json, sys
import torch
from jobs.training.loading import Request, load

def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1000

asked = json.loads(sys.argv[1])
asked["inputs"] = tuple(asked["inputs"])
load(Request(**{**asked, "clips": frozenset([0, 1])}))  # every library is loaded
before = peak_mb()
feed = load(Request(**asked)).feed
total = 0.0
for rows in torch.split(torch.randperm(len(feed.lengths), generator=torch.Generator().manual_seed(0)), 32):
    total += float(feed.batch(rows).inputs["audio"].values.double().sum())
print(json.dumps({"rise_mb": peak_mb() - before, "total": total}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> str:
    """A root with one table of 123 MB, in one file and one row group, as an import writes it."""
    root = str(tmp_path_factory.mktemp("large"))
    ids = np.arange(CLIPS)
    manifest = {f.name: pa.nulls(CLIPS, f.type) for f in tables.MANIFEST.schema}
    manifest |= {"clip_id": ids, "name": pa.array([f"c{i}" for i in ids])}
    manifest |= {"unit": pa.array(["u"] * CLIPS), "speaker": pa.array([f"s{i % 7}" for i in ids])}
    manifest |= {"y": pa.array(ids % 3 / 2)}
    table = tables.MANIFEST.conform(pa.table(manifest))
    storage.publish_table(table, f"{root}/manifest/m/part.parquet")
    facts = {
        "name": "large",
        "licence": "none",
        "manifest": "m",
        "tasks": {"y": {"kind": "regression"}},
    }
    storage.publish_json(facts, f"{root}/dataset.json")
    numbers = np.random.default_rng(0).standard_normal(CLIPS * STEPS * DIM, np.float32)
    offsets = pa.array(np.arange(CLIPS + 1) * STEPS, pa.int32())
    steps = pa.FixedSizeListArray.from_arrays(pa.array(numbers.astype(np.float16)), DIM)
    none = pa.array(np.zeros(CLIPS * STEPS, np.float32))
    columns = {
        "clip_id": ids,
        "values": pa.ListArray.from_arrays(offsets, steps),
        "step_start_s": pa.ListArray.from_arrays(offsets, none),
        "step_end_s": pa.ListArray.from_arrays(offsets, none),
        "valid": pa.ListArray.from_arrays(offsets, pa.array(np.ones(CLIPS * STEPS, bool))),
        "status": ["ok"] * CLIPS,
        "error": pa.nulls(CLIPS, pa.string()),
    }
    storage.publish_table(
        tables.features(DIM).conform(pa.table(columns)), f"{root}/features/voice-1/rows.parquet"
    )
    descriptor = {"name": "voice", "modality": "audio", "dim": DIM, "options": {}, "manifest": "m"}
    storage.publish_json(descriptor, f"{root}/features/voice-1/descriptor.json")
    return root


def measured(root: str, cache: Path, **changes) -> dict[str, float]:
    asked = {"root": root, "inputs": ["voice-1"], "cache": str(cache), **changes}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(asked)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read off /proc")
class TestBudget:
    def test_a_table_above_the_budget_is_never_in_memory_whole(self, large, tmp_path):
        small = measured(large, tmp_path, memory_gb=0.01)
        assert small["rise_mb"] < 10 + CONSTANT_MB < CLIPS * STEPS * DIM * 2 / 1e6
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    @pytest.mark.parametrize("normalise", ["none", "speaker"])
    @pytest.mark.parametrize("pool", ["none", "mean_std"])
    def test_whatever_is_done_to_it(self, large, tmp_path, normalise, pool):
        how = {"normalise": normalise, "pool": pool}
        small = measured(large, tmp_path, memory_gb=0.001, **how)
        assert small["rise_mb"] < 1 + CONSTANT_MB
        assert small["total"] == measured(large, tmp_path, memory_gb=4.0, **how)["total"]


@pytest.mark.parametrize("normalise", ["none", "speaker", "speaker:3"])
@pytest.mark.parametrize("pool", ["none", "mean", "mean_std"])
def test_the_batches_are_the_same_either_way(root, tmp_path, pool, normalise):
    request = Request(root=root, inputs=("voice", "face"), pool=pool, normalise=normalise)
    mapped = Request(**{**vars(request), "memory_gb": 1e-9, "cache": str(tmp_path)})
    rows = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    ours, theirs = (load(one).feed.batch(rows) for one in (mapped, request))
    for name, sequence in ours.inputs.items():
        assert torch.equal(sequence.values, theirs.inputs[name].values)
        assert torch.equal(sequence.mask, theirs.inputs[name].mask)


class TestArrays:
    def test_the_budget_is_that_of_all_inputs_together(self, tmp_path):
        budget = MemoryBudget(100, str(tmp_path))
        kinds = [budget((5, 2), np.float32).is_mapped for _ in range(4)]
        assert kinds == [False, False, True, True]
        assert not budget((5, 2), np.float16).is_mapped

    def test_pages_that_were_given_back_still_hold_what_was_written(self, tmp_path):
        steps = Mapped(str(tmp_path), (1000, 7), np.float32)
        steps.array[:] = np.arange(7000).reshape(1000, 7)
        steps.touched(10**9, 1)
        assert np.array_equal(steps.array[-1], np.arange(6993, 7000))

    def test_a_disk_without_room_is_said_before_anything_is_written(self, tmp_path):
        with pytest.raises(PlanError, match="type --cache FOLDER on another disk"):
            Mapped(str(tmp_path), (10**9, 10**7), np.float32)

"""A cluster of a head and no machine starts them for a job, and ends them after it."""

import importlib.util
import re
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "private_host", Path(__file__).with_name("private_host.py")
)
private_host = importlib.util.module_from_spec(spec)
spec.loader.exec_module(private_host)

CLIPS = 60

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1600),
    pytest.mark.skipif(not private_host.is_possible(), reason="needs root for namespaces"),
]


@pytest.mark.parametrize(("gpus", "job"), [(0, "encode"), (1, "score")], ids=["cpus", "gpus"])
def test_from_no_machine_to_three_and_back_with_every_clip_done(tmp_path, gpus, job):
    said = private_host.run("growing.py", str(tmp_path), str(CLIPS), str(gpus), job, limit_s=1500)
    ((most, taken),) = re.findall(r"grew to (\d+), (\d+) GPUs held", said)
    assert int(most) >= 3, said  # one that leaves is counted while another comes in its place
    assert int(taken) >= gpus, said
    if job == "score":
        assert f"scores/b: {CLIPS} clips" in said
    else:
        assert said.count(f": {CLIPS} ok") == 2, said  # of each encoder
    assert "were lost" not in said
    assert said.rstrip().endswith("ends with 0 and []"), said

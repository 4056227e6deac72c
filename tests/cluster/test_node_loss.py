"""A machine that dies in the middle of a job costs time, and no unit."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "private_host", Path(__file__).with_name("private_host.py")
)
private_host = importlib.util.module_from_spec(spec)
spec.loader.exec_module(private_host)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1600),
    pytest.mark.skipif(not private_host.is_possible(), reason="needs root for namespaces"),
]


def test_no_unit_is_lost_with_a_machine_and_every_row_is_that_of_a_calm_run(tmp_path):
    said = private_host.run("losing_a_node.py", str(tmp_path), "160", limit_s=1500)
    _, killed, after = said.partition("killed")
    assert killed
    assert "were lost" not in after, said
    assert after.rstrip().endswith("equal"), said

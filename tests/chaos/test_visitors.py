"""A few of the strange visitors of `visitors.py`: each gets an answer of their own, and nothing is left."""

import subprocess
import sys
from pathlib import Path

import pytest

VISITORS = Path(__file__).with_name("visitors.py")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_strange_requests_find_nothing_wanting():
    process = subprocess.run(
        [sys.executable, str(VISITORS), "--requests", "200"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=800,
    )
    assert process.returncode == 0, process.stdout[-6000:]
    assert "requests 200, faults 0" in process.stdout

"""A seed of `make chaos`: whatever strikes, nothing is lost, twice, different or hung."""

import subprocess
import sys
from pathlib import Path

import pytest

STORM = Path(__file__).with_name("storm.py")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc"),
]


def test_a_storm_leaves_every_row_as_it_is_after_a_calm():
    process = subprocess.run(
        [sys.executable, str(STORM), "--seeds", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1400,
    )
    assert process.returncode == 0, process.stdout[-6000:]
    assert "lost 0, twice 0, different 0, hung 0, seeds with a fault 0" in process.stdout


def test_a_storm_is_drawn_from_its_seed_alone():
    words = "from storm import Weather; print([Weather.drawn(seed) for seed in range(20)])"
    said = [
        subprocess.run(
            [sys.executable, "-c", words], cwd=STORM.parent, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert all(f"'{kind}'" in said[0] for kind in ("driver", "node", "store", "twin", "disk"))

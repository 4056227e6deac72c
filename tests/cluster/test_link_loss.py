"""A host whose packets vanish costs seconds, and no unit; it may come back."""

import re

import pytest

from tests.cluster import private_host

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1600),
    pytest.mark.skipif(not private_host.is_possible(), reason="needs root for namespaces"),
]

LIMIT_S = 40.0
"""A cut link is seen within 10 s where the machine has time, after 65 s with Ray's own settings."""


def test_a_cut_link_loses_no_unit_and_its_host_works_again_when_it_comes_back(tmp_path):
    said = private_host.run("losing_a_link.py", str(tmp_path), "240", limit_s=1500)
    _, cut, after = said.partition("cut\n")
    assert cut
    assert float(re.search(r"dead after ([\d.]+) s", after)[1]) <= LIMIT_S, said
    assert "works again after" in after, said
    assert "were lost" not in after, said
    assert after.rstrip().endswith("equal"), said

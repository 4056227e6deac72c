"""The rendered Slurm script starts one Ray on two hosts, and the job works on both."""

import re

import pytest

from cluster.rendering import Deployment, render
from jobs.catalog.features import read_features, resolve_features
from tests.cluster import private_host

CLIPS = 60
STATUS = 7
"""Of the job, as slurm_hosts lets it end."""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not private_host.is_possible(), reason="needs root for namespaces"),
]


def test_both_hosts_work_the_status_is_passed_on_and_no_token_stays(tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(render("slurm", Deployment(nodes=2, gpus=0)))
    folder = tmp_path / "cluster"
    folder.mkdir()
    said = private_host.run("slurm_hosts.py", str(script), str(folder), str(CLIPS), limit_s=850)
    assert f"status {STATUS}" in said, said
    assert "tokens left 0" in said
    worked = dict(re.findall(r"^clips on (\w+) (\d+)$", said, re.MULTILINE))
    assert set(worked) == {"h1", "h2"}, said
    root = str(folder / "root")
    rows = read_features(root, resolve_features(root, "toy_audio"))
    assert sorted(rows["clip_id"].to_pylist()) == list(range(CLIPS))
    assert set(rows["status"].to_pylist()) == {"ok"}

"""A machine that is gone is noticed soon, by settings that Ray knows."""

from pathlib import Path

import pytest

from cluster.health import HEALTH_CHECK


def test_a_machine_whose_packets_vanish_is_given_up_within_twenty_seconds():
    period, limit = (
        int(HEALTH_CHECK[f"RAY_health_check_{name}_ms"]) for name in ("period", "timeout")
    )
    failures = int(HEALTH_CHECK["RAY_health_check_failure_threshold"])
    assert failures * (period + limit) <= 20_000
    assert limit >= 2000  # a busy machine answers late


@pytest.mark.parametrize("name", HEALTH_CHECK)
def test_ray_knows_the_setting(name):
    from ray import _raylet

    known = Path(_raylet.__file__).read_bytes()
    assert name.removeprefix("RAY_").encode() in known

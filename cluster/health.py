"""Health of a cluster: how soon a machine that is gone counts as gone."""

from collections.abc import Mapping
from types import MappingProxyType

HEALTH_CHECK: Mapping[str, str] = MappingProxyType(
    {
        "RAY_health_check_initial_delay_ms": "5000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "4000",
        "RAY_health_check_failure_threshold": "4",
    }
)
"""Environment of `ray start --head`: a machine that does not answer is given up after at most 20 s.

By default Ray waits for 15 s where the connection is refused, and for 65 s where packets vanish. Until then
the stream hands units to the machine's workers, and waits for what lies in its object store. A unit of a
machine that was given up too early is only encoded again, so that short limits cost little; 4 s for an answer
are left to a machine whose cores are all busy. A session on one machine has nothing to gain by it.
"""

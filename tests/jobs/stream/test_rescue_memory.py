"""A worker that Ray ends for memory costs the clip a row with the reason, or stops the job in one line."""

from types import SimpleNamespace

import pytest
import ray

from cluster.errors import Fault, MachineError
from jobs.stream import rescue
from jobs.stream.faults import Kind, WorkerFaultError


class NoCluster:
    """A ward whose worker is none."""

    def __init__(self, monkeypatch, error):
        def get(*_, **__):
            raise error

        monkeypatch.setattr(ray, "get", get)
        monkeypatch.setattr(ray, "kill", lambda _: None)
        self.ward = object.__new__(rescue._Ward)
        remote = SimpleNamespace(remote=lambda *_: None)
        self.worker = SimpleNamespace(encode_clip=remote, ready=remote)
        self.ward._worker, self.ward.job = self.worker, None
        self.ward._limit_s = lambda _: 1.0


@pytest.mark.parametrize(
    ("error", "kind", "row"),
    [
        (ray.exceptions.OutOfMemoryError("no room"), Kind.MEMORY, Fault.TOO_LARGE),
        (ray.exceptions.ActorDiedError(), Kind.CRASH, Fault.CRASHED),
        (ray.exceptions.GetTimeoutError(), Kind.HUNG, Fault.TIMEOUT),
    ],
)
def test_the_end_of_a_worker_is_a_fault_of_its_kind(monkeypatch, error, kind, row):
    ward = NoCluster(monkeypatch, error).ward
    outcome = ward._tried(None, {})
    assert isinstance(outcome, WorkerFaultError)
    assert (outcome.kind, outcome.row().fault) == (kind, row)
    assert ward._worker is None


def test_a_worker_without_memory_to_start_in_stops_the_job_in_one_line(monkeypatch):
    fake = NoCluster(monkeypatch, ray.exceptions.OutOfMemoryError("no room"))
    fake.ward._remote = SimpleNamespace(remote=lambda *_: fake.worker)
    with pytest.raises(MachineError, match="no memory left"):
        fake.ward._started()

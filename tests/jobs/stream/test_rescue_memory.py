"""A worker that Ray ends for memory costs the clip a row with the reason, or stops the job in one line."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import ray

from cluster.errors import Fault, MachineError
from jobs.stream import rescue
from jobs.stream.faults import Kind, WorkerFaultError
from jobs.stream.job import UnitResult


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


PASSED = UnitResult(features={}, transcripts=None, failed=0)
TASK = SimpleNamespace(todo=[])


@dataclass
class Job:
    work: None = None
    trusting: bool = False


def _ward(monkeypatch, outcomes):
    """A ward whose tries end as told, then pass; and what it slept [s]."""
    slept, outcomes = [], list(outcomes)
    monkeypatch.setattr(rescue.time, "sleep", slept.append)
    monkeypatch.setattr(rescue, "error_rows", lambda *_: "failed")
    monkeypatch.setattr(rescue, "source_of", lambda _: None)
    plan = SimpleNamespace(on_gpu=False, encode=SimpleNamespace(cpus_each=0))
    ward = rescue._Ward(Job(), plan, (), suspicious=False)
    monkeypatch.setattr(ward, "_tried", lambda *_: outcomes.pop(0) if outcomes else PASSED)
    return ward, slept


@pytest.mark.parametrize(
    ("error", "kind", "row"),
    [
        (ray.exceptions.OutOfMemoryError("no room"), Kind.ENDED, Fault.TOO_LARGE),
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


@pytest.mark.parametrize(("ends", "fails"), [(0, 0), (1, 0), (2, 0), (3, 1)])
def test_a_clip_whose_worker_ray_ends_is_tried_twice_more_after_pauses(monkeypatch, ends, fails):
    """What took the memory may be others', who give it back."""
    ward, slept = _ward(monkeypatch, [WorkerFaultError(Kind.ENDED, "no room")] * ends)
    assert ward.treated(TASK, [{}, {}], 0) == ("failed" if fails else PASSED)
    assert slept == list(rescue.PAUSES_S[Kind.ENDED])[:ends]


def test_pauses_end_where_many_clips_are_too_large(monkeypatch):
    ended = [WorkerFaultError(Kind.ENDED, "no room")] * 3
    ward, slept = _ward(
        monkeypatch, [*ended, PASSED] * 40
    )  # each time another clip passes as the witness
    for _ in range(40):
        ward._in_a_row = 0
        assert ward.treated(TASK, [{}, {}], 0) == "failed"
    assert sum(slept) == rescue.PATIENCE_S


@pytest.mark.parametrize(("kind", "tries"), [(Kind.HUNG, 1), (Kind.CRASH, 2), (Kind.MEMORY, 2)])
def test_other_faults_wait_for_nothing(monkeypatch, kind, tries):
    ward, slept = _ward(monkeypatch, [*[WorkerFaultError(kind, "")] * tries, PASSED])
    assert ward.treated(TASK, [{}, {}], 0) == "failed"
    assert sum(slept) == 0


def test_a_worker_without_memory_to_start_in_stops_the_job_in_one_line(monkeypatch):
    fake = NoCluster(monkeypatch, ray.exceptions.OutOfMemoryError("no room"))
    fake.ward._remote = SimpleNamespace(remote=lambda *_: fake.worker)
    with pytest.raises(MachineError, match="no memory left"):
        fake.ward._started()

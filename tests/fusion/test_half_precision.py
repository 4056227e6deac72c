"""A precision that costs more than it saves is said with what to type."""

import pytest
import torch

from fusion.training import half_precision

CPU = torch.device("cpu")


def test_the_slowdown_is_the_ratio_of_the_measured_times(monkeypatch):
    seconds = {torch.bfloat16: 0.006, torch.float16: 0.0005, torch.float32: 0.001}
    monkeypatch.setattr(half_precision, "_seconds", lambda kind, _: seconds[kind])
    assert half_precision.slowdown("bfloat16", CPU) == pytest.approx(6)
    assert half_precision.slowdown("float16", CPU) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_every_precision_can_be_timed(kind):
    assert half_precision._seconds(kind, CPU) > 0


@pytest.mark.parametrize(("times", "said"), [(0.4, False), (1.2, False), (6.0, True)])
def test_only_what_is_slower_is_said(times, said, monkeypatch):
    monkeypatch.setattr(half_precision, "slowdown", lambda *_: times)
    told = half_precision.advice("bfloat16", CPU)
    assert (told is not None) == said
    assert told is None or ("6.0 times" in told and "--precision float32" in told)


def test_single_precision_is_not_measured(monkeypatch):
    monkeypatch.setattr(half_precision, "slowdown", lambda *_: pytest.fail("measured"))
    assert half_precision.advice("float32", CPU) is None

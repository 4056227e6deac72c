"""Arithmetic on a GPU: half precision, and single for what leaves its range."""

import contextlib
import threading

import numpy as np
import pytest

from encoders.batching import arithmetic, in_single_precision, steps, within_range
from encoders.registry import describe
from encoders.spec import Clip
from jobs.stream import workbench
from jobs.stream.job import Work

pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA is not available.*:UserWarning")


def is_half() -> bool:
    return not isinstance(arithmetic("cuda"), contextlib.nullcontext)


def clip(number: int) -> Clip:
    return Clip(clip_id=number, duration_s=1.0)


class Model:
    """Doubles the number of a clip; in half precision, from 3 on, its products overflow."""

    def __init__(self) -> None:
        self.calls = []

    def encode(self, clips):
        self.calls.append([each.clip_id for each in clips])
        return [self._encoded(each.clip_id) for each in clips]

    def _encoded(self, number):
        value = np.inf if is_half() and number >= 3 else 2.0 * number
        return steps(
            np.array([[value, np.nan if number == 9 else 0.0]], np.float32), np.zeros(1), np.ones(1)
        )


def test_single_precision_lasts_as_long_as_it_is_asked_for_in_this_thread_alone():
    assert is_half()
    with in_single_precision():
        assert not is_half()
        seen = []
        thread = threading.Thread(target=lambda: seen.append(is_half()))
        thread.start()
        thread.join()
        assert seen == [True]
    assert is_half()
    with contextlib.suppress(KeyError), in_single_precision():
        raise KeyError
    assert is_half()
    assert isinstance(arithmetic("cpu"), contextlib.nullcontext)


def test_only_clips_that_overflow_are_encoded_again_and_their_order_stays():
    model = Model()
    results = within_range(model.encode)([clip(n) for n in (3, 1, 4, 2)])
    assert [each.values[0, 0] for each in results] == [6, 2, 8, 4]
    assert model.calls == [[3, 1, 4, 2], [3, 4]]


def test_what_no_precision_helps_is_handed_on_after_one_more_try():
    model = Model()
    (result,) = within_range(model.encode)([clip(9)])
    assert np.isnan(result.values).any()
    assert model.calls == [[9], [9]]


def test_in_range_nothing_is_done_twice():
    model = Model()
    assert len(within_range(model.encode)([clip(1), clip(2)])) == 2
    assert within_range(model.encode)([]) == []
    assert model.calls == [[1, 2], []]


@pytest.mark.parametrize(("device", "value"), [("cuda", 6.0), ("cpu", np.inf)])
def test_a_worker_does_so_on_a_gpu(monkeypatch, device, value):
    monkeypatch.setattr(workbench, "local_paths", lambda *_: {})
    monkeypatch.setattr(workbench.registry, "load", lambda *_, **__: Model())
    item = describe("minilm")
    work = Work(descriptors=(item,), transcriber=None, store="")
    bench = workbench.Workbench(work, device=device)
    (result,) = bench._encoders[item.folder]([clip(3)])
    assert result.values[0, 0] == value

"""Whose fault an error of a model is: the clip's own row, or a worker that lets go of all of them."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Fault, MediaError
from encoders.spec import Clip
from jobs.stream.batcher import GROW_AFTER, Batcher
from jobs.stream.faults import Kind, WorkerFaultError
from jobs.stream.pace import Pace
from jobs.stream.watch import Watch


def clips(*numbers):
    """Clips that are told apart by their length."""
    return [
        Clip(clip_id=n, duration_s=float(n), waveforms={8: np.zeros(n, np.float32)})
        for n in numbers
    ]


class Model:
    """Gives back each clip's number; raises where it is told to; keeps the sizes of its batches."""

    def __init__(self, errors=(), *, room=1000, spoils=()):
        self.errors, self.room, self.spoils = dict(errors), room, set(spoils)
        self.spoilt = None
        self.sizes = []

    def __call__(self, given):
        self.sizes.append(len(given))
        if self.spoilt is not None:
            raise self.spoilt
        if len(given) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        for clip in given:
            if clip.clip_id in self.errors:
                if clip.clip_id in self.spoils:
                    self.spoilt = self.errors[clip.clip_id]
                raise self.errors[clip.clip_id]
        return [clip.clip_id for clip in given]


def batcher(model, *, max_clips=8, **options):
    return Batcher(model, size=lambda clip: clip.duration_s, max_clips=max_clips, **options)


OWN = [
    ValueError("v"),
    RuntimeError("Kernel size can't be greater than actual input size"),
    KeyError("k"),
    IndexError("i"),
    ZeroDivisionError("z"),
    AssertionError("a"),
    NotImplementedError("n"),
    np.linalg.LinAlgError("singular"),
    MediaError(Fault.ENCODER, "m"),
]
MACHINES = [
    (RuntimeError("CUDA error: device-side assert triggered"), Kind.DEVICE),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Kind.DEVICE),
    (RuntimeError("NCCL error: unhandled system error"), Kind.DEVICE),
    (SystemError("error return without exception set"), Kind.DEVICE),
    (ImportError("libcublas.so.12"), Kind.DEVICE),
    (MemoryError("m"), Kind.MEMORY),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Kind.MEMORY),
    (OSError(28, "No space left on device"), Kind.DISK),
    (ConnectionResetError("reset"), Kind.DISK),
    (FileNotFoundError(2, "weights are gone"), Kind.DISK),
]


@pytest.mark.parametrize("error", OWN, ids=repr)
def test_what_data_cause_in_a_model_is_the_row_of_that_clip(error):
    results = batcher(Model({3: error}))(clips(1, 2, 3, 4))
    assert [r for r in results if not isinstance(r, MediaError)] == [1, 2, 4]
    assert results[2].fault == Fault.ENCODER


@pytest.mark.parametrize(("error", "kind"), MACHINES, ids=repr)
def test_what_a_machine_does_is_blamed_on_no_clip(error, kind):
    with pytest.raises(WorkerFaultError) as raised:
        batcher(Model({3: error}))(clips(1, 2, 3, 4))
    assert raised.value.kind == kind


@given(st.lists(st.integers(1, 30), min_size=2, unique=True), st.data())
def test_whatever_is_spoilt_by_a_clip_no_other_clip_is_blamed(numbers, data):
    odd = data.draw(st.sampled_from(sorted(numbers)[1:]))  # one has passed before it
    model = Model({odd: ValueError("as if it were data")}, spoils=[odd])
    with pytest.raises(WorkerFaultError):
        batcher(model, pace=Pace(60.0, 0.1), watch=Watch())(clips(*numbers))


@pytest.mark.parametrize("trusting", [True, False])
def test_a_model_that_has_passed_nothing_is_taken_for_spoilt_unless_it_is_trusted(trusting):
    model = Model({n: ValueError("every clip") for n in range(1, 5)})
    read = batcher(model, trusting=trusting)
    if trusting:
        assert {type(result) for result in read(clips(1, 2, 3, 4))} == {MediaError}
    else:
        with pytest.raises(WorkerFaultError):
            read(clips(1, 2, 3, 4))


@pytest.mark.parametrize("first", [1, 4])
def test_one_clip_that_passes_proves_a_model_that_is_not_trusted(first):
    errors = {n: ValueError("v") for n in range(1, 5) if n != first}
    results = batcher(Model(errors), trusting=False)(clips(1, 2, 3, 4))
    assert [r for r in results if not isinstance(r, MediaError)] == [first]


def test_where_memory_runs_out_batches_are_halved_and_grow_again():
    model = Model(room=3)
    read = batcher(model, max_clips=16)
    assert read(clips(*range(1, 33))) == list(range(1, 33))
    assert model.sizes[:4] == [16, 8, 4, 2]
    assert max(model.sizes[4:]) <= 4
    model.room = 1000
    for _ in range(3 * GROW_AFTER):
        assert read(clips(*range(1, 33))) == list(range(1, 33))
    assert model.sizes[-1] == 16


def test_a_clip_too_large_for_the_device_alone_is_its_own_fault_if_others_pass():
    model = Model({9: RuntimeError("CUDA out of memory")})
    results = batcher(model)(clips(1, 2, 9))
    assert results[:2] == [1, 2]
    assert results[2].fault == Fault.TOO_LARGE


def test_all_calls_that_wait_hear_of_a_fault_and_none_gets_an_empty_result():
    begun, go = threading.Event(), threading.Event()

    def model(given):
        begun.set()
        go.wait(30)
        raise OSError(28, "No space left on device")

    read = batcher(model)
    heard = []

    def ask(number):
        try:
            heard.append(read(clips(number)))
        except WorkerFaultError as fault:
            heard.append(fault.kind)

    threads = [threading.Thread(target=ask, args=(number,)) for number in (1, 2, 3)]
    threads[0].start()
    begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert heard == [Kind.DISK] * 3


def test_the_first_call_is_one_clip_which_tells_the_pace():
    model = Model()
    batcher(model, pace=Pace(60.0, 0.1), watch=Watch())(clips(*range(1, 10)))
    assert model.sizes == [1, 8]

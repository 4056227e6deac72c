"""Attribute an error to a clip, which gets an error row, or to the machine, which never costs a clip.

The clip's are the errors that data cause in a model (`CLIPS_OWN`), as long as the worker is in order after
them. Anything else takes the unit out of the worker's hands: the worker is replaced, and `jobs.stream.rescue`
decides clip by clip in a fresh one.
"""

import re
from enum import StrEnum

from cluster.errors import Fault, MachineError, MediaError, StorageError
from jobs.stream.job import UnitReport, UnitTask

CLIPS_OWN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MediaError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors of a model about its input; a RuntimeError only where its text does not name the device."""

DEVICE = re.compile(
    r"cuda (driver |runtime )?error|cudnn|cublas|cufft|nccl|nvml|device-side|hip error|hipblas|mps backend"
    r"|device is (lost|gone)|illegal memory access|unspecified launch failure",
    re.IGNORECASE,
)
DEVICE_FULL = re.compile(
    r"(cuda|hip|mps)\b.*out of memory|out of memory.*\b(cuda|gpu|device)", re.I | re.S
)
HOST_FULL = re.compile(
    r"can't allocate memory|cannot allocate memory|bad_alloc|bad allocation", re.I
)


class Kind(StrEnum):
    """Reason why a worker gave up a unit."""

    CRASH = "crash"
    """It died."""

    HUNG = "hung"
    """A model did not come back."""

    DEVICE = "device"
    """The device, or the process, is spoilt until the process is replaced."""

    MEMORY = "memory"
    """No memory, of the host or the device, even for one clip."""

    ENDED = "ended"
    """Ray ended it, since the machine had no memory left."""

    DISK = "disk"
    """A file, mount or network failed."""

    STORAGE = "storage"
    """The root takes no more files."""

    OTHER = "other"


NEED_A_WITNESS = frozenset({Kind.DISK, Kind.ENDED, Kind.MEMORY})
"""Kinds that are blamed on a clip only while others can be shown to pass."""

ROW = {
    Kind.CRASH: Fault.CRASHED,
    Kind.DISK: Fault.MACHINE,
    Kind.ENDED: Fault.TOO_LARGE,
    Kind.HUNG: Fault.TIMEOUT,
    Kind.MEMORY: Fault.TOO_LARGE,
}
"""The fault of a clip's row that is blamed after all; else `Fault.ENCODER`."""


class WorkerFaultError(MachineError):
    """A worker cannot go on with its unit.

    Args:
        kind: why.
        detail: in one line.
    """

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail

    def __reduce__(self) -> tuple[type["WorkerFaultError"], tuple[Kind, str]]:
        return (WorkerFaultError, (self.kind, self.detail))

    @property
    def spoils(self) -> bool:
        """Whether the process has to be replaced."""
        return self.kind not in (Kind.STORAGE, Kind.OTHER)

    def row(self) -> MediaError:
        """The error of a clip that is blamed for it."""
        return MediaError(ROW.get(self.kind, Fault.ENCODER), self.detail)


def machines(error: BaseException) -> WorkerFaultError | None:
    """Fault of the machine behind an error of a model; None: the error may be the clip's own."""
    if isinstance(error, WorkerFaultError):
        return error
    text = str(error)
    if isinstance(error, MemoryError) or HOST_FULL.search(text) or is_device_full(error):
        return WorkerFaultError(Kind.MEMORY, one_line(error))
    if isinstance(error, OSError):
        return WorkerFaultError(Kind.DISK, one_line(error))
    if isinstance(error, RuntimeError) and DEVICE.search(text):
        return WorkerFaultError(Kind.DEVICE, one_line(error))
    return None if isinstance(error, CLIPS_OWN) else WorkerFaultError(Kind.DEVICE, one_line(error))


def of_unit(error: BaseException) -> WorkerFaultError:
    """Why a unit could not be finished, from whatever was raised."""
    if isinstance(error, StorageError):
        return WorkerFaultError(Kind.STORAGE, str(error))
    if isinstance(error, WorkerFaultError | OSError | MemoryError):
        found = machines(error)
        assert found is not None
        return found
    return WorkerFaultError(Kind.OTHER, one_line(error))


def is_device_full(error: BaseException) -> bool:
    """Whether a device has no memory left; the process is in order after it."""
    named = type(error).__name__ == "OutOfMemoryError"  # torch's, without loading torch
    return named or (isinstance(error, RuntimeError) and bool(DEVICE_FULL.search(str(error))))


def is_full(error: BaseException) -> bool:
    """Whether memory ran out, so that fewer clips at once may pass."""
    found = machines(error)
    return found is not None and found.kind is Kind.MEMORY


def lost_report(task: UnitTask, fault: WorkerFaultError) -> UnitReport:
    """Report of a worker on a unit that it gives up."""
    return UnitReport(
        unit=task.ref.unit,
        num_clips=task.num_clips,
        failed=0,
        decode_s=0.0,
        lost=fault.kind,
        detail=fault.detail,
    )


def one_line(error: BaseException) -> str:
    """Class and first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__

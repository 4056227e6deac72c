"""Every exception of our own, drawn as a tree.

    AffuseError             one line for the user: what came, what was expected, what to type next
    +-- ConfigError         a config or search space names a field that does not exist (also a ValueError)
    +-- TableError          a table or file of arrays has faults, all listed (also a ValueError)
    |   +-- LabelTableError prepare found faults in the label table
    +-- SchemaError         a table on disk is not the one that was asked for
    +-- NotPreparedError    a job needs the output of an earlier job
    |   +-- AbsentError     a file is not there, or not any more
    +-- PlanError           the plan does not fit the cluster
    +-- WeightsError        a model file cannot be had, or is not the one that was pinned
    +-- MissingExtraError   an optional dependency is not installed
    +-- MediaError          one clip cannot be decoded; becomes its error row, never stops a job
    +-- MachineError        a machine fails (full disk, spoilt device); no clip is to blame for it
    +-- ServerError         a server of somebody else's does not answer; what was had is kept
    +-- StorageError        nothing can be written: disk full, read-only, no permission (also an OSError)
    +-- TooManyFailuresError  the share of failed clips passed the configured limit
    +-- DivergedError       training left the finite numbers; the net is not kept
    +-- UnsoundError        `verify` found faults under a root, which it has listed
    +-- TestSplitError      something other than `evaluate` asked for test rows
    +-- SubmissionError     a cluster refused a job

The command line prints any of them as one line and exits with 1. A ValueError raised by the validation
of a config exits with 2. Everything else is a bug and shows its traceback.
"""

from enum import StrEnum


class AffuseError(Exception):
    """Root of our hierarchy."""


class ConfigError(AffuseError, ValueError):
    """A config, a YAML file or a search space names something that does not exist."""


class TableError(AffuseError, ValueError):
    """A table or a file of arrays is not what it should be; the message lists every fault."""


class LabelTableError(TableError):
    """The label table of a source has faults; the message lists all of them."""


class SchemaError(AffuseError):
    """A table on disk has another name, version or column than the reader expects."""


class NotPreparedError(AffuseError):
    """The output of an earlier job is missing; the message names the job to run."""


class AbsentError(NotPreparedError):
    """A file is not there; one that was listed has been gathered into another by another job."""


class PlanError(AffuseError):
    """The stages of a job do not fit the machine or cluster."""


class WeightsError(AffuseError):
    """Weights are absent, or differ from the pinned hash."""


class MissingExtraError(AffuseError):
    """An optional dependency is missing.

    Args:
        feature: what the user asked for, e.g. ``the egemaps encoder``.
        extra: the extra of pyproject.toml that brings it, e.g. ``offline``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an extra; type: pip install -e '.[{extra}]'")
        self.feature = feature
        self.extra = extra

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        return (MissingExtraError, (self.feature, self.extra))


class Fault(StrEnum):
    """The class of fault of one clip; the first word of its `error` line."""

    MISSING = "missing"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    NO_AUDIO = "no_audio"
    NO_VIDEO = "no_video"
    NO_TEXT = "no_text"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    TOO_LARGE = "too_large"
    ENCODER = "encoder"
    MACHINE = "machine"
    """Not the clip's fault at first sight: it is tried again before a row says so."""


class MediaError(AffuseError):
    """One clip cannot be decoded or encoded.

    Args:
        fault: class of fault.
        detail: what was seen, in one line.
    """

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail

    def __reduce__(self) -> tuple[type["MediaError"], tuple[Fault, str]]:
        return (MediaError, (self.fault, self.detail))


class MachineError(AffuseError):
    """A worker cannot go on for a reason that is not its clip's."""


class ServerError(AffuseError):
    """A server that a job asks is away, too slow, or answers something else."""


class StorageError(AffuseError, OSError):
    """A storage fails until the user frees space, grants permission, or brings it back."""


class TooManyFailuresError(AffuseError):
    """More clips failed than --max-failed-share allows."""


class DivergedError(AffuseError):
    """A loss, a weight or a prediction of a net in training is not finite."""


class UnsoundError(AffuseError):
    """Something under a root is not whole."""


class TestSplitError(AffuseError):
    """Test rows were asked for by something other than `evaluate`."""

    __test__ = False  # the name starts with Test; pytest must not collect it


class SubmissionError(AffuseError):
    """A cluster could not be reached or refused the job."""

"""Large files of a table written by tasks of Ray: their bytes never come to the process that waits for them.

A task that is lost with its worker is done again under another name; where it had published its file, both
hold the same rows, and the second look of `jobs.catalog.compaction` leaves one.
"""

from collections.abc import Iterable

from cluster.errors import MachineError
from jobs.catalog.compaction import LargeFile, in_turn

MOST_AT_ONCE = 256
"""Files that are asked for at one time; how many are written is a matter of the free cores."""

RETRIES = 8
"""Of a file whose worker or node died."""


def by_tasks(files: Iterable[LargeFile]) -> list[str]:
    """Write large files, each in a task of one core; a single one here, and all where Ray is not running.

    Returns:
        Their names in order.

    Raises:
        MachineError: workers died of a file again and again; the rows are all there.
    """
    listed = list(files)
    if len(listed) < 2:
        return in_turn(listed)
    import ray
    from ray.exceptions import RayError, RayTaskError

    if not ray.is_initialized():
        return in_turn(listed)
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_written)
    names: list[str] = []
    try:
        for start in range(0, len(listed), MOST_AT_ONCE):
            chunk = listed[start : start + MOST_AT_ONCE]
            names += ray.get([task.remote(file) for file in chunk])
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise MachineError(
            f"{listed[0].folder}: its files were not gathered: workers died {RETRIES + 1} times ({error}); "
            "no row is lost; give a worker more memory, and type the same command again"
        ) from error
    return names


def _written(file: LargeFile) -> str:
    return file.write()

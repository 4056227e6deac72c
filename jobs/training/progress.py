"""Says which nets of a run are done where workers train them, whose own prints reach no user.

The driver looks for what they publish: that is the same on one machine, on a cluster and in a bucket.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cluster import storage
from cluster.errors import AffuseError
from jobs.catalog import layout
from jobs.training.parts import Part
from jobs.training.run import TrainConfig, missing

LOOK_S = 2.0
"""Between two looks at the folder of the run [s]."""


def say_done(part: Part, facts: Mapping[str, Any]) -> None:
    """One line about a net that was published; facts are those of its card."""
    print(f"  {part.title}: best epoch {facts['best_epoch']} of {facts['epochs']}", flush=True)


@contextmanager
def said_as_published(config: TrainConfig, parts: Sequence[Part]) -> Iterator[None]:
    """While it is open, a line is printed about each of the parts as soon as it is published.

    Args:
        config: of the run.
        parts: those that are still to be trained.
    """
    ended = threading.Event()
    left = list(parts)

    def look() -> None:
        nonlocal left
        still = missing(config, left)
        for part in (part for part in left if part not in still):
            card = storage.join(part.folder(config.root, str(config.run)), layout.CARD)
            say_done(part, storage.read_json(card)["facts"])
        left = still

    def look_on() -> None:
        while not ended.wait(LOOK_S):
            try:
                look()
            except (AffuseError, OSError):
                continue  # The job itself says what is wrong with the storage.

    thread = threading.Thread(target=look_on, name="progress", daemon=True)
    thread.start()
    try:
        yield
        ended.set()
        thread.join()
        look()
    finally:
        ended.set()

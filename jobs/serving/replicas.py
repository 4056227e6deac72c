"""Workers of the queue on a Ray cluster: actors that hold the models, on whatever machines have room.

The door, the queue and the rooms stay with the one server, so that a visitor's order, its place and its
answer are where they are asked for. Ray Serve would bring doors that do not know of each other's orders.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError

from cluster.errors import PlanError
from cluster.growth import planned_capacity
from cluster.scratch import claim_scratch
from jobs.serving.captioned import FILM
from jobs.serving.hands import NOT_LOADED, START_LIMIT_S, TRIES, check_open, log
from jobs.serving.judge import Answer, Judge, Order, Report
from jobs.serving.refusal import RefusalError

CPUS = 1
"""That an actor reserves."""

LOOK_S = 0.3
"""How often an actor is asked how far it is [s]."""


class ActorHand:
    """An actor on a Ray cluster, started anew when an order kills it.

    Args:
        start: makes the judge, in the actor; it travels by pickle.
        limit_s: longest time for an order [s].
    """

    def __init__(self, start: Callable[[], Judge], limit_s: float) -> None:
        self._start, self._limit_s = start, limit_s
        self._actor: Any = None
        self._life: Any = None  # what the actor answers with its end
        self._loaded = self._closed = False

    @property
    def ready(self) -> bool:
        """Whether the models are loaded and the actor lives."""
        return self._loaded and not self._is_gone()

    def warm(self) -> None:
        """Start the actor where there is none, and wait until its models are loaded.

        Raises:
            RefusalError: it died meanwhile, or took too long; the log says so.
        """
        try:
            self._load()
        except RayError as error:
            check_open(self._closed)
            raise RefusalError(503, NOT_LOADED) from error

    def answer(self, order: Order, report: Report) -> Answer:
        """Send the order and its file to the actor and wait for what it says."""
        said = NOT_LOADED
        for _ in range(TRIES):
            check_open(self._closed)
            try:
                self._load()
            except RayError:
                continue
            try:
                return self._answered(order, report)
            except RayError as error:
                said = f"{order.name} ended {TRIES} workers, or took them too long"
                self._end("with an order in hand", error)
        check_open(self._closed)
        raise RefusalError(503, said)

    def close(self) -> None:
        """End the actor, and start no other."""
        self._closed = True
        self._drop()

    def _load(self) -> None:
        if self._is_gone():
            self._end("while it had nothing to do", ActorDiedError())
        if self._actor is not None:
            return
        # Three calls at once: one works, one says how far it is, one lasts as long as the actor.
        kind = ray.remote(num_cpus=CPUS, max_concurrency=3)(Replica)
        self._actor = kind.remote(self._start)
        self._life = self._actor.live.remote()
        try:
            ray.get(self._actor.progress.remote(), timeout=START_LIMIT_S)
        except RayError as error:
            self._end("while it loaded its models", error)
            raise
        self._loaded = True

    def _is_gone(self) -> bool:
        life = self._life
        return life is not None and bool(ray.wait([life], timeout=0)[0])

    def _end(self, when: str, error: RayError) -> None:
        """End the actor, and say in the log how it came to that, unless the server ends."""
        if not self._closed:
            why = (str(error).strip().splitlines() or [""])[-1].strip()
            log(f"a replica was lost {when}: {type(error).__name__}: {why}")
        self._drop()

    def _drop(self) -> None:
        if self._actor is not None:
            actor, self._actor = self._actor, None
            self._life, self._loaded = None, False
            ray.kill(actor)

    def _answered(self, order: Order, report: Report) -> Answer:
        content = None if order.file is None else Path(order.file).read_bytes()
        coming = self._actor.answer.remote(order, content)
        deadline = time.monotonic() + self._limit_s
        while not ray.wait([coming], timeout=LOOK_S)[0]:
            if time.monotonic() > deadline:
                raise GetTimeoutError
            report(ray.get(self._actor.progress.remote(), timeout=self._limit_s))
        kind, said, film = ray.get(coming)
        if kind == "refusal":
            raise RefusalError(*said)
        if film is not None and order.file is not None:
            Path(order.file).with_name(FILM).write_bytes(film)
        return dict(said)


class Replica:
    """The actor: a judge, and a folder of its own for the file of the order in hand.

    Args:
        start: makes the judge.
    """

    def __init__(self, start: Callable[[], Judge]) -> None:
        self._folder = claim_scratch()
        self._judge, self._share = start(), 0.0

    def live(self) -> None:
        """Return never: the call fails as soon as the actor is gone."""
        threading.Event().wait()

    def progress(self) -> float:
        """Share of the order in hand that is done [0..1]."""
        return self._share

    def answer(self, order: Order, content: bytes | None) -> tuple[str, Any, bytes | None]:
        """What is said ("answer") or why it is not ("refusal"), and the captioned film where one is made."""
        self._share = 0.0
        with tempfile.TemporaryDirectory(dir=self._folder) as room:
            if order.file is not None and content is not None:
                file = Path(room, os.path.basename(order.file))
                file.write_bytes(content)
                order = replace(order, file=str(file))
            try:
                said = self._judge.answer(order, self._report)
            except RefusalError as refusal:
                return "refusal", refusal.args, None
            film = Path(room, FILM)
            return "answer", said, film.read_bytes() if film.is_file() else None

    def _report(self, share: float) -> None:
        self._share = share


def check_room(replicas: int) -> None:
    """Refuse more actors than the cluster may ever hold.

    Raises:
        PlanError: there are too few CPUs, autoscaled machines counted in.
    """
    cpus = planned_capacity(None).cpus
    if cpus < replicas * CPUS:
        raise PlanError(f"--replicas {replicas}: each takes {CPUS} CPU, the cluster has {cpus:g}")

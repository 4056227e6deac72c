"""The queue: orders of all visitors in the order in which they came, a room for each, and an early end.

A room is a folder of one order, readable by nobody else. It goes when its order has been answered and was
kept for `keep_s`, when the visitor says so, and with the desk. What a killed server left is removed by the
next one.
"""

import math
import os
import secrets
import shutil
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cluster.scratch import claim_scratch, release_scratch
from jobs.serving.captioned import FILM
from jobs.serving.hands import Hand
from jobs.serving.judge import Answer, Order
from jobs.serving.refusal import RefusalError

LOOK_S = 0.5
"""How often a hand without an order is looked at [s]."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
"""How long a hand that ended is left alone before it is started anew without an order [s]: the first time,
and after many that came soon after each other."""

SWEEP_S = 1.0
"""How often what is kept too long is looked for [s]."""

State = Literal["waiting", "working", "done", "refused"]


@dataclass(kw_only=True)
class Ticket:
    """One order on its way."""

    id: str
    room: Path
    order: Order
    state: State = "waiting"
    progress: float = 0.0
    """Share that is done [0..1]."""

    answer: Answer | None = None
    refusal: RefusalError | None = None
    ended: float | None = None
    """When it was answered, by the monotonic clock [s]."""

    gone: bool = False
    """Nobody will ask for it any more."""

    done: threading.Event = field(default_factory=threading.Event)

    @property
    def film(self) -> Path | None:
        """The captioned film, where there is one."""
        film = self.room / FILM
        return film if self.answer is not None and film.is_file() else None


class Desk:
    """Takes orders, has them done by some hands, and keeps the answers for a while.

    Args:
        hands: what does the orders, each in a thread.
        queue: orders that may wait.
        keep_s: how long an answer is kept [s].
        folder: where the rooms are made; by default that of temporary files.
    """

    def __init__(
        self, hands: Sequence[Hand], *, queue: int, keep_s: float, folder: str | None = None
    ) -> None:
        self.folder = claim_scratch(folder)
        self._hands, self._queue, self._keep_s = hands, queue, keep_s
        self._broken: set[Hand] = set()  # of which the last start failed
        self._tickets: dict[str, Ticket] = {}
        self._waiting: deque[Ticket] = deque()
        self._change = threading.Condition()
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(hand,)) for hand in hands]
        self._threads.append(threading.Thread(target=self._sweep))
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    @property
    def ready(self) -> int:
        """Hands whose models are loaded, and which live."""
        return sum(hand.ready for hand in self._hands)

    @property
    def workers(self) -> int:
        """All hands."""
        return len(self._hands)

    @property
    def waiting(self) -> int:
        """Orders that nobody has begun."""
        return len(self._waiting)

    def check_open(self) -> None:
        """Refuse an order before it is read.

        Raises:
            RefusalError: too many are waiting.
        """
        if len(self._waiting) >= self._queue:
            raise RefusalError(
                503, f"{self._queue} others are waiting already; try again in a minute", retry_s=60
            )

    def room(self) -> Path:
        """A folder for what one visitor sends; `take` or `leave` follows."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def leave(self, room: Path) -> None:
        """Remove a room that no order came of."""
        shutil.rmtree(room, ignore_errors=True)

    def take(self, room: Path, order: Order) -> Ticket:
        """Put an order at the end of the queue.

        Raises:
            RefusalError: too many are waiting; the room is gone.
        """
        ticket = Ticket(id=secrets.token_urlsafe(18), room=room, order=order)
        with self._change:
            try:
                self.check_open()
            except RefusalError:
                self.leave(room)
                raise
            self._tickets[ticket.id] = ticket
            self._waiting.append(ticket)
            self._change.notify_all()  # one alone might be of a hand that takes no order now
        return ticket

    def take_film(self, ticket: Ticket) -> Ticket:
        """Put the captioning of an answered film at the end of the queue, as an order with a room of its own.

        Raises:
            RefusalError: there is no film, or no answer yet; too many are waiting.
        """
        source, said = ticket.order.file, ticket.answer
        if source is None or said is None or not said["film"]:
            raise RefusalError(404, "there is no film with an answer under this address")
        self.check_open()
        room = self.room()
        try:
            file = room / Path(source).name
            os.link(source, file)  # its own room may go while this order waits
        except FileNotFoundError as error:
            self.leave(room)
            raise RefusalError(404, "the film is gone") from error
        return self.take(room, Order(file=str(file), name=ticket.order.name, said=said))

    def find(self, ticket_id: str) -> Ticket:
        """The ticket of an id.

        Raises:
            RefusalError: there is none, or none any more.
        """
        ticket = self._tickets.get(ticket_id)
        if ticket is None:
            raise RefusalError(
                404,
                f"there is nothing under this address; answers are kept for {self._keep_s:.0f} s",
            )
        return ticket

    def place(self, ticket: Ticket) -> int:
        """How many orders come first, this one included; 0 once it is begun."""
        with self._change, suppress(ValueError):
            return self._waiting.index(ticket) + 1
        return 0

    def forget(self, ticket: Ticket) -> None:
        """Remove an order, whatever has become of it; one that is being done loses its room at its end."""
        with self._change:
            self._tickets.pop(ticket.id, None)
            with suppress(ValueError):
                self._waiting.remove(ticket)
                ticket.state = "refused"
            ticket.gone = True
        if ticket.state != "working":
            self.leave(ticket.room)

    def close(self) -> None:
        """Stop, and remove everything of everybody."""
        self._closing.set()
        with self._change:
            self._change.notify_all()
        for hand in self._hands:
            hand.close()
        release_scratch(self.folder)

    def _work(self, hand: Hand) -> None:
        pauses = Pauses()
        while not self._closing.is_set():
            if not hand.ready and pauses.are_over():
                self._warm(hand)
                pauses.begin()
            if (ticket := self._next(self._may_take(hand))) is not None:
                self._do(hand, ticket)

    def _do(self, hand: Hand, ticket: Ticket) -> None:
        try:
            ticket.answer = hand.answer(ticket.order, lambda share: _reported(ticket, share))
        except RefusalError as refusal:
            ticket.refusal = refusal
        except Exception:  # noqa: BLE001 (the others in the queue go on)
            traceback.print_exc()  # a bug of ours: for who runs the server, not for the visitor
            ticket.refusal = RefusalError(503, "the worker failed; try again")
        with self._change:
            ticket.state = "done" if ticket.refusal is None else "refused"
            ticket.ended = time.monotonic()
        ticket.done.set()
        if ticket.gone:
            self.leave(ticket.room)

    def _warm(self, hand: Hand) -> None:
        try:
            hand.warm()
        except RefusalError:
            self._broken.add(hand)  # the log says why
        except Exception:  # noqa: BLE001 (the thread goes on, and tries again)
            self._broken.add(hand)
            traceback.print_exc()
        else:
            self._broken.discard(hand)

    def _may_take(self, hand: Hand) -> bool:
        """Whether an order is not better left to another hand.

        One that is not ready leaves it to those that are, also while they are busy; one that could not be
        started leaves it to those that are being started as well.
        """
        if hand.ready:
            return True
        others = [other for other in self._hands if other is not hand]
        if hand in self._broken and any(other not in self._broken for other in others):
            return False
        return not any(other.ready for other in others)

    def _next(self, may_take: bool) -> Ticket | None:
        """The next order; None where there is none to take for a while, or the desk closes."""
        with self._change:
            self._change.wait_for(
                lambda: self._closing.is_set() or (may_take and self._waiting), LOOK_S
            )
            if self._closing.is_set() or not (may_take and self._waiting):
                return None
            ticket = self._waiting.popleft()
            ticket.state = "working"
            return ticket

    def _sweep(self) -> None:
        while not self._closing.wait(min(SWEEP_S, self._keep_s)):
            now = time.monotonic()
            with self._change:
                old = [
                    ticket
                    for ticket in self._tickets.values()
                    if ticket.ended is not None and now - ticket.ended > self._keep_s
                ]
            for ticket in old:
                self.forget(ticket)


class Pauses:
    """Between the starts of a hand that ends again and again; after a long life they are short again."""

    def __init__(self) -> None:
        self._pause_s, self._since = 0.0, -math.inf

    def are_over(self) -> bool:
        """Whether the hand may be started."""
        return time.monotonic() - self._since >= self._pause_s

    def begin(self) -> None:
        """The hand was started, whatever came of it."""
        now = time.monotonic()
        is_soon = now - self._since < 2 * LONGEST_PAUSE_S
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S) if is_soon else FIRST_PAUSE_S
        self._since = now


def _reported(ticket: Ticket, share: float) -> None:
    ticket.progress = share

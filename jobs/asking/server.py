"""One OpenAI-compatible server (vLLM, llama.cpp and others), asked politely.

A question is one POST to `<url>/chat/completions`. A server that is busy, slow or away is asked again after
a growing pause; one that refuses is not. Redirects are not followed and no proxy is used, so that what is
asked, and the token, reach the named host alone.
"""

import contextlib
import http.client
import ipaddress
import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cluster.console import readable
from cluster.errors import ConfigError, ServerError
from cluster.redaction import redacted

TOKEN = "AFFUSE_ASK_TOKEN"
"""Environment variable of the server's token; it is sent in a header, and written nowhere."""

MAX_REPLY = 4 << 20
"""Largest reply that is read [bytes]."""

LONGEST_PAUSE_S = 30.0
SHOWN = 200
"""Characters of a server's own words that an error repeats."""

BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses after which a question is asked again."""

_PLAIN = re.compile(r"[!-~]+")
"""What a header and a request line can hold."""

Reply = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How hard a server is worked."""

    at_once: int = 4
    """Questions under way at the same time."""

    per_minute: float = 0.0
    """Most questions a minute; 0: as many as the server takes."""

    timeout_s: float = 60.0
    """Time for one reply, whole [s]."""

    tries: int = 5
    """How often one question is asked before the job stops."""

    pause_s: float = 1.0
    """Pause after the first failure [s]; it doubles, up to half a minute."""

    def __post_init__(self) -> None:
        if self.at_once < 1 or self.tries < 1:
            raise ConfigError("--limits.at-once and --limits.tries: expected 1 or more")
        if self.timeout_s <= 0 or self.pause_s < 0 or self.per_minute < 0:
            raise ConfigError(
                "--limits: expected a timeout above 0, and a pause and a rate of 0 or more"
            )


class RefusedError(Exception):
    """The server answered that it will not answer this; its status and its own words."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"status {status}: {said}")
        self.status, self.said = status, said


class _BusyError(Exception):
    """What may pass: no connection, no reply in time, too many questions."""

    def __init__(self, said: str, wait_s: float = 0.0) -> None:
        super().__init__(said)
        self.wait_s = wait_s


class Server:
    """Asks questions from several threads; after the first failure for good nobody asks any more.

    Args:
        url: base of the interface, e.g. http://127.0.0.1:8000/v1.
        limits: how hard it is worked.

    Raises:
        ConfigError: no URL to ask, or a token that no header can hold.
    """

    def __init__(self, url: str, limits: Limits) -> None:
        self.url, self.limits = url, limits
        self._at = checked_url(url)
        self._token = checked_token()
        self._pace = _Pace(limits.per_minute)
        self._stop = threading.Event()
        self._ending = threading.Lock()
        self._why = "stopped asking"
        self._calls: set[_Call] = set()

    def ask(self, question: Mapping[str, Any]) -> Reply:
        """The reply to one question, the body of `chat/completions`.

        Raises:
            ServerError: the server is away, too slow, busy for too long, or answers something else.
            RefusedError: it refuses this question.
        """
        body = json.dumps(question, ensure_ascii=False).encode()
        for attempt in range(self.limits.tries):
            self._pace.wait(self._stop)
            if self._stop.is_set():
                raise self._stopped()
            try:
                return self._post(body)
            except _BusyError as error:
                why, wait_s = str(error), error.wait_s
            if attempt + 1 < self.limits.tries:
                pause_s = self.limits.pause_s * 2**attempt * (1 + random.random())
                self._stop.wait(min(max(pause_s, wait_s), LONGEST_PAUSE_S))
        tries = self.limits.tries
        self.close(f"{why}, {tries} time{'s' * (tries != 1)}")
        raise self._stopped()

    def close(self, why: str | None = None) -> None:
        """Ask nothing more: threads that wait give up, and what is under way is hung up.

        Args:
            why: in words; the first reason is what every thread tells, whichever of them ends first.
        """
        with self._ending:
            if not self._stop.is_set():
                self._why = why or self._why
                self._stop.set()
        for call in list(self._calls):
            call.hang_up()

    def _stopped(self) -> ServerError:
        return ServerError(f"{self.url}: {self._why}")

    def _post(self, body: bytes) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        kind = http.client.HTTPSConnection if self._at.scheme == "https" else None
        connection = (kind or http.client.HTTPConnection)(
            str(self._at.hostname), self._at.port, timeout=self.limits.timeout_s
        )
        # The socket's own limit is for each read: a server that drips would hold a question for ever.
        call = _Call()
        alarm = threading.Timer(self.limits.timeout_s, call.hang_up)
        alarm.daemon = True
        alarm.start()
        self._calls.add(call)
        try:
            connection.connect()
            call.socket = connection.sock
            connection.request(
                "POST", f"{self._at.path.rstrip('/')}/chat/completions", body, headers
            )
            response = connection.getresponse()
            content = response.read(MAX_REPLY + 1)
            if call.hung_up.is_set() or (response.length and len(content) <= MAX_REPLY):
                raise http.client.IncompleteRead(content, response.length)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if call.hung_up.is_set() or isinstance(error, TimeoutError):
                said = f"no answer within {self.limits.timeout_s:g} s"
                raise _BusyError(said) from error
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise _BusyError(f"does not answer ({why or type(error).__name__})") from error
        finally:
            alarm.cancel()
            self._calls.discard(call)
            connection.close()
        return self._reply(response, content)

    def _reply(self, response: http.client.HTTPResponse, content: bytes) -> Reply:
        if len(content) > MAX_REPLY:
            raise ServerError(f"{self.url}: a reply of more than {MAX_REPLY >> 20} MB")
        if response.status in BUSY:
            wait_s = response.headers.get("Retry-After", "")
            raise _BusyError(
                f"answers with status {response.status}",
                float(wait_s) if wait_s.isdecimal() and wait_s.isascii() else 0.0,
            )
        if response.status != 200:
            elsewhere = response.headers.get("Location", "") if response.status < 400 else ""
            raise RefusedError(
                response.status, readable(redacted(elsewhere))[:SHOWN] or _said(content)
            )
        try:
            reply = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ServerError(f"{self.url}: the reply is no JSON; is it an API base?") from error
        if not isinstance(reply, dict):
            raise ServerError(f"{self.url}: the reply is no JSON object; is it an API base?")
        return reply


def checked_url(url: str) -> SplitResult:
    """The parts of a server's URL.

    Raises:
        ConfigError: it is none, holds a password, or would send in the clear to another machine.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"--server: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            f"--server {url[:100]!r}: expected a URL such as http://127.0.0.1:8000/v1"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"--server: a URL without user, password or query; a token goes into {TOKEN}"
        )
    if not _PLAIN.fullmatch(url):
        raise ConfigError(
            f"--server {url[:100]!r}: expected printable ASCII without spaces (a host's name as xn--...)"
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(
            f"--server {url[:100]}: http would send people's words and the token in the clear; type "
            "https, or tunnel to loopback: ssh -L 8000:localhost:8000 HOST"
        )
    return parts


def checked_token() -> str:
    """The token of the environment; a line break at its end comes of `$(cat file)`'s like.

    Raises:
        ConfigError: a header cannot hold it; it is not repeated.
    """
    token = os.environ.get(TOKEN, "").strip()
    if token and not _PLAIN.fullmatch(token):
        raise ConfigError(
            f"{TOKEN}: expected a token of printable ASCII without spaces, on one line"
        )
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Call:
    """One request, which another thread can end: closing alone would not wake one that reads."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.hung_up = threading.Event()

    def hang_up(self) -> None:
        """End it."""
        self.hung_up.set()
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


def _said(content: bytes) -> str:
    """A server's own words on why it refuses, on one line."""
    text = content[:10_000].decode(errors="replace")
    try:
        found = json.loads(text)
        error = found.get("error", found.get("message", text))
        text = error.get("message", text) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError, RecursionError):
        pass
    return readable(" ".join(str(text).split())[:SHOWN])


class _Pace:
    """Spreads questions over the minute."""

    def __init__(self, per_minute: float) -> None:
        self._every_s = 60 / per_minute if per_minute else 0.0
        self._next, self._lock = time.monotonic(), threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Wait for this thread's turn."""
        if not self._every_s:
            return
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._every_s
        stop.wait(max(turn - time.monotonic(), 0.0))

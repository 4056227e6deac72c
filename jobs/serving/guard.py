"""The door of the server, before anything of a request is read: who asks, from where, how often, how much.

Against a page of a stranger in the visitor's own browser: the name in `Host` is one of ours (DNS rebinding),
and what changes anything comes from our own page (`Origin`, `Sec-Fetch-Site`).
"""

import asyncio
import hmac
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from jobs.serving.refusal import RefusalError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

COOKIE = "affuse_token"

OPEN = frozenset({"/health", "/login", "/page.css", "/icon.svg"})
"""What is there without a token."""

MOST_VISITORS = 10_000
"""Addresses whose rate is remembered."""

PATIENCE_S = 30.0
"""How long a body may be silent, and by how much it may be later than at the slowest rate [s]."""

SLOWEST_RATE = 16 * 2**10
"""Least rate of an upload [bytes/s]."""

BARE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing and bring no body."""

HEADERS = (
    (b"content-security-policy", b"default-src 'self'; media-src 'self' blob:; img-src 'self' blob:; "
     b"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"microphone=(self), camera=(self), geolocation=()"),
    (b"cache-control", b"no-store"),
)  # fmt: skip

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Who may ask, and how much."""

    token: str | None = None
    """What has to be shown; None on loopback."""

    names: frozenset[str] = LOOPBACK
    """Names under which the server may be asked; empty: any."""

    per_minute: int = 30
    """Orders of one address in a minute."""

    max_bytes: int = 64 * 2**20
    """Largest body of a request [bytes]."""


class DoorGuard:
    """An application behind the rules.

    Args:
        app: what is guarded.
        rules: what is asked of a request.
    """

    def __init__(self, app: App, rules: Rules) -> None:
        self._app, self._rules = app, rules
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sealed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        request = Request(scope, receive)
        try:
            answer = self._stopped(request)
            if request.method == "HEAD":  # as GET; the server sends no body
                scope = {**scope, "method": "GET"}
            if answer is None:
                bare = request.method in BARE
                await self._app(scope, receive if bare else self._bounded(receive), sealed)
                return
        except RefusalError as refusal:
            answer = refused(refusal)
        except asyncio.CancelledError:  # the server ends, and does not wait for this one
            answer = refused(RefusalError(503, "the server is being ended", retry_s=60))
        if not begun:
            await answer(scope, receive, sealed)

    def _stopped(self, request: Request) -> Response | None:
        """An answer in place of the application's; None where the request may pass."""
        host = request.headers.get("host", "")
        name = _name_of(host)
        if self._rules.names and name not in self._rules.names:
            raise RefusalError(
                421, f"this server is not called {host[:80]!r}; its names are set by --names"
            )
        if request.method not in BARE:
            self._check_origin(request, host)
            self._check_size(request)
        if (answer := self._without_token(request)) is not None:
            return answer
        if request.method == "POST":
            self._check_rate(request)
        return None

    def _check_origin(self, request: Request, host: str) -> None:
        origin = request.headers.get("origin")
        strange = origin is not None and (origin == "null" or urlsplit(origin).netloc != host)
        if strange or request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise RefusalError(403, "this request comes from another page; open the server's own")

    def _without_token(self, request: Request) -> Response | None:
        """What is answered to somebody without the token; the address with it becomes a cookie."""
        token = self._rules.token
        if token is None:
            return None
        if same(request.query_params.get("token"), token) and request.method == "GET":
            answer = RedirectResponse(request.url.path, 303)
            answer.set_cookie(
                COOKIE, token, httponly=True, samesite="strict", secure=is_tls(request)
            )
            return answer
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        if same(shown, token) or same(request.cookies.get(COOKIE), token):
            return None
        if request.url.path in OPEN:
            return None
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        self._check_rate(request)
        raise RefusalError(401, "a token is needed: Authorization: Bearer TOKEN")

    def _check_rate(self, request: Request) -> None:
        who = request.client.host if request.client else ""
        now = time.monotonic()
        times = self._seen.setdefault(who, deque())
        self._seen.move_to_end(who)
        while len(self._seen) > MOST_VISITORS:
            self._seen.popitem(last=False)
        while times and now - times[0] > 60:
            times.popleft()
        if len(times) >= self._rules.per_minute:
            wait_s = int(60 - (now - times[0])) + 1
            raise RefusalError(
                429,
                f"{self._rules.per_minute} requests a minute are enough; wait {wait_s} s",
                wait_s,
            )
        times.append(now)

    def _check_size(self, request: Request) -> None:
        length = request.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise RefusalError(400, "Content-Length: expected a number")
        if int(length) > self._rules.max_bytes:
            raise self._too_large()

    def _bounded(self, receive: Receive) -> Receive:
        """The body: it may be longer than its header says, have no length, come slowly, or never end."""
        count, whole, begun = 0, False, time.monotonic()

        async def receive_some() -> Message:
            nonlocal count, whole
            if whole:  # what is waited for now is that the visitor leaves
                return await receive()
            late = begun + PATIENCE_S + count / SLOWEST_RATE
            try:
                message = await asyncio.wait_for(
                    receive(), min(PATIENCE_S, late - time.monotonic())
                )
            except TimeoutError as error:
                raise RefusalError(
                    408, f"the upload came too slowly: {count} bytes, then nothing or little more"
                ) from error
            if message["type"] == "http.disconnect":
                raise RefusalError(499, "the visitor has left")
            whole = not message.get("more_body", False)
            count += len(message.get("body", b""))
            if count > self._rules.max_bytes:
                raise self._too_large()
            return message

        return receive_some

    def _too_large(self) -> RefusalError:
        return RefusalError(413, f"at most {self._rules.max_bytes / 2**20:g} MB are taken")


def refused(refusal: RefusalError) -> JSONResponse:
    """A refusal as an answer of HTTP."""
    headers = {} if refusal.retry_s is None else {"Retry-After": str(refusal.retry_s)}
    return JSONResponse({"error": refusal.sentence}, refusal.status, headers)


def _name_of(host: str) -> str:
    """The name in a `Host` header, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def is_tls(request: Request) -> bool:
    """Whether the visitor came by TLS, as the proxy in front says."""
    return request.headers.get("x-forwarded-proto", request.url.scheme) == "https"


def same(shown: str | None, token: str) -> bool:
    """Whether what was shown is the token, in a time that says nothing of it."""
    return shown is not None and hmac.compare_digest(shown.encode(), token.encode())

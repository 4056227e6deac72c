"""The HTTP interface and the page, over a desk that has the work done."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from starlette.exceptions import HTTPException

from jobs.serving.desk import Desk, Ticket
from jobs.serving.guard import COOKIE, DoorGuard, Rules, is_tls, refused, same
from jobs.serving.handbook import handbook
from jobs.serving.intake import BLOCK_BYTES, EXPECTED, MOST_LETTERS, read_order
from jobs.serving.refusal import RefusalError
from jobs.serving.schema import FullAnswer, OrderState, Refused, ServedFacts, ServerHealth
from jobs.serving.tables import csv_of

LOOK_S = 0.02
"""How often a waiting request looks whether its answer is there [s]."""

LAST_TURNS = 20
"""Turns of the loop between the end of waiting requests and that of the desk."""

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/login": ("login.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

WORDS = {"type": "string", "pattern": r"\S", "maxLength": MOST_LETTERS}

SAYS = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["text"],
            "properties": {"text": WORDS},
            "additionalProperties": False,
        }
    },
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "file": {"type": "string", "format": "binary"},
                "text": WORDS,
            },
            "additionalProperties": False,
        }
    },
}
BODY = {"requestBody": {"required": True, "description": EXPECTED, "content": SAYS}}

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refused, "description": "The body cannot be read."},
    401: {"model": Refused, "description": "A token is needed."},
    403: {"model": Refused, "description": "The request comes from another page."},
    408: {"model": Refused, "description": "The upload came too slowly."},
    413: {"model": Refused, "description": "Too large or too long."},
    415: {"model": Refused, "description": "No sound, film, picture or text."},
    422: {"model": Refused, "description": "It holds nothing that can be read."},
    429: {"model": Refused, "description": "Too many requests from one address."},
    503: {"model": Refused, "description": "Too many are waiting, or a worker failed."},
}
ABSENT: dict[int | str, dict[str, Any]] = {
    404: {"model": Refused, "description": "Nothing, or nothing any more, under this address."}
}


def guarded(desk: Desk, rules: Rules, facts: ServedFacts) -> DoorGuard:
    """The application behind its guard.

    Args:
        desk: has orders done; it is closed with the application.
        rules: who may ask, and how much.
        facts: what the page shows of the bundle and the limits.
    """
    return DoorGuard(make_app(desk, rules, facts), rules)


def make_app(desk: Desk, rules: Rules, facts: ServedFacts) -> FastAPI:
    """The application without its guard."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for _turn in range(LAST_TURNS):  # whoever was waiting is told before the process ends
            await asyncio.sleep(0.01)
        desk.close()

    app = FastAPI(
        title="affuse",
        description="Recognise emotion from video, voice and words.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_exception_handler(RefusalError, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    _add_pages(app, rules)
    _add_predict(app, desk, facts)
    _add_orders(app, desk)
    _add_films(app, desk)
    return app


def _add_pages(app: FastAPI, rules: Rules) -> None:
    folder = files("jobs.serving") / "page"
    for path, (name, kind) in PAGE.items():
        content = folder.joinpath(name).read_bytes()
        _add_file(app, path, content, kind)

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        has_token = rules.token is not None
        return HTMLResponse(handbook(app.openapi(), _address(request), has_token=has_token))

    @app.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        body = (await request.body()).decode("ascii", "replace")
        shown = parse_qs(body, max_num_fields=4).get("token", [""])[0]
        if rules.token is None or not same(shown.strip(), rules.token):
            return RedirectResponse("/login?wrong", 303)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE, rules.token, httponly=True, samesite="strict", secure=is_tls(request)
        )
        return answer


def _address(request: Request) -> str:
    """The server's address as the visitor typed it; a name that no shell takes as it stands is left out."""
    host = request.headers.get("host", "")
    scheme = "https" if is_tls(request) else "http"
    return f"{scheme}://{host if re.fullmatch(r'[A-Za-z0-9.:-]+', host) else 'HOST'}"


def _add_file(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    @app.get(path, include_in_schema=False)
    def page() -> Response:
        return Response(content, media_type=kind)


def _add_predict(app: FastAPI, desk: Desk, facts: ServedFacts) -> None:
    @app.get("/health")
    def health() -> ServerHealth:
        """Whether the server answers."""
        ready = desk.ready
        return ServerHealth(
            status="ok" if ready else "starting",
            bundle=facts.bundle,
            workers=desk.workers,
            ready=ready,
            waiting=desk.waiting,
        )

    @app.get("/facts")
    def what_is_served() -> ServedFacts:
        """The bundle and the limits."""
        return facts

    @app.post("/predict", responses=REFUSALS, openapi_extra=BODY)
    async def predict(request: Request) -> FullAnswer:
        """Predict for a file, a text or both; the answer comes when it is done, and nothing is kept."""
        ticket = await _taken(request, desk)
        try:
            while not ticket.done.is_set():
                await asyncio.sleep(LOOK_S)
                if await request.is_disconnected():
                    raise RefusalError(499, "the visitor has left")
        finally:
            desk.forget(ticket)
        if ticket.refusal is not None:
            raise ticket.refusal
        return FullAnswer.model_validate(ticket.answer)


def _add_orders(app: FastAPI, desk: Desk) -> None:
    @app.post("/orders", status_code=202, responses=REFUSALS, openapi_extra=BODY)
    async def order(request: Request) -> OrderState:
        """Put a file, a text or both into the queue; only who knows the id sees what becomes of it."""
        return _state(desk, await _taken(request, desk))

    @app.get("/orders/{ticket_id}", responses=ABSENT)
    def state(ticket_id: str) -> OrderState:
        """How far an order is, and its answer."""
        return _state(desk, desk.find(ticket_id))

    @app.delete("/orders/{ticket_id}", status_code=204, responses=ABSENT)
    def forget(ticket_id: str) -> None:
        """Remove an order, its file and its answer."""
        desk.forget(desk.find(ticket_id))

    @app.get("/orders/{ticket_id}/scores.json", responses=ABSENT)
    def scores_json(ticket_id: str) -> FullAnswer:
        """The answer as a file."""
        return _answer(desk.find(ticket_id))

    @app.get("/orders/{ticket_id}/scores.csv", responses=ABSENT, response_class=Response)
    def scores_csv(ticket_id: str) -> Response:
        """The answer as a table: a row for the whole, for each modality and each piece of the timeline."""
        return Response(csv_of(_answer(desk.find(ticket_id))), media_type="text/csv")


def _add_films(app: FastAPI, desk: Desk) -> None:
    @app.post("/orders/{ticket_id}/film", status_code=202, responses=REFUSALS | ABSENT)
    def order_film(ticket_id: str) -> OrderState:
        """Have an answer written on its film: an order of its own, with film.mp4 when it is done."""
        return _state(desk, desk.take_film(desk.find(ticket_id)))

    @app.get("/orders/{ticket_id}/film.mp4", responses=ABSENT, response_class=StreamingResponse)
    def film(ticket_id: str) -> StreamingResponse:
        """The captioned film."""
        there = desk.find(ticket_id).film
        try:
            if there is None:
                raise FileNotFoundError
            # An open file outlives its room: a visitor may delete it while it is on the way.
            content = there.open("rb")
        except FileNotFoundError as error:
            raise RefusalError(404, "there is no captioned film under this address") from error
        headers = {"Content-Length": str(os.fstat(content.fileno()).st_size)}
        return StreamingResponse(_blocks(content), media_type="video/mp4", headers=headers)


def _blocks(content: BinaryIO) -> Iterator[bytes]:
    with content:
        while block := content.read(BLOCK_BYTES):
            yield block


async def _taken(request: Request, desk: Desk) -> Ticket:
    """The order of a request, in the queue."""
    desk.check_open()
    room = desk.room()
    try:
        order = await read_order(request, room)
    except BaseException:
        desk.leave(room)
        raise
    return desk.take(room, order)


def _state(desk: Desk, ticket: Ticket) -> OrderState:
    answer = None if ticket.answer is None else FullAnswer.model_validate(ticket.answer)
    return OrderState(
        id=ticket.id,
        state=ticket.state,
        place=desk.place(ticket),
        progress=1.0 if answer is not None else ticket.progress,
        answer=answer,
        film=ticket.film is not None,
        error=None if ticket.refusal is None else ticket.refusal.sentence,
    )


def _answer(ticket: Ticket) -> FullAnswer:
    if ticket.refusal is not None:
        raise ticket.refusal
    if ticket.answer is None:
        raise RefusalError(404, "the answer is not there yet")
    return FullAnswer.model_validate(ticket.answer)


async def _refusal(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusalError)
    return refused(error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    return refused(RefusalError(422, f"the request is not understood: {error}"[:300]))


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    said = {404: "there is no such page", 405: "this page does not take that method"}
    sentence = said.get(error.status_code, str(error.detail))
    answer = refused(RefusalError(error.status_code, sentence))
    answer.headers.update(error.headers or {})  # of a method that is not taken: those that are
    return answer

"""From the body of a request to an order: a file in a room of its own, or words."""

import json
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from jobs.serving.judge import Order
from jobs.serving.refusal import RefusalError
from jobs.serving.sniffing import HEAD_BYTES, suffix_of

MOST_LETTERS = 5_000
"""Length of a text."""

NAME_LETTERS = 120
BLOCK_BYTES = 2**20

EXPECTED = (
    'expected a form (multipart/form-data) with "file", "text" or both, or JSON {"text": "..."}'
)


async def read_order(request: Request, room: Path) -> Order:
    """What a request asks for; its file lies in the room.

    Raises:
        RefusalError: neither file nor text, or one that is not accepted.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _of_words(await _json_text(request))
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise RefusalError(415, EXPECTED)
    try:
        async with request.form(max_files=1, max_fields=4) as form:
            file, text = form.get("file"), form.get("text")
            words = text if isinstance(text, str) and text.strip() else None
            if isinstance(file, UploadFile) and (file.filename or file.size):
                return await _of_file(file, words, room)
            return _of_words(words)
    except HTTPException as error:
        raise RefusalError(error.status_code, f"{error.detail}; {EXPECTED}") from error
    except ValueError as error:  # a boundary or a header that is no text
        raise RefusalError(400, f"the form cannot be read; {EXPECTED}") from error


async def _json_text(request: Request) -> Any:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise RefusalError(400, f"the body is no JSON; {EXPECTED}") from error
    if not isinstance(body, dict) or set(body) != {"text"}:
        raise RefusalError(422, EXPECTED)
    return body["text"]


async def _of_file(file: UploadFile, words: str | None, room: Path) -> Order:
    _check_words(words)
    name = _shown(file.filename or "recording")
    head = await file.read(HEAD_BYTES)
    if not head:
        raise RefusalError(422, f"{name} is empty")
    suffix = suffix_of(head)
    if suffix is None:
        raise RefusalError(415, f"{name} is no sound, film or picture that is known here")
    place = room / f"upload{suffix}"
    with place.open("xb") as out:
        block = head
        while block:
            out.write(block)
            block = await file.read(BLOCK_BYTES)
    return Order(file=str(place), name=name, text=words)


def _of_words(text: Any) -> Order:
    if not isinstance(text, str) or not text.strip():
        raise RefusalError(422, EXPECTED)
    _check_words(text)
    return Order(text=text.strip())


def _check_words(text: str | None) -> None:
    if text is None:
        return
    if len(text) > MOST_LETTERS:
        raise RefusalError(
            413, f"the text has {len(text)} letters; at most {MOST_LETTERS} are taken"
        )
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RefusalError(422, "the text holds half letters (surrogates); expected Unicode")


def _shown(name: str) -> str:
    """What a visitor called a file, fit to be shown: its last part, in letters that are seen."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1][-NAME_LETTERS:]
    seen = "".join(letter if letter.isprintable() else "?" for letter in last)
    return seen.strip() or "recording"

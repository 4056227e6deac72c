"""Strange visitors of `affuse serve`: `python tests/chaos/visitors.py --requests 2000 --seed 0`.

A server with the toys' bundle, two worker processes and a folder for its temporary files of its own is asked
by four visitors at once: real media files of a dozen containers, whole, cut, spliced and with bytes changed;
random bytes behind the first bytes of each kind; forms, JSON and names of every shape; other methods and
addresses. A visitor's file has a name that nobody else has.

Found wanting, and exit status 1: an answer of 500 or above, one that the OpenAPI document does not describe,
an error without a sentence, another visitor's name, a path of the server, a room that is left, a file
anywhere else, a worker that died, a request that was never answered.
"""

import argparse
import http.client
import importlib
import io
import json
import random
import re
import socket
import string
import sys
import tempfile
import threading
import wave
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOYS = HERE.parent / "jobs" / "toys"
sys.path[:0] = [str(HERE.parent.parent), str(TOYS)]

import av  # noqa: E402
import jsonschema  # noqa: E402
import numpy as np  # noqa: E402
import uvicorn  # noqa: E402

from jobs.serving.app import guarded  # noqa: E402
from jobs.serving.desk import Desk  # noqa: E402
from jobs.serving.facts import facts_of  # noqa: E402
from jobs.serving.guard import Rules  # noqa: E402
from jobs.serving.hands import ProcessHand  # noqa: E402

MOST_BYTES = 2**20
ANSWER_S = 300.0
VISITORS = 4
OWN = re.compile(r"visitor[0-9]+x")
STATUSES = {404, 405, 421}
"""What any address may answer, beside what is described."""

CONTAINERS = {  # ending: codec of sound, codec of pictures
    "wav": ("pcm_s16le", None), "flac": ("flac", None), "ogg": ("libopus", None),
    "mp3": ("libmp3lame", None), "aiff": ("pcm_s16be", None), "mp4": ("aac", "libx264"),
    "mkv": ("aac", "libx264"), "avi": ("pcm_s16le", "mpeg4"), "ts": ("aac", "libx264"),
    "flv": ("aac", "libx264"), "mov": ("aac", "mpeg4"),
}  # fmt: skip
HEADS = (
    b"fLaC", b"OggS", b"RIFF1234WAVEfmt ", b"RF64\xff\xff\xff\xffWAVE", b"RIFF1234AVI LIST", b"FORM1234AIFF",
    b"ID3\x04", b"\xff\xfb\x90\x64", b"\xff\xf1", b"#!AMR\n", b"\0\0\0\x18ftypmp42", b"\0\0\0\x08moov",
    b"\x1a\x45\xdf\xa3", b"FLV\x01\x05", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\0\0\x01\xba",
    b"G" + bytes(187) + b"G", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF1234WEBPVP8 ",
    b"BM1234\0\0\0\0", b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"<svg", b"PK\3\4", b"",
)  # fmt: skip
"""First bytes of each kind of file that is taken, and of some that are not."""

PICTURES = ("PNG", "JPEG", "BMP", "WEBP")
NAMES = (
    "../../{}.wav",
    "/etc/{}",
    "..\\{}",
    "{}\u202e.mp4",
    "=cmd|'{}'",
    "{}.",
    "<b>{}",
    "{}" + "x" * 300,
)
KINDS = ("application/json", "multipart/form-data", "multipart/form-data; boundary=", "text/plain", "",
         "application/x-www-form-urlencoded", "multipart/form-data; boundary=x; charset=utf-16")  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE")
ADDRESSES = (
    "/orders/{}", "/orders/{}/scores.json", "/orders/{}/scores.csv", "/orders", "/{}", "//{}", "/%2e%2e/{}",
    "/predict", "/predict?{}", "/health", "/facts", "/login", "/docs", "/openapi.json", "/page.js",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One request."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    own: str = ""
    """The name that is this visitor's alone."""


@dataclass
class Tally:
    """What was answered, and what was found wanting."""

    statuses: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


# ---- what visitors send


@cache
def media() -> tuple[bytes, ...]:
    """Small files of every container and kind of picture."""
    from PIL import Image

    files = [_filmed(ending, *codecs) for ending, codecs in CONTAINERS.items()]
    for kind in PICTURES:
        out = io.BytesIO()
        Image.fromarray(np.full((48, 64, 3), 99, np.uint8)).save(out, kind)
        files.append(out.getvalue())
    return tuple(files)


def _filmed(ending: str, voice: str, pictures: str | None) -> bytes:
    """Half a second of a tone and of grey pictures."""
    if ending == "wav":
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes((9999 * np.sin(np.arange(4000) * 0.3)).astype("<i2").tobytes())
        return out.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"made.{ending}")
        with av.open(str(path), "w") as output:
            sound = output.add_stream(voice, rate=48000, layout="mono")
            film = None if pictures is None else output.add_stream(pictures, rate=10)
            if film is not None:
                film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
                grey = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), "rgb24")
                for number in range(5):
                    grey.pts = number
                    output.mux(film.encode(grey))
                output.mux(film.encode(None))
            tone = (9999 * np.sin(np.arange(24000) / 20)).astype(np.int16)[None]
            block = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            block.sample_rate, block.pts = 48000, 0
            resampler = av.AudioResampler(sound.codec_context.format, "mono", 48000, 1024)
            for part in [*resampler.resample(block), *resampler.resample(None)]:
                output.mux(sound.encode(part))
            output.mux(sound.encode(None))
        return path.read_bytes()


def spoiled(rng: random.Random) -> bytes:
    """A file: whole, or with something done to it."""
    content = rng.choice(media())
    how = rng.randrange(6)
    if how == 0:
        return content
    if how == 1:
        return content[: rng.randrange(len(content))]
    if how == 2:
        changed = bytearray(content)
        for _ in range(rng.choice((1, 8, 64))):
            changed[rng.randrange(min(len(changed), rng.choice((64, 1024, 10**6))))] = (
                rng.randrange(256)
            )
        return bytes(changed)
    if how == 3:
        other = rng.choice(media())
        return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]
    if how == 4:
        place = rng.randrange(len(content))
        return content[:place] + rng.randbytes(rng.randrange(4096)) + content[place:]
    return rng.choice(HEADS) + rng.randbytes(rng.choice((0, 1, 300, 20_000)))


def json_value(rng: random.Random, depth: int = 0):
    """Any JSON."""
    simple = [None, True, -1, 1e308, "", " ", "\ud800", "a" * 6000, "\0", "I am glad", 10**400]
    if depth > 3 or rng.random() < 0.4:
        return rng.choice(simple)
    inside = [json_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if rng.random() < 0.3:
        return inside
    return {rng.choice(("text", "file", "", "text ")): each for each in inside}


def asking(number: int, seed: int) -> Asking:
    """The request of a number."""
    rng = random.Random(f"{seed}/{number}")
    own = f"visitor{number}x"
    path = rng.choice(("/predict", "/predict", "/orders"))
    kind = rng.randrange(10)
    if kind < 6:
        return form(rng, own, path)
    if kind == 6:
        body = json.dumps(json_value(rng)).encode("utf-8", "surrogatepass")
        return Asking(
            method="POST", path=path, headers={"content-type": "application/json"}, body=body
        )
    if kind == 7:
        headers = {"content-type": rng.choice(KINDS)}
        return Asking(
            method="POST", path=path, headers=headers, body=rng.randbytes(rng.randrange(500))
        )
    letters = "".join(rng.choices(string.ascii_letters + "%./-_", k=24))
    path = rng.choice(ADDRESSES).format(letters)
    return Asking(method=rng.choice(METHODS), path=path, body=rng.randbytes(rng.choice((0, 9))))


def form(rng: random.Random, own: str, path: str) -> Asking:
    """A form with a file, perhaps with words, perhaps broken."""
    name = rng.choice(("{}.bin", *NAMES)).format(own).encode("utf-8").replace(b'"', b"%22")
    parts = [b'name="file"; filename="' + name + b'"\r\n\r\n' + spoiled(rng)]
    if rng.random() < 0.3:
        parts.append(
            b'name="text"\r\n\r\n' + rng.choice((b"so it is", b"", b"\xff\xfe", b"x" * 6000))
        )
    if rng.random() < 0.1:
        parts *= 2
    rng.shuffle(parts)
    head = b"\r\n--edge\r\ncontent-disposition: form-data; "
    body = b"".join(head + part for part in parts) + rng.choice((b"\r\n--edge--\r\n",) * 5 + (b"",))
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    return Asking(method="POST", path=path, headers=headers, body=body[2:], own=own)


# ---- the server, and what is looked at


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, Desk, list[ProcessHand], dict]]:
    """Port, desk, hands and OpenAPI document of a server whose temporary files lie in a folder."""
    importlib.import_module("toy_corpus").register()
    importlib.import_module("toy_bundle").write_bundle(folder / "root")
    bundle = str(folder / "root" / "bundles" / "b")
    start = partial(importlib.import_module("toy_judge").start, bundle)
    hands = [ProcessHand(start, ANSWER_S) for _ in range(2)]
    desk = Desk(hands, queue=64, keep_s=2.0, folder=str(folder / "tmp"))
    rules = Rules(per_minute=10**9, max_bytes=MOST_BYTES)
    app = guarded(desk, rules, facts_of(bundle, "", 1.0, 60.0, 2.0))
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        try:
            while desk.ready < len(hands) and thread.is_alive():
                thread.join(0.1)
            yield listening.getsockname()[1], desk, hands, app._app.openapi()
        finally:
            running.should_exit = True
            thread.join()


def visit(
    port: int, numbers: list[int], seed: int, described: dict, secret: str, tally: Tally
) -> None:
    """One visitor: one request after the other."""
    while True:
        with tally.lock:
            if not numbers:
                return
            number = numbers.pop()
        asked = asking(number, seed)
        try:
            status, said = answered(port, asked)
        except (OSError, http.client.HTTPException) as error:
            status, said, wanting = 0, b"", [f"no answer: {error!r}"]
        else:
            wanting = list(found_wanting(asked, status, said, described, secret))
        with tally.lock:
            tally.statuses[status] += 1
            tally.faults += [
                f"{number} {asked.method} {asked.path[:60]}: {status} {each}" for each in wanting
            ]


def answered(port: int, asked: Asking) -> tuple[int, bytes]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request(asked.method, asked.path, asked.body, asked.headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def found_wanting(
    asked: Asking, status: int, said: bytes, described: dict, secret: str
) -> Iterator[str]:
    """What is wrong with an answer."""
    text = said.decode("utf-8", "replace")
    if status >= 500:
        yield f"a fault of the server: {text[:200]}"
    if set(OWN.findall(text)) - {asked.own}:
        yield f"of another visitor: {text[:200]}"
    if secret in text:
        yield f"a path of the server: {text[:200]}"
    if status >= 400 and asked.method != "HEAD" and not json.loads(said or b"{}").get("error"):
        yield f"an error without a sentence: {text[:200]}"
    operation = described["paths"].get(asked.path.partition("?")[0], {}).get(asked.method.lower())
    if operation is None:
        return
    if status not in STATUSES and str(status) not in operation["responses"]:
        yield "a status that is not described"
    elif 200 <= status < 300:
        schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
        whole = {**schema, "components": described["components"]}
        for error in jsonschema.Draft202012Validator(whole).iter_errors(json.loads(said)):
            yield f"not as described: {error.message[:200]}"


def main() -> int:
    """Visit, look at what is left, print the tally."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, tally = Path(place), Tally()
        (folder / "tmp").mkdir()
        tempfile.tempdir = str(folder / "tmp")
        with server(folder) as (port, desk, hands, described):
            before, pids = everything(folder, desk), [hand.pid for hand in hands]
            numbers = list(range(chosen.requests))[::-1]
            told = (port, numbers, chosen.seed, described, desk.folder.parent.name, tally)
            threads = [threading.Thread(target=visit, args=told) for _ in range(VISITORS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            tally.faults += left(folder, desk, before)
            if [hand.pid for hand in hands] != pids:
                tally.faults.append("a worker died")
        if there := sorted(each.name for each in (folder / "tmp").iterdir()):
            tally.faults.append(f"left after the end: {there}")
        tempfile.tempdir = None
    for fault in tally.faults[:50]:
        print(fault)
    print("answers:", ", ".join(f"{n} of {status}" for status, n in sorted(tally.statuses.items())))
    print(f"requests {sum(tally.statuses.values())}, faults {len(tally.faults)}")
    return int(bool(tally.faults))


def everything(folder: Path, desk: Desk) -> set[Path]:
    """All files of the folder, but those of the visitors' rooms."""
    return {each for each in folder.rglob("*") if desk.folder not in each.parents}


def left(folder: Path, desk: Desk, before: set[Path]) -> list[str]:
    """What should have gone: rooms whose time is over, and files anywhere else."""
    for _ in range(600):
        rooms = [each for each in desk.folder.iterdir() if each.is_dir()]
        if not rooms:
            break
        threading.Event().wait(0.1)
    faults = [f"a room is left: {room.name}" for room in rooms]
    return faults + [f"a file elsewhere: {each}" for each in everything(folder, desk) - before]


if __name__ == "__main__":
    sys.exit(main())

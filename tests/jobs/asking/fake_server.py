"""A chat-completions server on loopback whose model, moods and failures a test chooses."""

import contextlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Model = Callable[[str, list[str]], list[float]]
"""From the words of a question and its options, as they are listed, to a probability each."""


@dataclass
class Fake:
    """What the server does, and what it has seen."""

    model: Model
    speaks: str = "letters"
    """letters; json: no log-probabilities; refuses: log-probabilities are an error; mute: prose alone."""

    fails: Callable[[int], int | None] = lambda number: None
    """Status with which the question of a number fails; 0: the connection is dropped."""

    refuses: str = ""
    """Words that it refuses to answer about."""

    content: bytes | None = None
    """What is sent in place of any reply."""

    wait: str = ""
    """How long it asks to be left alone, as Retry-After."""

    filters: str = ""
    """Words about which its answer has neither words nor log-probabilities."""

    delay_s: float = 0.0
    drips: bool = False
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()

    @property
    def words(self) -> str:
        """All that was ever said to it."""
        return json.dumps(self.bodies)


def words_of(body: dict[str, Any]) -> str:
    """The text of a question."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "\n\n".join(part["text"] for part in content if part["type"] == "text")


def reply_to(fake: Fake, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and reply."""
    if "logprobs" in body and fake.speaks == "refuses":
        return 400, {"error": {"message": "logprobs are not supported"}}
    text = words_of(body)
    if fake.refuses and fake.refuses in text:
        return 400, {"error": {"message": "too long"}}
    if fake.filters and fake.filters in text:
        emptied = {
            "message": {"content": None},
            "logprobs": None,
            "finish_reason": "content_filter",
        }
        return 200, {"choices": [emptied]}
    lettered = re.findall(r"^([A-Z])\) (.+)$", text, re.MULTILINE)
    options = [option for _, option in lettered] or re.findall(r"^- (.+)$", text, re.MULTILINE)
    shares = fake.model(text, options)
    message = {"role": "assistant", "content": "I cannot tell."}
    choice: dict[str, Any] = {"message": message}
    if "logprobs" in body and fake.speaks != "json":
        tokens = [letter for letter, _ in lettered] if fake.speaks == "letters" else ["The", "I"]
        listed = [
            {"token": f" {token}", "logprob": math.log(max(share, 1e-12))}
            for token, share in zip(tokens, shares, strict=False)
        ]
        choice["logprobs"] = {"content": [{"top_logprobs": listed}]}
    elif "logprobs" not in body and fake.speaks != "mute":
        percent = {option: 100 * share for option, share in zip(options, shares, strict=True)}
        message["content"] = f"Sure:\n```json\n{json.dumps(percent)}\n```"
    return 200, {"choices": [choice]}


@contextlib.contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """Serve on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with fake.lock:
                number = len(fake.bodies)
                fake.bodies.append(body)
                fake.headers.append(dict(self.headers.items()))
                fake.at_once += 1
                fake.most_at_once = max(fake.most_at_once, fake.at_once)
            time.sleep(fake.delay_s)
            with fake.lock:
                fake.at_once -= 1
            with contextlib.suppress(OSError):
                self.answer(number, body)

        def answer(self, number: int, body: dict[str, Any]) -> None:
            status = fake.fails(number)
            if status == 0:
                self.connection.close()
                return
            code, reply = (status, {"error": "busy"}) if status else reply_to(fake, body)
            content = json.dumps(reply).encode() if fake.content is None else fake.content
            self.send_response(code)
            if fake.wait:
                self.send_header("Retry-After", fake.wait)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for byte in content if fake.drips else ():
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.05)
            if not fake.drips:
                self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that has gone away is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()

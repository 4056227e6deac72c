"""A client of a server: one that runs somewhere, or one that is started here and ended again."""

import http.client
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.errors import ConfigError, MachineError
from jobs.serving import TOKEN

START_S = 600.0
"""How long a server may take until its models are loaded [s]."""

ANSWER_S = 600.0
"""How long an answer may take [s]."""

LOOK_S = 0.2
"""How often a server that starts is looked at [s]."""

STOPPED = "affuse serve: stopped"
"""The last line of a server that was ended."""

ENDING_S = 20.0
"""How long a server that was started here may take to end [s]."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A body that is sent to `POST /predict`."""

    content_type: str
    body: bytes


class Client:
    """Asks one server.

    Args:
        url: of the server.
        token: what it wants to be shown, where it does.

    Raises:
        ConfigError: no address of HTTP.
    """

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        secret = parts.query or parts.username or parts.password
        if parts.scheme not in ("http", "https") or not parts.hostname or secret:
            raise ConfigError(f"--url: expected http://NAME:PORT; a token comes from {TOKEN}")
        self._parts, self._token = parts, token

    def ask(self, method: str, path: str, asked: Asked | None = None) -> Any:
        """The JSON that is answered; one that is told to come later comes later.

        Raises:
            MachineError: there is no answer, or it is a refusal.
        """
        while True:
            status, retry_s, said = self._once(method, path, asked)
            if status == 200:
                return said
            if status != 429:
                raise MachineError(f"{path} was answered with {status}: {said.get('error')}")
            time.sleep(retry_s)

    def _once(self, method: str, path: str, asked: Asked | None) -> tuple[int, float, Any]:
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        if asked is not None:
            headers["Content-Type"] = asked.content_type
        assert self._parts.hostname is not None
        connection = kind[self._parts.scheme](
            self._parts.hostname, self._parts.port, timeout=ANSWER_S
        )
        try:
            path = self._parts.path.rstrip("/") + path
            connection.request(method, path, None if asked is None else asked.body, headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            where = f"{self._parts.scheme}://{self._parts.netloc}"
            raise MachineError(f"{where} does not answer as a server of affuse: {error}") from error
        finally:
            connection.close()
        return answer.status, float(answer.getheader("Retry-After") or 1), said


@contextmanager
def started(words: Sequence[str]) -> Iterator[tuple[Client, float]]:
    """A server of this machine on a free port, and how long its models took to load [s].

    Args:
        words: flags of `affuse serve`.

    Raises:
        MachineError: it ends, or takes too long.
    """
    begun = time.perf_counter()
    command = [sys.executable, "-m", "jobs", "serve", "--port", "0", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, errors="backslashreplace"
    ) as server:
        complaints = threading.Thread(target=_pass_on, args=(server,), daemon=True)
        complaints.start()
        try:
            client = Client(_address(server), None)
            while not _is_ready(client):
                if server.poll() is not None or time.perf_counter() - begun > START_S:
                    complaints.join(ENDING_S)
                    raise MachineError("affuse serve loaded no models; what it said stands above")
                time.sleep(LOOK_S)
            yield client, time.perf_counter() - begun
        finally:
            server.terminate()
            try:
                server.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                server.kill()
            complaints.join(ENDING_S)


def _pass_on(server: "subprocess.Popen[str]") -> None:
    """What the server complains of; that it was stopped is our own doing, and no news."""
    assert server.stderr is not None
    for line in server.stderr:
        if line.rstrip() != STOPPED:
            print(line, end="", file=sys.stderr, flush=True)


def _address(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("open "):
            return line.split()[1]
    raise MachineError("affuse serve has ended; what it said stands above")


def _is_ready(client: Client) -> bool:
    try:
        return bool(client.ask("GET", "/health")["ready"])
    except MachineError:  # it prints its address before it listens
        return False


def words(text: str) -> Asked:
    """A text as it is sent."""
    return Asked(content_type="application/json", body=json.dumps({"text": text}).encode())


def form(file: Path) -> Asked:
    """A file as it is sent."""
    edge = secrets.token_hex(16)
    head = (
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n'
    )
    body = head.encode() + file.read_bytes() + f"\r\n--{edge}--\r\n".encode()
    return Asked(content_type=f"multipart/form-data; boundary={edge}", body=body)

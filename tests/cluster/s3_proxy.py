"""A proxy before an object store that is slow, refuses, and cuts connections, as real ones do now and then.

It passes each request on as it came (the host too, so that signatures hold), one after the other on a
connection; what it did is counted.
"""

import asyncio
import random
import re
import threading
from collections import Counter
from collections.abc import Callable

BUSY = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code>"
    b"<Message>Please reduce your request rate.</Message></Error>"
)


class Proxy:
    """Listens on a port of its own in front of another one."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.delay_s = 0.0
        self.refused = 0.0
        """Share of requests that are answered by 503 [0..1]."""
        self.cut: Callable[[str, str], bool] = lambda method, path: False
        """Whether the connection breaks in the middle of this request's body."""
        self.seen: Counter[str] = Counter()
        """Requests by method, and "503" and "cut"."""
        self.paths: Counter[tuple[str, str]] = Counter()
        self._draws = random.Random(0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(30)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._server.close()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            store = await asyncio.open_connection("127.0.0.1", self.upstream)
            while await self._one(reader, writer, *store):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever hung up has the error; the other side sees its end
        finally:
            for end in (writer, *([store[1]] if store else [])):
                end.close()

    async def _one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_store: asyncio.StreamReader,
        to_store: asyncio.StreamWriter,
    ) -> bool:
        """Pass one request and its answer; False where the connection has to end."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path = head.split(b" ", 2)[:2]
        words = method.decode(), path.decode()
        self.seen[words[0]] += 1
        self.paths[words] += 1
        if re.search(rb"(?i)^expect: 100-continue", head, re.MULTILINE):
            head = re.sub(rb"(?im)^expect: 100-continue\r\n", b"", head)
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _body(reader, head)
        await asyncio.sleep(self.delay_s)
        if self.cut(*words):
            self.seen["cut"] += 1
            to_store.write(head + body[: len(body) // 2])
            await to_store.drain()
            return False
        if self._draws.random() < self.refused:
            self.seen["503"] += 1
            content = b"" if method == b"HEAD" else BUSY
            writer.write(
                b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: "
                + str(len(content)).encode() + b"\r\n\r\n" + content
            )  # fmt: skip
            await writer.drain()
            return True
        to_store.write(head + body)
        await to_store.drain()
        answer = await from_store.readuntil(b"\r\n\r\n")
        empty = method == b"HEAD" or re.match(rb"HTTP/1.1 (204|304)", answer)
        writer.write(answer + (b"" if empty else await _body(from_store, answer)))
        await writer.drain()
        return not re.search(rb"(?i)^connection: close", answer, re.MULTILINE)


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body that a head announces, as it came."""
    if length := re.search(rb"(?im)^content-length: *(\d+)", head):
        return await reader.readexactly(int(length[1]))
    if not re.search(rb"(?im)^transfer-encoding: *chunked", head):
        return b""
    body = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        chunk = await reader.readexactly(size + 2)
        body += line + chunk
        if not size:
            return body

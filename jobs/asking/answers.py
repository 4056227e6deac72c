"""Answers that were had, kept by the hash of what was asked: nobody is asked the same twice.

`<root>/answers/<model>-<hash>/part-<id>.parquet`, a file each few seconds, so that a stop costs the last
seconds at most; a file is the commit of what is inside. The key is the hash of the whole question, with the
clip's words, pictures and sound in it: the same clip in another dataset has the same answers, a corrected
word others. Where the server stands is no part of it.
"""

import hashlib
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cluster import storage
from jobs.catalog import layout

EVERY_S = 5.0
"""Time between two files [s]."""

MOST = 5000
"""Answers after which a file is written whatever the time."""

SCHEMA = pa.schema([("key", pa.string()), ("log_probs", pa.list_(pa.float64()))])
"""Null: the model answered, but with nothing that was asked for."""

Answer = Sequence[float] | None


def key_of(question: Mapping[str, Any]) -> str:
    """The hash of a question."""
    return hashlib.sha256(storage.json_bytes(question)).hexdigest()


def folder_of(root: str, model: str) -> str:
    """Where the answers of a model are kept."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-")[-60:]
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    return layout.answers_uri(root, f"{plain}-{digest}".lstrip("-"))


class Answers:
    """The answers of one model; a context manager that leaves nothing unwritten. Threads may share it.

    Args:
        uri: their folder.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._new: dict[str, Answer] = {}
        self._written = time.monotonic()
        self._known: dict[str, Answer] = {}
        for name in storage.names(uri, ".parquet"):
            table = storage.read_table(storage.join(uri, name))
            self._known.update(
                zip(table["key"].to_pylist(), table["log_probs"].to_pylist(), strict=True)
            )

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._write()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Answer:
        return self._known[key]

    def __len__(self) -> int:
        return len(self._known)

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer; it is on disk a few seconds later."""
        with self._lock:
            self._known[key] = self._new[key] = answer
            if time.monotonic() - self._written > EVERY_S or len(self._new) >= MOST:
                self._write()

    def _write(self) -> None:
        if self._new:
            columns = {"key": list(self._new), "log_probs": list(self._new.values())}
            table = pa.table(columns, SCHEMA)
            storage.publish_table(table, storage.join(self.uri, f"part-{uuid.uuid4().hex}.parquet"))
            self._new = {}
        self._written = time.monotonic()

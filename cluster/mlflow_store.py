"""The MLflow store of one root, behind a guard: what it raises, refuses or never answers ends no job.

Everything is sent in batches: one metric a request costs 25 ms. Names are made such that MLflow takes them.
"""

import hashlib
import logging
import math
import os
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from cluster import storage
from cluster.errors import StorageError
from cluster.redaction import redacted
from cluster.refusals import refusal

T = TypeVar("T")

MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100
"""What one request may hold, by MLflow's protocol."""

FULL = "database or disk is full"
"""How SQLite says it."""

MAX_NAME, MAX_PARAM_LENGTH, MAX_TAG_LENGTH = 250, 6000, 8000

ANSWER_S = 10.0
"""How long a server may take for one call; the first that takes longer is the last."""


class Guard:
    """Makes every call of MLflow; the first that fails is printed in one line and ends the projection."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.broken = False

    def __call__(self, act: Callable[[], T], *, within_s: float | None = None) -> T | None:
        """What `act` returns; None where it failed, now or before.

        Args:
            act: calls MLflow.
            within_s: how long a server may take; a database on this machine's disk takes its time.
        """
        if self.broken:
            return None
        within_s = ANSWER_S if within_s is None else within_s
        done: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                done.append(act())
            except BaseException as error:  # noqa: BLE001 (a projection never ends a job)
                failed.append(error)

        if self.uri.startswith("sqlite:"):
            run()
        else:
            # A thread that is not waited for: requests cannot be interrupted.
            thread = threading.Thread(target=run, name="mlflow", daemon=True)
            thread.start()
            thread.join(within_s)
        if failed and isinstance(failed[0], KeyboardInterrupt | SystemExit):
            raise failed[0]
        if done:
            return done[0]
        self._give_up(failed[0] if failed else None, within_s)
        return None

    def _give_up(self, error: BaseException | None, within_s: float) -> None:
        self.broken = True
        why = f"no answer in {within_s:.0f} s"
        if error is not None:
            lines = str(error).strip().splitlines()
            named = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
            why = refused(error, self.uri) or named
        print(
            f"warning: MLflow at {redacted(self.uri)} does not record this job ({redacted(why)}); "
            "it goes on, and its folder holds everything; to leave MLflow out type --no-tracking",
            file=sys.stderr,
            flush=True,
        )


class Experiment:
    """One MLflow experiment; opened once a process. Its methods raise what MLflow raises."""

    _open: dict[tuple[str, str], "Experiment"] = {}  # noqa: RUF012

    def __init__(self, root: str, uri: str) -> None:
        from mlflow.tracking import MlflowClient

        local = uri.startswith("sqlite:")
        if local and ("?" in root or urllib.parse.unquote(root) != root):
            raise ValueError("it misreads a path with ? or %; name a server by MLFLOW_TRACKING_URI")
        if local:
            _claim_database(uri.removeprefix("sqlite:///").partition("?")[0])
        self.client = MlflowClient(tracking_uri=uri)
        name = root.rstrip("/").rsplit("/", 1)[-1] or "affuse"
        location = storage.join(root, "mlflow") if local else None
        self.experiment = self._experiment(name, location)

    def _experiment(self, name: str, location: str | None) -> str:
        """Id of the experiment whose artefacts lie in a place, which MLflow never changes."""
        found = self.client.get_experiment_by_name(name)
        if found is not None and location not in (None, found.artifact_location):
            # The root was copied or moved: what is recorded would go below the old one.
            assert location is not None
            name = f"{name}-{hashlib.sha256(location.encode()).hexdigest()[:6]}"
            found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self.client.create_experiment(name, artifact_location=location))

    @classmethod
    def shared(cls, root: str, uri: str) -> "Experiment":
        """The store of a root."""
        if (root, uri) not in cls._open:
            cls._open[root, uri] = cls(root, uri)
        return cls._open[root, uri]

    def resume(self, run_id: str) -> bool:
        """Open a run again; False where it was deleted."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return False
        if run.info.lifecycle_stage != "active":
            return False
        self.client.update_run(run_id, status="RUNNING")
        return True

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        """Open a run and return its id."""
        run = self.client.create_run(self.experiment, run_name=name, tags=_texts(tags))
        return str(run.info.run_id)

    def write(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Sequence[Mapping[str, Any]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Params, tags, and numbers by step (``{"step": n, name: value, ...}``; NaN is left out)."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        numbers = [
            Metric(taken(name), float(value), now, int(record["step"]))
            for record in metrics
            for name, value in record.items()
            if name != "step" and math.isfinite(value)
        ]
        facts = [
            Param(taken(key), redacted(value)[:MAX_PARAM_LENGTH])
            for key, value in (params or {}).items()
        ]
        marks = [RunTag(key, value) for key, value in _texts(tags or {}).items()]
        requests = max(
            math.ceil(len(numbers) / MAX_METRICS),
            math.ceil(len(facts) / MAX_PARAMS),
            math.ceil(len(marks) / MAX_TAGS),
        )
        for turn in range(requests):
            self.client.log_batch(
                run_id,
                metrics=numbers[turn * MAX_METRICS : (turn + 1) * MAX_METRICS],
                params=facts[turn * MAX_PARAMS : (turn + 1) * MAX_PARAMS],
                tags=marks[turn * MAX_TAGS : (turn + 1) * MAX_TAGS],
            )


def refused(error: BaseException, uri: str) -> str | None:
    """In one line, that the disk of a store is full or closed, with the place; None for any other error."""
    if isinstance(error, StorageError):
        return str(error)
    if uri.startswith("sqlite:") and FULL in str(error):
        return f"the disk is full at {uri.removeprefix('sqlite:///').partition('?')[0]}"
    return refusal(error)


def _claim_database(place: str) -> None:
    """Have the umask say who may write a database, as of all other files; SQLite keeps it to one user.

    Raises:
        OSError: it may not be written; MLflow would say so by a traceback of its own.
    """
    if os.path.isabs(place):
        os.close(os.open(place, os.O_RDWR | os.O_CREAT, 0o666))


def quiet_mlflow() -> None:
    """Few retries and no chatter, before MLflow is imported; what the user has set stays."""
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def taken(name: str) -> str:
    """A name that MLflow takes for a metric, a param or a tag; one that it takes already stays.

    >>> taken("oof/emotion/accuracy")
    'oof/emotion/accuracy'
    >>> taken("oof/how do you feel? (1)/accuracy")
    'oof/how do you feel_ _1_-87b85a/accuracy'
    """
    parts = [_taken_part(part) for part in name.split("/")]
    whole = "/".join(parts)
    if len(whole) > MAX_NAME:
        whole = whole[: MAX_NAME - 7].rstrip("/") + "-" + _digest(name)
    return whole


def _taken_part(part: str) -> str:
    plain = re.sub(r"[^\w.\- ]", "_", part)
    if plain == part and part.strip("."):
        return part
    return f"{plain}-{_digest(part)}"  # two names that differ in such characters alone stay two


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]


def _texts(tags: Mapping[str, str]) -> dict[str, str]:
    return {taken(key): redacted(value)[:MAX_TAG_LENGTH] for key, value in tags.items()}


def tracking_uri(root: str) -> str | None:
    """Where runs of a root are recorded.

    Returns:
        What MLFLOW_TRACKING_URI names, else a database under a local root. None for a remote root: a
        database beside it would silently become a folder of this machine.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    if not storage.is_local(root):
        return None
    path = storage.filesystem(storage.absolute(root))[1]
    os.makedirs(path, exist_ok=True)
    return f"sqlite:///{path}/mlflow.db"

"""MLflow as a projection of a run's folder: the folder is the truth, one process writes.

Only the driver of a job opens a tracker; workers and trials never import MLflow. The store is an sqlite file
under a local root, with the artefacts beside it, unless MLFLOW_TRACKING_URI names a server. The run's id
stands in `mlflow.json` in the run's folder, so that a job that was killed goes on in the same MLflow run.
Everything is sent in batches: one metric a request costs 25 ms.
"""

import logging
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from cluster import storage
from cluster.errors import ConfigError

MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100
"""What one request may hold, by MLflow's protocol."""

MAX_PARAM_LENGTH = 6000
VERSIONS = ("mlflow", "numpy", "pyarrow", "ray", "torch", "transformers")


@contextmanager
def run_tracker(
    root: str, folder: str, *, enabled: bool = True, parent: "Tracker | None" = None
) -> Iterator["Tracker"]:
    """The tracker of one run's folder; it ends as finished, failed or killed.

    Args:
        root: the dataset; its name becomes the experiment.
        folder: of the run, e.g. ``<root>/runs/<run>``.
        enabled: a tracker that is not does nothing and imports nothing.
        parent: the run that this one is nested in.

    Raises:
        ConfigError: a remote root without MLFLOW_TRACKING_URI.
    """
    if not enabled:
        yield Tracker(None, folder)
        return
    tracker = Tracker(_Store.shared(root), folder, parent=parent)
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.end("KILLED")
        raise
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


class Tracker:
    """Writes one run. Without a store every call does nothing."""

    def __init__(
        self, store: "_Store | None", folder: str, *, parent: "Tracker | None" = None
    ) -> None:
        self._store = store
        self._folder = folder
        self._parent = parent
        self.run_id: str | None = None

    def start(
        self,
        name: str,
        params: Mapping[str, Any],
        *,
        kind: str,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Open the run, or go on with the one the folder names.

        Args:
            name: shown by MLflow.
            params: the job's config.
            kind: the job.
            tags: further facts (dataset and feature fingerprints, ...).
        """
        if self._store is None:
            return
        facts = {"affuse.job": kind, "affuse.folder": self._folder, **versions(), **(tags or {})}
        if self._parent is not None and self._parent.run_id is not None:
            facts["mlflow.parentRunId"] = self._parent.run_id
        uri = storage.join(self._folder, "mlflow.json")
        if storage.exists(uri):
            known = storage.read_json(uri)
            if self._store.resume(known):
                self.run_id = known["run_id"]
                return
        self.run_id = self._store.create(name, facts)
        self._store.params(self.run_id, flat(params))
        storage.publish_json({"run_id": self.run_id, "tracking_uri": self._store.uri}, uri)

    def metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Numbers by step: each record is ``{"step": n, name: value, ...}``; NaN is left out."""
        if self._store is not None and self.run_id is not None:
            self._store.metrics(self.run_id, records)

    def finish(self, summary: Mapping[str, Any], history: Sequence[Mapping[str, Any]] = ()) -> None:
        """Project a finished run: its epochs, its figures, its small files.

        Args:
            summary: as in `summary.json`; the means of its roles become metrics.
            history: records with fold, seed and epoch.
        """
        if self._store is None or self.run_id is None:
            return
        records = []
        for record in history:
            fold = "refit" if record.get("fold") is None else f"fold{record['fold']}"
            prefix = f"{fold}/seed{record.get('seed', 0)}/"
            numbers = {k: v for k, v in record.items() if k not in ("fold", "seed", "epoch")}
            step = int(record.get("epoch", 0))
            records.append({"step": step, **{prefix + k: v for k, v in numbers.items()}})
        figures = {
            f"{role}/{name}{suffix}": figure[key]
            for role, found in summary.get("roles", {}).items()
            for name, figure in found.items()
            for key, suffix in (("mean", ""), ("spread", "_spread"))
        }
        self.metrics([*records, {"step": 0, **figures}])
        tags = {
            f"affuse.{key}": str(summary[key]) for key in ("manifest", "inputs") if key in summary
        }
        self._store.tags(self.run_id, tags)
        self.artefacts(("config.json", "summary.json", "history.jsonl"))

    def child(
        self,
        folder: str,
        name: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        *,
        failed: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Record a nested run that is over, in two requests."""
        if self._store is None or self.run_id is None:
            return
        facts = {"affuse.folder": folder, "mlflow.parentRunId": self.run_id, **(tags or {})}
        run_id = self._store.create(name, facts)
        self._store.whole(run_id, flat(params), metrics)
        self._store.client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def artefacts(self, names: Sequence[str]) -> None:
        """Copy small files of the run's folder."""
        if self._store is None or self.run_id is None:
            return
        for name in names:
            uri = storage.join(self._folder, name)
            if storage.exists(uri):
                text = storage.read_bytes(uri).decode()
                self._store.client.log_text(self.run_id, text, name)

    def end(self, status: str) -> None:
        """Close the run; a later resume opens it again."""
        if self._store is not None and self.run_id is not None:
            self._store.client.set_terminated(self.run_id, status)


class _Store:
    """One MLflow experiment; opened once a process."""

    _open: dict[tuple[str, str], "_Store"] = {}  # noqa: RUF012

    def __init__(self, root: str, uri: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        self.uri = uri
        self.client = MlflowClient(tracking_uri=uri)
        name = root.rstrip("/").rsplit("/", 1)[-1]
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            self.experiment = experiment.experiment_id
        else:
            local = uri.startswith("sqlite:")
            location = storage.join(root, "mlflow") if local else None
            self.experiment = self.client.create_experiment(name, artifact_location=location)

    @classmethod
    def shared(cls, root: str) -> "_Store":
        """The store of a root."""
        root = storage.absolute(root)
        key = (root, tracking_uri(root))
        if key not in cls._open:
            cls._open[key] = cls(*key)
        return cls._open[key]

    def resume(self, known: Mapping[str, str]) -> bool:
        """Open a run again; False where it is of another store or was deleted."""
        if known.get("tracking_uri") != self.uri:
            return False
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(known["run_id"])
        except MlflowException:
            return False
        if run.info.lifecycle_stage != "active":
            return False
        self.client.update_run(known["run_id"], status="RUNNING")
        return True

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        run = self.client.create_run(self.experiment, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entities = [Param(key, value[:MAX_PARAM_LENGTH]) for key, value in params.items()]
        for start in range(0, len(entities), MAX_PARAMS):
            self.client.log_batch(run_id, params=entities[start : start + MAX_PARAMS])

    def whole(self, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        self.client.log_batch(
            run_id,
            metrics=[Metric(k, v, now, 0) for k, v in metrics.items() if math.isfinite(v)],
            params=[Param(k, v[:MAX_PARAM_LENGTH]) for k, v in params.items()][:MAX_PARAMS],
        )

    def tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(key, value) for key, value in tags.items()]
        self.client.log_batch(run_id, tags=entities[:MAX_TAGS])

    def metrics(self, run_id: str, records: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entities = [
            Metric(name, float(value), now, int(record["step"]))
            for record in records
            for name, value in record.items()
            if name != "step" and math.isfinite(value)
        ]
        for start in range(0, len(entities), MAX_METRICS):
            self.client.log_batch(run_id, metrics=entities[start : start + MAX_METRICS])


def tracking_uri(root: str) -> str:
    """Where runs of a root are recorded.

    Raises:
        ConfigError: a remote root without MLFLOW_TRACKING_URI; an sqlite file beside it would silently
            become a folder of this machine.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    if not storage.is_local(root):
        raise ConfigError(
            f"{root} is remote: set MLFLOW_TRACKING_URI to a tracking server, or type --no-tracking"
        )
    path = storage.filesystem(storage.absolute(root))[1]
    os.makedirs(path, exist_ok=True)
    return f"sqlite:///{path}/mlflow.db"


def versions() -> dict[str, str]:
    """Versions of what the result depends on, as tags."""
    found = {"affuse.python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[f"affuse.{name}"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested config fields by dotted path, as text.

    >>> flat({"lr": 0.1, "session": {"address": None}})
    {'lr': '0.1', 'session.address': 'None'}
    """
    found = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = str(value)
    return found

"""MLflow as a projection of a run's folder: the folder is the truth, one process writes.

Only the driver of a job opens a tracker; workers and trials never import MLflow. The store is an sqlite file
under a local root, with the artefacts beside it, unless MLFLOW_TRACKING_URI names a server. The run's id
stands in `mlflow.json` in the run's folder, so that a job that was killed goes on in the same MLflow run.
A server that is away, wrong or silent costs one warning: the job goes on without it.
"""

import hashlib
import importlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any, TypeVar

from cluster import storage
from cluster.mlflow_store import Experiment, Guard, quiet_mlflow, tracking_uri
from cluster.redaction import redacted

T = TypeVar("T")

VERSIONS = ("mlflow", "numpy", "pyarrow", "ray", "torch", "transformers")
LAST_WORD_S = 2.0
"""How long the end of a stopped job waits for a server."""


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
    """
    root = storage.absolute(root)
    uri = tracking_uri(root) if enabled else None
    if uri is None:
        if enabled:
            print(f"MLflow: off; {root} is remote and MLFLOW_TRACKING_URI names no server")
        yield Tracker(None, folder)
        return
    tracker = Tracker(Projection(root, uri), folder, parent=parent)
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.end("KILLED", within_s=LAST_WORD_S)
        raise
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


class Projection:
    """A store and the guard of its calls; the store is None where it could not be opened."""

    def __init__(self, root: str, uri: str) -> None:
        self.guard = Guard(uri)
        self.place = hashlib.sha256(redacted(uri).encode()).hexdigest()[:16]
        quiet_mlflow()
        # It takes many seconds, which are not the server's.
        importlib.import_module("mlflow.tracking")
        self.store = self.guard(lambda: Experiment.shared(root, uri))


class Tracker:
    """Writes one run. Without a projection every call does nothing."""

    def __init__(
        self, projection: Projection | None, folder: str, *, parent: "Tracker | None" = None
    ) -> None:
        self._projection = projection
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
        if self._projection is None:
            return
        facts = {"affuse.job": kind, "affuse.folder": self._folder, **versions(), **(tags or {})}
        if self._parent is not None and self._parent.run_id is not None:
            facts["mlflow.parentRunId"] = self._parent.run_id
        uri, place = storage.join(self._folder, "mlflow.json"), self._projection.place
        known = storage.read_json(uri) if storage.exists(uri) else {}
        before = known.get("run_id") if known.get("store") == place else None

        def opened(store: Experiment) -> str:
            if before is not None and store.resume(before):
                return str(before)
            run_id = store.create(name, facts)
            store.write(run_id, params=flat(params))
            return run_id

        self.run_id = self._call(opened)
        if self.run_id is not None and self.run_id != before:
            storage.publish_json({"run_id": self.run_id, "store": place}, uri)

    def metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Numbers by step: each record is ``{"step": n, name: value, ...}``; NaN is left out."""
        if (run_id := self.run_id) is not None:
            self._call(lambda store: store.write(run_id, metrics=records))

    def finish(self, summary: Mapping[str, Any], history: Sequence[Mapping[str, Any]] = ()) -> None:
        """Project a finished run: its epochs, its figures, its small files.

        Args:
            summary: as in `summary.json`; the means of its roles become metrics.
            history: records with fold, seed and epoch.
        """
        if (run_id := self.run_id) is None:
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
        self._call(lambda store: store.write(run_id, tags=tags))
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
        if (parent := self.run_id) is None:
            return
        facts = {"affuse.folder": folder, "mlflow.parentRunId": parent, **(tags or {})}

        def record(store: Experiment) -> None:
            run_id = store.create(name, facts)
            store.write(run_id, params=flat(params), metrics=[{"step": 0, **metrics}])
            store.client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

        self._call(record)

    def artefacts(self, names: Sequence[str]) -> None:
        """Copy small files of the run's folder."""
        if (run_id := self.run_id) is None:
            return
        uris = {name: storage.join(self._folder, name) for name in names}
        texts = {
            name: redacted(storage.read_bytes(uri).decode(errors="replace"))
            for name, uri in uris.items()
            if storage.exists(uri)
        }

        def copy(store: Experiment) -> None:
            for name, text in texts.items():
                store.client.log_text(run_id, text, name)

        self._call(copy)

    def end(self, status: str, *, within_s: float | None = None) -> None:
        """Close the run; a later resume opens it again."""
        if (run_id := self.run_id) is not None:
            self._call(lambda store: store.client.set_terminated(run_id, status), within_s)

    def _call(self, act: Callable[[Experiment], T], within_s: float | None = None) -> T | None:
        if self._projection is None or (store := self._projection.store) is None:
            return None
        return self._projection.guard(lambda: act(store), within_s=within_s)


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

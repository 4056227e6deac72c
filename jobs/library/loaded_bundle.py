"""An opened bundle that Python holds: it scores clips and says why, in this process and without Ray."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cluster import storage, tables
from cluster.errors import ConfigError, NotPreparedError
from cluster.tables import scalar_lists, vector_lists
from encoders.store import local_paths
from fusion.tasks import Task
from jobs.catalog import bundles, layout
from jobs.explaining.clip_values import explain
from jobs.library.clip_rows import ClipRow, ClipsGiven, clip_rows
from jobs.library.encoding import ONE_AT_A_TIME, encode_rows
from jobs.scoring.bundle import Bundle, check_speakers, imported_widths
from jobs.scoring.in_process import OneByOne
from jobs.scoring.opening import UNTRAINED, open_bundle
from jobs.scoring.scorer import Scorer, untrained_task
from jobs.stream.job import STALL_LIMIT_S, DecodingConfig, Work
from jobs.stream.selection import chosen_store


class LoadedBundle:
    """A bundle whose models are loaded by the first call that needs them, and stay.

    Several threads may call it; one is served at a time, as a process has one decoder.

    Args:
        bundle: what was opened.
        store: of pretrained weights.
    """

    def __init__(self, bundle: Bundle, store: str) -> None:
        self.bundle, self.store = bundle, store
        self._scorer: Scorer | None = None
        self._encoder: OneByOne | None = None

    def __repr__(self) -> str:
        inputs = [item.name for item in self.bundle.encoders] + [*self.inputs]
        return f"<affuse bundle {self.bundle.name}: {self.task_name}, reads {', '.join(inputs)}>"

    @property
    def task_name(self) -> str:
        """What it predicts."""
        return str(self.bundle.facts.get("task", untrained_task()[0]))

    @property
    def task(self) -> Task:
        """Kind and classes of what it predicts."""
        return Task.from_json(self.bundle.facts) if self.bundle.facts else untrained_task()[1]

    @property
    def inputs(self) -> Mapping[str, str]:
        """Inputs that no encoder makes: name -> folder of the table that the nets were trained on."""
        return {name: folder for folder, name in self.bundle.imported.items()}

    @property
    def scorer(self) -> Scorer:
        """The loaded nets."""
        if self._scorer is None:
            self._scorer = Scorer(self.bundle, _root_of(self.bundle))
        return self._scorer

    def predict(self, clips: ClipsGiven) -> Any:
        """Score clips.

        Args:
            clips: a path, URI, folder or pattern; several of them; or a pandas.DataFrame (or list of
                dicts, or dict of lists) with the columns of `jobs.library.clip_rows`.

        Returns:
            pandas.DataFrame, a row a clip in the order given: name, label (labels joined by "+"),
            confidence, p_CLASS for each class or value, modalities, status, error. A clip that cannot be
            read has a row with its error.

        Raises:
            ConfigError: an unknown column, or clips that the bundle cannot score.
        """
        with ONE_AT_A_TIME:
            rows, features = self.encode(clips)
            scores = self.scorer.scores([row.facts for row in rows], features)
        return frame_of(scores, self.task)

    def explain(self, clips: ClipsGiven) -> list[dict[str, Any]]:
        """What each modality and each member adds to the answers.

        Args:
            clips: as `predict` takes them.

        Returns:
            A mapping a clip, see `jobs.explaining.clip_values.Explained.rows`: values are exact Shapley
            values, which sum to `answer` less `empty`.

        Raises:
            ConfigError: as `predict`.
        """
        with ONE_AT_A_TIME:
            rows, features = self.encode(clips)
            return explain(self.scorer, [row.facts for row in rows], features).rows()

    def encode(self, clips: ClipsGiven) -> tuple[list[ClipRow], dict[str, pa.Table]]:
        """The clips of a call, and FEATURES of them by folder: what the nets read.

        Raises:
            ConfigError: as `predict`.
        """
        rows = clip_rows(clips, self.inputs)
        if not rows:
            raise ConfigError("clips: expected at least one")
        if self.bundle.clips_of_speaker:
            speakers = pa.chunked_array([pa.array([row.speaker for row in rows], pa.string())])
            check_speakers(speakers, self.bundle.clips_of_speaker)
        features = {folder: self._imported(name, rows) for name, folder in self.inputs.items()}
        if self.bundle.encoders:
            features |= encode_rows(self.encoder, rows).features
        return rows, features

    @property
    def encoder(self) -> OneByOne:
        """The loaded encoders."""
        if self._encoder is None:
            models = [*self.bundle.encoders, self.bundle.transcriber]
            for item in filter(None, models):
                local_paths(item.weights, self.store)
            work = Work(
                descriptors=self.bundle.encoders,
                transcriber=self.bundle.transcriber,
                store=self.store,
            )
            self._encoder = OneByOne(work, DecodingConfig(), STALL_LIMIT_S)
        return self._encoder

    def _imported(self, name: str, rows: Sequence[ClipRow]) -> pa.Table:
        """FEATURES of an input that was imported, from a column of the frame."""
        dim = imported_widths(self.bundle.facts)[name]
        values = [_steps(row.given.get(name), dim, f"row {row.clip_id}: {name}") for row in rows]
        there = [each is not None for each in values]
        times = scalar_lists([None if v is None else np.arange(len(v)) for v in values], np.float32)
        table = {
            "clip_id": pa.array([row.clip_id for row in rows], pa.int64()),
            "values": vector_lists(values, dim, np.dtype(np.float32)),
            "step_start_s": times,
            "step_end_s": times,
            "valid": scalar_lists(
                [None if v is None else np.isfinite(v).all(1) for v in values], np.bool_
            ),
            "status": ["ok" if ok else "missing" for ok in there],
            "error": pa.nulls(len(rows), pa.string()),
        }
        return tables.features(dim, "float32").conform(pa.table(table))


def load(
    place: str | None, *, root: str = "", store: str | None = None, coverage: float | None = None
) -> LoadedBundle:
    """Open a bundle; see `affuse.load_bundle`."""
    root = storage.absolute(root) if root else ""
    if place is None:
        place = _newest(root) if root else UNTRAINED
    bundle = open_bundle(place, root, store=store).promising(coverage)
    where = root or (bundle.uri or "").partition("/bundles/")[0]
    return LoadedBundle(bundle, storage.absolute(chosen_store(store, where)))


def _newest(root: str) -> str:
    """The only bundle of a root, or the one that was written last, which is said.

    Raises:
        NotPreparedError: there is none.
    """
    there = bundles.newest_first(root)
    if not there:
        raise NotPreparedError(
            f"{root} holds no bundle; type: affuse ensemble --root {shlex.quote(root)}"
        )
    if len(there) > 1:
        print(f"bundle {there[0]}, the newest of {len(there)}; another: bundle={there[1]!r}")
    return there[0]


def _root_of(bundle: Bundle) -> str:
    """The dataset under which a bundle lies, where it knows the modality of its imported inputs."""
    if bundle.uri is None or not bundle.imported:
        return ""
    root = layout.root_of_net(bundle.uri)
    known = (layout.features_uri(root, each, layout.DESCRIPTOR) for each in bundle.imported)
    return root if root and all(map(storage.exists, known)) else ""


def _steps(value: Any, dim: int, where: str) -> np.ndarray | None:
    """[step feature] of a cell; None where it is empty.

    Raises:
        ConfigError: no numbers, or another width.
    """
    if value is None:
        return None
    try:
        rows = [np.asarray(each, np.float32) for each in value]
        steps = np.stack(rows) if rows and rows[0].ndim else np.asarray(rows, np.float32)[None]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"clips, {where}: expected numbers, [feature] or [step feature]"
        ) from error
    if not rows:
        return None
    if steps.ndim != 2 or steps.shape[1] != dim:
        raise ConfigError(f"clips, {where}: expected {dim} features a step, came {steps.shape}")
    return steps


def frame_of(scores: pa.Table, task: Task) -> Any:
    """SCORES of one task as a pandas.DataFrame, ordered by clip; its columns depend on the task alone."""
    import pandas as pd

    rows = []
    for row in scores.sort_by("clip_id").to_pylist():
        shares = dict(row["probabilities"] or ())
        answer: dict[str, Any] = (
            {"value": row["value"]}
            if task.kind == "regression"
            else {
                "label": None if row["label"] is None else "+".join(row["label"]),
                "confidence": row["confidence"],
                **{f"p_{name}": shares.get(name) for name in task.classes},
            }
        )
        promised = {
            name: "+".join(row[name]) if isinstance(row[name], list) else row[name]
            for name in ("possible", "certain", "low", "high")
            if row[name] is not None
        }
        rows.append(
            {"name": row["name"], **answer, **promised}
            | {"modalities": "+".join(row["modalities"])}
            | {"status": row["status"], "error": row["error"]}
        )
    frame = pd.DataFrame(rows)
    numbers = [name for name in frame if name.startswith("p_") or name in ("value", "confidence")]
    return frame.astype(dict.fromkeys(numbers, "float64"))

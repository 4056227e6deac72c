"""The one place where columns become tensors: features and labels of a dataset as batches by index.

Rows of the test split are dropped on the manifest, before any feature is looked up; asking for them takes
`Request.test`, which only `evaluate` sets. What is left lies in memory as one array an input (steps of all
clips behind one another), or, above a budget, in a memory-mapped file; batches are gathered from it by index
alone, so that the same seed gives the same batches either way.
"""

import hashlib
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster.errors import ConfigError, NotPreparedError, TestSplitError
from cluster.settings import nearest
from fusion.batch import Axis, Batch, Task
from fusion.batch import Sequence as Steps
from jobs._features import feature_folders, read_features, resolve_features
from jobs._manifest import Dataset, read_dataset, read_folds, read_manifest

Pool = Literal["none", "mean", "mean_std"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to load."""

    root: str
    inputs: tuple[str, ...]
    """Encoders as typed (`minilm`, `minilm:pool=mean`), imported tables, or folders of features/."""

    tasks: tuple[str, ...] = ()
    """Task columns; empty: all of the dataset."""

    pool: Pool = "none"
    """Reduction of a clip's steps to one, for inputs that have several."""

    normalise: Literal["none", "speaker"] = "none"
    """speaker: mean and spread of each speaker's own unlabelled clips are removed. Transductive."""

    axis: Axis = "clip"
    causal: bool = False
    folds: str | None = None
    memory_gb: float = 4.0
    """Features above this size go to a memory-mapped file [GB]."""

    cache: str = "~/.cache/affuse/feeding"
    """Folder of memory-mapped files."""

    test: bool = False
    """Load the test split, and only it. `evaluate` alone may."""


@dataclass(frozen=True, kw_only=True)
class Clips:
    """The clips of a data set without their features, ordered by id."""

    clip_id: np.ndarray
    """int64, writable: tensors share its memory."""

    split: np.ndarray
    """object: train, valid or None (test where it was asked for)."""

    fold: np.ndarray
    """int64; 0 where there are no folds."""

    group: np.ndarray
    speaker: np.ndarray
    dialogue: np.ndarray
    turn: np.ndarray
    targets: Mapping[str, Tensor]
    """Task -> class index [clip], labels [clip label] or values [clip]."""

    known: Mapping[str, Tensor]
    """Task -> bool of the same shape."""

    def __len__(self) -> int:
        return len(self.clip_id)


@dataclass(frozen=True, kw_only=True)
class Data:
    """A loaded data set."""

    dataset: Dataset
    tasks: Mapping[str, Task]
    clips: Clips
    feed: "ClipFeed | DialogueFeed"
    inputs: Mapping[str, Mapping[str, Any]]
    """Input -> its folder, encoder, fingerprint and effective pooling: for the card of a net."""

    @property
    def dims(self) -> dict[str, int]:
        """Feature width of each input."""
        return {name: store.dim for name, store in self.feed.stores.items()}


@dataclass(frozen=True)
class Store:
    """The steps of all clips of one input, behind one another."""

    values: Tensor
    """[step feature], float16 or float32, in memory or memory-mapped."""

    valid: Tensor
    """bool [step]."""

    offsets: Tensor
    """int64 [clip + 1]: where a clip's steps begin."""

    @property
    def dim(self) -> int:
        """Feature width."""
        return int(self.values.shape[1])

    @property
    def lengths(self) -> Tensor:
        """Steps of each clip."""
        return self.offsets[1:] - self.offsets[:-1]

    def gather(self, clips: Tensor) -> Steps:
        """Padded steps of some clips, float32; -1 and a clip without steps give a mask of zeros."""
        there = clips.clamp(min=0)
        start, length = self.offsets[there], self.lengths[there]
        length = torch.where(clips >= 0, length, 0)
        longest = max(1, int(length.max()))
        step = torch.arange(longest)
        mask = step < length.unsqueeze(1)
        if not len(self.values):
            return Steps(torch.zeros(len(clips), longest, self.dim), mask)
        at = torch.where(mask, start.unsqueeze(1) + step, 0)
        flat = at.reshape(-1)
        values = self.values[flat].float().reshape(len(clips), longest, self.dim)
        mask = mask & self.valid[at]
        return Steps(values * mask.unsqueeze(-1), mask)

    def __reduce__(self) -> tuple[Any, ...]:
        # As arrays they lie in Ray's shared memory once for all workers of a machine.
        return (_store_of, (self.values.numpy(), self.valid.numpy(), self.offsets.numpy()))

    @classmethod
    def from_arrays(cls, arrays: Sequence[tuple[np.ndarray, np.ndarray] | None]) -> "Store":
        """From (values [steps dim], valid [steps]) a clip; None where the modality is missing."""
        present = [item for item in arrays if item is not None]
        if not present:
            raise ValueError("a store needs at least one clip that has the input")
        dim = present[0][0].shape[1]
        lengths = [0 if item is None else len(item[0]) for item in arrays]
        values = np.concatenate([item[0] for item in present]).reshape(-1, dim)
        valid = np.concatenate([item[1] for item in present])
        return cls(
            torch.from_numpy(np.ascontiguousarray(values)),
            torch.from_numpy(valid.astype(bool)),
            torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
        )


def _store_of(*arrays: np.ndarray) -> Store:
    """A store over arrays that may be read-only: nothing writes to them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        values, valid, offsets = (torch.from_numpy(array) for array in arrays)
    return Store(values, valid, offsets)


@dataclass(frozen=True)
class ClipFeed:
    """A row is a clip, `time` runs inside it."""

    stores: Mapping[str, Store]
    clips: Clips
    lengths: Tensor = field(init=False)

    def __post_init__(self) -> None:
        lengths = torch.stack([store.lengths for store in self.stores.values()]).amax(0)
        object.__setattr__(self, "lengths", lengths)

    def batch(self, rows: Tensor) -> Batch:
        """Clips by index."""
        targets, known = self.targets(rows)
        return Batch(
            inputs={name: store.gather(rows) for name, store in self.stores.items()},
            clip_id=torch.from_numpy(self.clips.clip_id)[rows],
            index=rows,
            targets=targets,
            target_masks=known,
        )

    def targets(self, rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Targets of clips, and which are known."""
        targets = {name: target[rows] for name, target in self.clips.targets.items()}
        return targets, {name: known[rows] for name, known in self.clips.known.items()}

    def rows_of(self, chosen: np.ndarray) -> Tensor:
        """Rows of the clips that are marked True."""
        return torch.from_numpy(np.flatnonzero(chosen))


@dataclass(frozen=True)
class DialogueFeed:
    """A row is a dialogue, `time` runs over its clips in order of their turns."""

    stores: Mapping[str, Store]
    """One step a clip."""

    clips: Clips
    causal: bool = False
    lengths: Tensor = field(init=False)
    members: Tensor = field(init=False)
    """int64 [dialogue turn]: clips of each dialogue, -1 behind its end."""

    speakers: Tensor = field(init=False)

    def __post_init__(self) -> None:
        turns = [(0 if turn is None else turn) for turn in self.clips.turn]
        order = sorted(range(len(turns)), key=lambda at: (turns[at], self.clips.clip_id[at]))
        members: dict[str, list[int]] = {}
        for at in order:
            alone = f"clip {self.clips.clip_id[at]}"
            members.setdefault(self.clips.dialogue[at] or alone, []).append(at)
        rows = [members[name] for name in sorted(members)]
        longest = max(map(len, rows))
        table = torch.full((len(rows), longest), -1)
        speakers = torch.full((len(rows), longest), -1)
        for index, row in enumerate(rows):
            table[index, : len(row)] = torch.tensor(row)
            codes: dict[Any, int] = {}
            numbered = [codes.setdefault(self.clips.speaker[at], len(codes)) for at in row]
            speakers[index, : len(row)] = torch.tensor(numbered)
        object.__setattr__(self, "members", table)
        object.__setattr__(self, "speakers", speakers)
        object.__setattr__(self, "lengths", (table >= 0).sum(1))

    def batch(self, rows: Tensor) -> Batch:
        """Dialogues by index, cut to the longest of them."""
        members = self._members(rows)
        steps = members >= 0
        clip_id = torch.from_numpy(self.clips.clip_id)[members.clamp(min=0)]
        targets, known = self.targets(rows)
        inputs = {}
        for name, store in self.stores.items():
            one = store.gather(members.reshape(-1))
            values = one.values[:, 0].reshape(*members.shape, store.dim)
            inputs[name] = Steps(values, one.mask[:, 0].reshape(members.shape))
        return Batch(
            inputs=inputs,
            axis="dialogue",
            clip_id=torch.where(steps, clip_id, -1),
            index=rows,
            steps=steps,
            speaker=self.speakers[rows, : members.shape[1]],
            targets=targets,
            target_masks=known,
            causal=self.causal,
        )

    def targets(self, rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Targets of dialogues [dialogue turn ...], and which are known."""
        members = self._members(rows)
        there = members.clamp(min=0)
        targets = {name: target[there] for name, target in self.clips.targets.items()}
        known = {}
        for name, flags in self.clips.known.items():
            steps = (members >= 0).reshape(*members.shape, *[1] * (flags.ndim - 1))
            known[name] = flags[there] & steps
        return targets, known

    def rows_of(self, chosen: np.ndarray) -> Tensor:
        """Rows of the dialogues whose clips are marked True.

        Raises:
            ConfigError: some clips of a dialogue are marked and some are not.
        """
        marked = torch.from_numpy(chosen)[self.members.clamp(min=0)] & (self.members >= 0)
        count = marked.sum(1)
        torn = (count > 0) & (count < self.lengths)
        if bool(torn.any()):
            name = self.clips.dialogue[int(self.members[int(torn.nonzero()[0])][0])]
            raise ConfigError(
                f"dialogue {name!r} lies on both sides of a split; a dialogue net needs splits and "
                "folds that keep dialogues whole"
            )
        return count.nonzero().squeeze(1)

    def _members(self, rows: Tensor) -> Tensor:
        return self.members[rows, : max(1, int(self.lengths[rows].max()))]


def load(request: Request) -> Data:
    """Load labels and features.

    Raises:
        ConfigError: an unknown task, two inputs of one name, or a speaker that is needed and not given.
        NotPreparedError: features or folds are missing.
    """
    return Library(request).data(request)


class Library:
    """Labels read once and every input read once, for many data sets that differ in their inputs.

    Args:
        request: its root, tasks, folds and split hold for all of them.
    """

    def __init__(self, request: Request) -> None:
        self.dataset = read_dataset(request.root)
        self.tasks = _tasks(self.dataset, request.tasks)
        self.clips = read_clips(request, self.tasks)
        self.folders = feature_folders(request.root)
        self._stores: dict[tuple[str, Pool, str], tuple[Store, Pool]] = {}
        self._data: dict[Request, Data] = {}

    def data(self, request: Request) -> Data:
        """The data set of a request; what was read before is not read again."""
        if request not in self._data:
            self._data[request] = self._compose(request)
        return self._data[request]

    def _compose(self, request: Request) -> Data:
        pool = request.pool
        if request.axis == "dialogue" and pool == "none":
            pool = "mean"
            log.info("pool: mean, because a dialogue net takes one step a clip")
        stores, facts = {}, {}
        for name, folder in _inputs(request, self.folders).items():
            key = (folder, pool, request.normalise)
            if key not in self._stores:
                self._stores[key] = self._read(request, folder, pool)
            stores[name], effective = self._stores[key]
            facts[name] = _input_facts(self.folders[folder], folder, effective)
        feed: ClipFeed | DialogueFeed = ClipFeed(stores, self.clips)
        if request.axis == "dialogue":
            feed = DialogueFeed(stores, self.clips, request.causal)
        return Data(
            dataset=self.dataset, tasks=self.tasks, clips=self.clips, feed=feed, inputs=facts
        )

    def _read(self, request: Request, folder: str, pool: Pool) -> tuple[Store, Pool]:
        store, effective = read_store(request, folder, self.clips.clip_id, pool)
        if request.normalise == "speaker":
            store = without_speaker(store, self.clips)
        return store, effective

    def __getstate__(self) -> dict[str, Any]:
        # Data sets are composed again where they are needed; only the arrays travel.
        return {**self.__dict__, "_data": {}}


def _input_facts(descriptor: Mapping[str, Any], folder: str, pool: Pool) -> dict[str, Any]:
    """What the card of a net says of one input."""
    return {
        "features": folder,
        "name": descriptor.get("name", folder),
        "options": dict(descriptor.get("options", {})),
        "fingerprint": descriptor.get("fingerprint"),
        "pool": pool,
    }


def read_clips(request: Request, tasks: Mapping[str, Task]) -> Clips:
    """Labels and groups from the manifest, without the test split (or only it, for `evaluate`)."""
    columns = ["clip_id", "split", "group", "speaker", "dialogue", "turn", *tasks]
    table = read_manifest(request.root, columns).sort_by("clip_id")
    is_test = np.array([split == "test" for split in table["split"].to_pylist()], bool)
    table = table.filter(pa.array(is_test if request.test else ~is_test))
    clip_id = table["clip_id"].to_numpy().copy()
    fold = np.zeros(len(clip_id), np.int64)
    if request.folds is not None and not request.test:
        of_clip = read_folds(request.root, request.folds)
        absent = [clip for clip in clip_id.tolist() if clip not in of_clip]
        if absent:
            raise NotPreparedError(
                f"folds {request.folds!r} say nothing of {len(absent)} clips (first: {absent[0]}); "
                "type: affuse prepare"
            )
        fold = np.array([of_clip[clip] for clip in clip_id.tolist()], np.int64)
    encoded = {name: encode_targets(table[name], task) for name, task in tasks.items()}

    def plain(name: str) -> np.ndarray:
        return np.array(table[name].to_pylist(), dtype=object)

    clips = Clips(
        clip_id=clip_id,
        split=plain("split"),
        fold=fold,
        group=plain("group"),
        speaker=plain("speaker"),
        dialogue=plain("dialogue"),
        turn=plain("turn"),
        targets={name: target for name, (target, _) in encoded.items()},
        known={name: known for name, (_, known) in encoded.items()},
    )
    return checked(clips, test=request.test)


def checked(clips: Clips, *, test: bool) -> Clips:
    """The clips, if no test row is among them without having been asked for.

    Raises:
        TestSplitError: there is one.
    """
    if not test and bool((clips.split == "test").any()):
        raise TestSplitError("rows of the test split reached training; only `evaluate` reads them")
    return clips


def encode_targets(column: pa.ChunkedArray, task: Task) -> tuple[Tensor, Tensor]:
    """A task column as (targets, known).

    Raises:
        ConfigError: a class that the task does not have, or a list of another length.
    """
    values = column.to_pylist()
    if task.kind == "regression":
        numbers = torch.tensor([float("nan") if v is None else float(v) for v in values])
        known = ~numbers.isnan()
        return numbers.nan_to_num(), known
    if task.kind == "classification":
        code = {name: index for index, name in enumerate(task.classes)}
        strange = {str(v) for v in values if v is not None and v not in code}
        if strange:
            raise ConfigError(f"classes {sorted(strange)} are none of {list(task.classes)}")
        known = torch.tensor([v is not None for v in values], dtype=torch.bool)
        return torch.tensor([0 if v is None else code[v] for v in values]), known
    width = len(task.classes)
    if any(v is not None and len(v) != width for v in values):
        raise ConfigError(f"a multi-label target has not {width} numbers: {list(task.classes)}")
    empty = [None] * width
    rows = [[float("nan") if x is None else float(x) for x in (v or empty)] for v in values]
    labels = torch.tensor(rows).reshape(len(values), width)
    return labels.nan_to_num(), ~labels.isnan()


def read_store(
    request: Request, folder: str, clip_ids: np.ndarray, pool: Pool
) -> tuple[Store, Pool]:
    """One input of the given clips, and how it was pooled (`none` where it has one step anyway)."""
    table = read_features(
        request.root, folder, clip_ids.tolist(), ["clip_id", "values", "valid", "status"]
    )
    lengths = np.zeros(len(clip_ids), np.int64)
    for part in _parts(table, clip_ids):
        lengths[part.rows] = np.diff(part.offsets)
    single = bool((lengths <= 1).all())
    effective: Pool = "none" if single else pool
    dim = table.schema.field("values").type.value_type.list_size
    kind = table.schema.field("values").type.value_type.value_type.to_pandas_dtype()
    if effective != "none":
        lengths = np.minimum(lengths, 1)
        dim, kind = dim * (2 if effective == "mean_std" else 1), np.float32
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = _allocate(request, folder, (int(offsets[-1]), dim), kind, effective, clip_ids)
    valid = np.zeros(int(offsets[-1]), bool)
    for part in _parts(table, clip_ids):
        part.copy(values, valid, offsets, effective)
    return Store(torch.from_numpy(values), torch.from_numpy(valid), torch.from_numpy(offsets)), (
        effective
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Some clips of a feature table."""

    rows: np.ndarray
    """Where each clip stands in the data set."""

    offsets: np.ndarray
    values: np.ndarray
    valid: np.ndarray

    def copy(self, values: np.ndarray, valid: np.ndarray, at: np.ndarray, pool: Pool) -> None:
        """Write the clips where they belong."""
        for index, row in enumerate(self.rows.tolist()):
            steps = slice(self.offsets[index], self.offsets[index + 1])
            count = int(at[row + 1] - at[row])
            if count == 0:
                continue
            target = slice(int(at[row]), int(at[row + 1]))
            if pool == "none":
                values[target], valid[target] = self.values[steps], self.valid[steps]
            else:
                values[target], valid[target] = pooled(self.values[steps], self.valid[steps], pool)


def pooled(values: np.ndarray, valid: np.ndarray, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """The valid steps of one clip reduced to one step: (values [1 dim], valid [1])."""
    kept = values[valid].astype(np.float32)
    width = values.shape[1] * (2 if pool == "mean_std" else 1)
    if not len(kept):
        return np.zeros((1, width), np.float32), np.array([False])
    parts = [kept.mean(0)] if pool == "mean" else [kept.mean(0), kept.std(0)]
    return np.concatenate(parts)[None], np.array([True])


def without_speaker(store: Store, clips: Clips) -> Store:
    """Each speaker's own mean and spread removed, over the real steps of all their clips.

    Raises:
        ConfigError: a clip without a speaker.
    """
    if any(speaker is None for speaker in clips.speaker):
        raise ConfigError("normalise=speaker: the manifest has clips without a speaker")
    _, code = np.unique(clips.speaker.astype(str), return_inverse=True)
    of_step = torch.from_numpy(code).repeat_interleave(store.lengths)
    values = store.values.float()
    for speaker in range(int(code.max()) + 1):
        at = ((of_step == speaker) & store.valid).nonzero().squeeze(1)
        if len(at):
            own = values[at]
            std = own.std(0, correction=0)
            values[at] = (own - own.mean(0)) / torch.where(std > 1e-6, std, 1.0)
    return Store(values, store.valid, store.offsets)


def _parts(table: pa.Table, clip_ids: np.ndarray) -> list[_Part]:
    """The rows of a feature table chunk by chunk; clips that failed or are missing have no steps."""
    parts = []
    for batch in table.to_batches():
        rows = np.searchsorted(clip_ids, batch["clip_id"].to_numpy())
        lists = batch["values"]
        starts = lists.offsets.to_numpy().astype(np.int64)
        flat = lists.flatten()
        numbers = flat.flatten().to_numpy(zero_copy_only=False)
        width = lists.type.value_type.list_size
        parts.append(
            _Part(
                rows=rows,
                offsets=starts - starts[0],
                values=numbers.reshape(-1, width),
                valid=batch["valid"].flatten().to_numpy(zero_copy_only=False).astype(bool),
            )
        )
    return parts


def _allocate(
    request: Request,
    folder: str,
    shape: tuple[int, int],
    kind: Any,
    pool: Pool,
    clip_ids: np.ndarray,
) -> np.ndarray:
    """An array in memory, or above the budget in a memory-mapped file named by its content."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    if size <= request.memory_gb * 1e9 / max(1, len(request.inputs)):
        return np.empty(shape, kind)
    cache = Path(os.path.expanduser(request.cache))
    cache.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(repr((request.root, folder, shape, pool)).encode())
    digest.update(clip_ids.tobytes())
    path = cache / f"{digest.hexdigest()[:16]}-{os.getpid()}.bin"
    log.info("features %s: %.1f GB, memory-mapped at %s", folder, size / 1e9, path)
    values = np.memmap(path, kind, "w+", shape=shape)
    # The mapping outlives the name: nothing is left behind, whatever happens to the process.
    path.unlink()
    return values


def _tasks(dataset: Dataset, names: Sequence[str]) -> dict[str, Task]:
    known = list(dataset.tasks)
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no task {name!r}; {nearest(name, known)}")
    return {name: dataset.tasks[name] for name in (names or known)}


def _inputs(request: Request, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name in a batch -> feature folder: the modality where it is unique, else the encoder's name."""
    if not request.inputs:
        raise ConfigError("inputs: expected at least one encoder, e.g. --inputs minilm egemaps")
    folders = [resolve_features(request.root, text) for text in request.inputs]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"inputs {list(request.inputs)} name a table twice: {folders}")
    modality = [str(facts[folder].get("modality") or folder) for folder in folders]
    encoder = [str(facts[folder].get("name") or folder) for folder in folders]
    names = []
    for index, folder in enumerate(folders):
        if modality.count(modality[index]) == 1:
            names.append(modality[index])
        elif encoder.count(encoder[index]) == 1:
            names.append(encoder[index])
        else:
            names.append(folder)
    return dict(zip(names, folders, strict=True))

"""Load features and labels of a dataset as batches by index; the only place where columns become tensors.

Rows of the test split are dropped on the manifest, before any feature is looked up; asking for them takes
`Request.test`, which only `evaluate` sets. What is left lies in memory as one array an input (steps of all
clips behind one another), or, above a budget, in a memory-mapped file; batches are gathered from it by index
alone, so that the same seed gives the same batches either way.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import ConfigError, NotPreparedError, TestSplitError
from encoders import ENCODERS
from fusion.batch import Axis
from fusion.nets import net_axis
from fusion.predictor import Card, Feeding, Pool, feeding_fields
from fusion.scaling import Scaler
from fusion.tasks import Task
from jobs.catalog.branches import input_facts
from jobs.catalog.features import feature_folders
from jobs.catalog.manifest import Dataset, read_dataset, read_folds, read_manifest
from jobs.catalog.missing_rows import command_of
from jobs.catalog.tasks import pick_tasks
from jobs.catalog.votes import distributions
from jobs.training.feeds import Clips, Store
from jobs.training.input_names import input_folders
from jobs.training.mapped import MemoryBudget
from jobs.training.net_input import Feed, feed_for, make_store, pool_of
from jobs.training.stores import StoredTable, has_one_step
from jobs.training.targets import check_exact, check_finite, encode_targets

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request(Feeding):
    """What to load, and how it is made the input of a net."""

    root: str
    inputs: tuple[str, ...]
    """Encoders as typed (`minilm`, `minilm:pool=mean`), imported tables, or folders of features/."""

    tasks: tuple[str, ...] = ()
    """Task columns; empty: all of the dataset."""

    views: int = 0
    """Augmented views that training rows are drawn from besides the original."""

    axis: Axis = "clip"
    """Sequence axis of the net: clip or dialogue."""

    folds: str | None = None
    memory_gb: float = 4.0
    """Features above this size in all go to memory-mapped files [GB]."""

    cache: str = "~/.cache/affuse/feeding"
    """Folder of memory-mapped files."""

    test: bool = False
    """Load the test split, and only it. `evaluate` alone may."""

    clips: frozenset[int] | None = None
    """Load these clips alone; None: all of the split."""


class Remembered(OrderedDict[Hashable, Scaler]):
    """The scalers that were asked for last."""

    MOST = 64

    def of(self, key: Hashable, fitted: Callable[[], Scaler]) -> Scaler:
        """The scaler of a key, fitted where it is not known."""
        if key not in self:
            self[key] = fitted()
            if len(self) > self.MOST:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


@dataclass(frozen=True, kw_only=True)
class Data:
    """A loaded data set."""

    dataset: Dataset
    tasks: Mapping[str, Task]
    clips: Clips
    feed: Feed
    inputs: Mapping[str, Mapping[str, Any]]
    """Input -> its folder, encoder, fingerprint and effective pooling: for the card of a net."""

    how: Feeding
    """How the feed was made: for the card of a net."""

    scalers: Remembered = field(default_factory=Remembered)
    """Those that were fitted on some of its rows: trials of a search ask for the same again and again."""

    @property
    def dims(self) -> dict[str, int]:
        """Feature width of each input."""
        return {name: store.dim for name, store in self.feed.stores.items()}


def load(request: Request, inputs: Mapping[str, Mapping[str, Any]] | None = None) -> Data:
    """Load labels and features.

    Args:
        request: what.
        inputs: those of a card, where a net is there already; by default they are decided here.

    Raises:
        ConfigError: an unknown task, two inputs of one name, or a speaker that is needed and not given.
        NotPreparedError: features or folds are missing.
    """
    return Library(request).data(request, inputs)


def load_test(root: str, card: Card, task: str) -> Data:
    """The test split as the input of a trained net; only `evaluate` may ask for it."""
    request = Request(
        root=root,
        inputs=tuple(str(source["features"]) for source in card.inputs.values()),
        tasks=(task,),
        axis=net_axis(card.net),
        test=True,
        **feeding_fields(card),
    )
    return load(request, card.inputs)


class Library:
    """Labels read once and every input read once, for many data sets that differ in their inputs.

    Args:
        request: its root, tasks, folds and split hold for all of them.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.dataset = read_dataset(request.root)
        self.tasks = pick_tasks(self.dataset, request.tasks)
        self.clips = read_clips(request, self.tasks)
        self.folders = feature_folders(request.root)
        self._budget = MemoryBudget(request.memory_gb * 1e9, request.cache)
        self._tables: dict[str, StoredTable] = {}
        self._single: dict[str, bool] = {}
        self._stores: dict[tuple[str, Pool, str, str], Store] = {}
        self._data: dict[Request, Data] = {}

    def data(self, request: Request, inputs: Mapping[str, Mapping[str, Any]] | None = None) -> Data:
        """The data set of a request; what was read before is not read again.

        Args:
            request: of the same root, tasks, folds and split as the library.
            inputs: those of a card, where a net is there already; by default they are decided here.
        """
        if inputs is not None:
            return self._compose(request, inputs)
        if request not in self._data:
            self._data[request] = self._compose(request, self._inputs(request))
        return self._data[request]

    def store(self, folder: str, pool: Pool, normalise: str, column: str) -> Store:
        """One input of all clips; read once."""
        key = (folder, pool, normalise, column)
        if key not in self._stores:
            table = self._table(folder)
            self._stores[key] = make_store(table, self.clips, pool, normalise, self._budget, column)
        return self._stores[key]

    def _compose(self, request: Request, inputs: Mapping[str, Mapping[str, Any]]) -> Data:
        views: dict[str, list[str]] = {}
        if request.views:
            views = {
                name: view_folders(self.folders, facts["features"], request)
                for name, facts in inputs.items()
            }
        return Data(
            dataset=self.dataset,
            tasks=self.tasks,
            clips=self.clips,
            feed=feed_for(request, request.axis, inputs, self.clips, self, views=views),
            inputs=inputs,
            how=request,
        )

    def _inputs(self, request: Request) -> dict[str, dict[str, Any]]:
        """Facts of the inputs for the card of a net."""
        if request.axis == "dialogue" and request.pool == "none":
            log.info("pool: mean, because a dialogue net takes one step a clip")
        return {
            name: input_facts(
                request.root,
                self.folders[folder],
                folder,
                pool_of(request.pool, request.axis, single=self._has_one_step(folder)),
            )
            for name, folder in input_folders(request.root, request.inputs, self.folders).items()
        }

    def _has_one_step(self, folder: str) -> bool:
        if folder not in self._single:
            self._single[folder] = has_one_step(self._table(folder))
        return self._single[folder]

    def _table(self, folder: str) -> StoredTable:
        if folder not in self._tables:
            self._tables[folder] = StoredTable(self.request.root, folder, self.clips.clip_id)
        return self._tables[folder]

    def __getstate__(self) -> dict[str, Any]:
        # Data sets are composed again where they are needed; only the arrays travel.
        return {**self.__dict__, "_data": {}, "_tables": {}}


def has_views(request: Request) -> bool:
    """Whether any of its inputs has the augmented views that are asked for; text and imported ones have none.

    Raises:
        NotPreparedError: fewer have been encoded than are asked for.
    """
    folders = feature_folders(request.root)
    asked = input_folders(request.root, request.inputs, folders).values() if request.views else ()
    return any(view_folders(folders, folder, request) for folder in asked)


def view_folders(
    folders: Mapping[str, Mapping[str, Any]], folder: str, request: Request
) -> list[str]:
    """The tables of the views of one input, by number; none of text and of imported features.

    Raises:
        NotPreparedError: fewer have been encoded than are asked for.
    """
    numbered = {
        int(facts["view"]["number"]): name
        for name, facts in folders.items()
        if facts.get("view", {}).get("of") == folder
    }
    wanted = range(1, request.views + 1)
    facts = folders[folder]
    if facts.get("name") not in ENCODERS or facts.get("modality") == "text":
        return [numbered[number] for number in wanted if number in numbered]
    if not numbered.keys() >= set(wanted):
        making = command_of(request.root, {**facts, "view": {"number": request.views}})
        raise NotPreparedError(
            f"{folder} has {len(numbered)} views, {request.views} are asked for; type: {making}"
        )
    return [numbered[number] for number in wanted]


def read_clips(request: Request, tasks: Mapping[str, Task]) -> Clips:
    """Labels and groups from the manifest, without the test split (or only it, for `evaluate`)."""
    columns = ["clip_id", "split", "group", "speaker", "dialogue", "turn", *tasks]
    table = read_manifest(request.root, columns).sort_by("clip_id")
    is_test = np.array([split == "test" for split in table["split"].to_pylist()], bool)
    if not request.test and is_test.all():
        count = len(is_test)
        of = f"all {count} clips are of the test split" if count else "there are no clips"
        raise ConfigError(
            f"{request.root}: {of}, so nothing is left to train on; type: affuse prepare with other "
            "--split shares, or on more clips"
        )
    table = table.filter(pa.array(is_test if request.test else ~is_test))
    if request.clips is not None:
        table = table.filter(
            pc.is_in(table["clip_id"], pa.array(sorted(request.clips), pa.int64()))
        )
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
    for name, (target, known) in encoded.items():
        check_finite(name, target, known, clip_id)
        if tasks[name].kind == "regression":
            check_exact(name, table[name], target, known)

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
        soft=distributions(request.root, clip_id, tasks),
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

"""Runs and bundles: predictions, each once and in its folder, and nets that can be loaded.

Rows of the test split stand in files that `evaluate` alone opens: `test.parquet` of a run and what lies under
`evaluations/` are not read here either.
"""

import hashlib
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import stamps, storage
from cluster.errors import AbsentError, AffuseError, StorageError, WeightsError
from cluster.tables import COVERED, PREDICTIONS
from fusion import predictor
from fusion.predictor import Card
from fusion.tasks import Task
from jobs.catalog import bundles, judged_files, layout
from jobs.catalog.branches import branches_of, publishes_inputs, store_of_net
from jobs.catalog.missing_rows import typed
from jobs.verification.findings import EXAMPLES, UNREADABLE, Clips, Findings, typing
from jobs.verification.rows import RowCheck, among, ids_of, prediction_rows
from jobs.verification.unit_files import contract_holds, read_pieces

UNLOADABLE = (AffuseError, RuntimeError, *UNREADABLE)
"""What building a net from a card and weights raises that are not a net's."""

HELD_OUT = ("train", "valid", "oof")
FOLD, SEED = re.compile(r"fold=(\d+)"), re.compile(r"seed=(\d+)")
KEY = ["clip_id", "task"]
"""What identifies a row of the predictions of one part."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is checked of a run or bundle, and what mends it."""

    found: Findings
    lacking: str
    """What to do where a file is not there."""

    broken: str
    """What to do where one is not what it should be."""


def check_run(root: str, run: str, clips: Clips, manifest: str) -> Findings:
    """Read the predictions of a run, and load its nets."""
    found, base = Findings(table=f"runs/{run}"), layout.run_uri(root, run)
    trials = storage.names(layout.trials_uri(root, run), ".json")
    asked = bundles.was_asked(root, run)
    job = "ask" if asked else "tune" if trials else "train"
    command = f"affuse {job} --config {shlex.quote(storage.join(base, layout.CONFIG))}"
    broken = f"remove the folder of the part, then type: {command}"
    output = Output(found=found, lacking=typing(command), broken=broken)
    for trial in trials:
        read_document(output, layout.trials_uri(root, run, trial))
    if storage.exists(storage.join(base, layout.SUMMARY)):
        read_document(output, storage.join(base, layout.SUMMARY))
    else:
        said = "runs without a summary: they were stopped, or go on"
        found.add("unfinished", said, examples=[run], mend=output.lacking)
    judged = _Judged(clips)
    cards = _check_parts(root, run, output, judged, nets=not asked)
    judged.check(output)
    inputs = {name: facts for card in cards for name, facts in card.inputs.items()}
    made_from = {str(card.facts["manifest"]) for card in cards if "manifest" in card.facts}
    if made_from == {manifest}:
        said = "rows of clips that are not in the manifest"
        some = [f"clip {clip}" for clip in judged.strangers]
        found.add("left", said, count=judged.num_strangers, examples=some, mend=broken)
    found.notes += stale(root, inputs, made_from, manifest)
    return found


def _check_parts(
    root: str, run: str, output: Output, judged: "_Judged", *, nets: bool
) -> list[Card]:
    """Every net, where there are any, and its predictions; the cards that could be read."""
    folders = {part: layout.part_uri(root, run, *part) for part in _parts(root, run)}
    cards = {part: check_net(output, each) for part, each in folders.items() if nets}
    tasks = {name: task for card in cards.values() if card for name, task in card.tasks.items()}
    for (fold, seed), folder in folders.items():
        if fold is not None:
            check = prediction_rows(run, fold, seed, tasks or None, HELD_OUT)
            uri = storage.join(folder, layout.PREDICTIONS)
            for piece in check_predictions(output, uri, check):
                judged.add(piece, fold, seed)
    return [card for card in cards.values() if card is not None]


def _parts(root: str, run: str) -> Iterator[tuple[int | None, int]]:
    """Fold (None: the refit) and seed of every part; folders that are none of ours are passed over."""
    base = layout.run_uri(root, run)
    for name in storage.names(base):
        fold = FOLD.fullmatch(name)
        if fold is None and name != layout.REFIT:
            continue
        for inside in storage.names(storage.join(base, name)):
            if seed := SEED.fullmatch(inside):
                yield (None if fold is None else int(fold[1])), int(seed[1])


class _Judged:
    """Which clips the folds of a run hold out: each clip in one of them, for each seed and task."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips
        self._said: dict[tuple[int, str], np.ndarray] = {}  # whether a clip has any row [clip]
        self._held_out: dict[tuple[int, str], np.ndarray] = {}  # how often it is held out [clip]
        self._folds: set[int] = set()
        self.strangers: list[int] = []
        self.num_strangers = 0

    def add(self, piece: pa.Table, fold: int, seed: int) -> None:
        """Count some rows of a fold."""
        self._folds.add(fold)
        at, known = self.clips.find(ids_of(piece))
        self.num_strangers += int((~known).sum())
        self.strangers += piece["clip_id"].filter(pa.array(~known)).slice(0, EXAMPLES).to_pylist()
        for task in pc.unique(piece["task"]).to_pylist():
            mine, count = (seed, task), len(self.clips.clip_id)
            rows = known & among(piece["task"], task)
            self._said.setdefault(mine, np.zeros(count, bool))[at[rows]] = True
            out = rows & among(piece["role"], "oof")
            np.add.at(self._held_out.setdefault(mine, np.zeros(count, np.uint8)), at[out], 1)

    def check(self, output: Output) -> None:
        """Count clips that are held out twice or, where all folds are there, by none of them."""
        complete = not any(fault.kind == "unfinished" for fault in output.found.faults)
        for mine, out in self._held_out.items():
            self._count(output, "twice", "clips that are held out twice", out > 1)
            if complete and out.any() and len(self._folds) > 1:
                said = "clips that are trained on and held out by no fold"
                self._count(output, "missing", said, self._said[mine] & (out == 0))

    def _count(self, output: Output, kind: str, said: str, odd: np.ndarray) -> None:
        ids = self.clips.clip_id[odd]
        some = self.clips.named(ids)
        output.found.add(kind, said, count=len(ids), examples=some, mend=output.broken)


def check_predictions(output: Output, uri: str, check: RowCheck) -> Iterator[pa.Table]:
    """Yield the rows of a file of predictions, each clip once a task, as they are checked."""
    found, mend, name = output.found, output.broken, _place(uri)
    try:
        stamp = stamps.stamp_of(uri)
        if stamp is None:
            said = "parts without predictions: they were stopped, or go on"
            found.add("unfinished", said, examples=[name], mend=output.lacking)
            return
        found.files, found.size = found.files + 1, found.size + stamp.size
        if not contract_holds(found, storage.open_parquet(uri), PREDICTIONS, name, mend):
            return
        keys = []
        for _, piece in read_pieces(uri):
            found.rows += len(piece)
            for kind, said, odd in check(piece):
                some = _clips_in(name, piece["clip_id"].filter(pa.array(odd)))
                found.add(kind, said, count=int(odd.sum()), examples=some, mend=mend)
            # A name of a task on each of very many rows would take more than all the rest.
            keys.append(pa.table([piece["clip_id"], piece["task"].dictionary_encode()], KEY))
            yield piece
        if keys:
            rows = pa.concat_tables(keys).unify_dictionaries().group_by(KEY)
            counts = rows.aggregate([([], "count_all")])
            twice = counts.filter(pc.greater(counts["count_all"], 1))["clip_id"]
            some, said = _clips_in(name, twice), "clips that stand there twice"
            found.add("twice", said, count=len(twice), examples=some, mend=mend)
    except UNREADABLE as error:
        found.unreadable(uri, error, mend)


def check_net(output: Output, folder: str, expected: str | None = None) -> Card | None:
    """Load the net of a folder.

    Args:
        output: whose it is.
        folder: of the net.
        expected: sha256 of its weights, where somebody names it.

    Returns:
        Its card; None where there is none to read.
    """
    facts = read_document(output, storage.join(folder, layout.CARD))
    if facts is None:
        return None
    found, uri = output.found, storage.join(folder, layout.WEIGHTS)
    try:
        content = storage.read_bytes(uri)
        found.files, found.size = found.files + 1, found.size + len(content)
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            said = "nets that are not those that were bundled"
            found.add("weights", said, examples=[_place(uri)], mend=output.broken)
        card = Card.from_json(facts)
        branches = branches_of(card, store_of_net(card, folder, str(card.facts.get("run"))))
        state = predictor.from_bytes(content, card, branches).state_dict()
        if not all(bool(value.isfinite().all()) for value in state.values()):
            said = "nets with weights that are not finite"
            found.add("values", said, examples=[_place(uri)], mend=output.broken)
    except WeightsError as error:
        # The net itself is sound: to make it again would lose it.
        said = "nets whose encoder is not as they were trained from"
        found.add("weights", said, examples=[_why(uri, error)], mend=_bringing(facts))
        return None
    except UNLOADABLE as error:
        said = "nets that cannot be loaded"
        found.add("weights", said, examples=[_why(uri, error)], mend=output.broken)
        return None
    return card


def _why(uri: str, error: Exception) -> str:
    return f"{_place(uri)}: {error}".splitlines()[0][:300]


def _bringing(facts: Mapping[str, Any]) -> str:
    """How the encoders of a net come back as they were: into the store, but for a user's own files."""
    owned = [each for each in facts["inputs"].values() if publishes_inputs(each)]
    if any(str(each["options"].get("weights", "")).startswith("file://") for each in owned):
        return "put the former files back; or type affuse encode, then affuse train, to train from these"
    return typing(f"affuse models --encoders {' '.join(sorted(typed(each) for each in owned))}")


def check_bundle(root: str, name: str, manifest: str) -> Findings:
    """Load what a bundle holds."""
    found, base = Findings(table=f"bundles/{name}"), layout.bundle_uri(root, name)
    again = typing(f"affuse ensemble --config {shlex.quote(storage.join(base, layout.CONFIG))}")
    output = Output(found=found, lacking=again, broken=again)
    if read_document(output, storage.join(base, layout.BUNDLE)) is None:
        return found
    try:
        facts = bundles.bundle_facts(base)
        task = {facts["task"]: Task.from_json(facts)}
        nets = [
            (layout.nets_uri(base, member["run"], seed), member.get("sha256", {}).get(seed))
            for member in facts["members"]
            for seed in member["seeds"]
        ]
    except (AffuseError, *UNREADABLE) as error:
        found.unreadable(storage.join(base, layout.BUNDLE), error, again)
        return found
    cards = [card for folder, digest in nets if (card := check_net(output, folder, digest))]
    if "config" in facts:  # as `ensemble` makes them
        for file in (layout.PREDICTIONS, layout.FUSED):
            check = prediction_rows(name, None, None, task, ("oof",))
            for _ in check_predictions(output, storage.join(base, file), check):
                pass
        read_document(output, storage.join(base, layout.RESULTS))
        check_covered(output, storage.join(base, layout.COVERED))
        check_judged(output, base, facts)
    inputs = {name: each for card in cards for name, each in card.inputs.items()}
    made_from = {str(facts["manifest"])} if "manifest" in facts else set()
    found.notes += stale(root, inputs, made_from, manifest)
    return found


def check_judged(output: Output, base: str, facts: Mapping[str, Any]) -> None:
    """The files beside a bundle.json are those that it was written with; damaged ones are named before."""
    others = [name for name in judged_files.FILES if judged_files.is_another(base, facts, name)]
    if others and not output.found.faults:
        said = "files that bundle.json was not written with: the bundle was being made again"
        places = [_place(storage.join(base, name)) for name in others]
        output.found.add("unfinished", said, count=len(others), examples=places, mend=output.broken)


def check_covered(output: Output, uri: str) -> None:
    """What people left out would meet; bundles of an earlier version have none."""
    try:
        COVERED.conform(storage.read_table(uri))
    except AbsentError:
        return
    except (AffuseError, *UNREADABLE) as error:
        output.found.unreadable(uri, error, output.broken)


def read_document(output: Output, uri: str) -> Mapping[str, Any] | None:
    """A JSON document of an output; None, counted, where there is none or it is broken."""
    try:
        content = storage.read_json(uri)
        if not isinstance(content, dict):
            raise ValueError("holds no JSON object")
    except (AbsentError, StorageError):
        said = "files that are not there"
        output.found.add("absent", said, examples=[_place(uri)], mend=output.lacking)
        return None
    except UNREADABLE as error:
        output.found.unreadable(uri, error, output.broken)
        return None
    return content


def stale(
    root: str, inputs: Mapping[str, Mapping[str, Any]], made_from: Collection[str], manifest: str
) -> list[str]:
    """Lines on what has changed under nets since they were trained."""
    said = [
        f"made from manifest {other}, which is {manifest} by now"
        for other in sorted(made_from)
        if other != manifest
    ]
    for name, facts in inputs.items():
        folder = str(facts.get("features"))
        if not storage.exists(layout.features_uri(root, folder, layout.DESCRIPTOR)):
            said.append(f"input {name} was made from features/{folder}, which are not there")
    return said


def _place(uri: str) -> str:
    """A file with the two folders that it is in."""
    return "/".join(uri.split("/")[-3:])


def _clips_in(name: str, clip_id: pa.ChunkedArray) -> list[str]:
    return [f"clip {clip} in {name}" for clip in clip_id.slice(0, EXAMPLES).to_pylist()]

"""From the features of some clips to their SCORES: the nets of a bundle, its fusion, its calibration.

A bundle names the encoders its nets were trained on by fingerprint; they are found again among the
registered ones, with the transcriber that the text encoders read. `face_expression` is a bundle that needs
no training: the mean of the expression net's own 7 probabilities over the frames with a face.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster import storage, tables
from cluster.errors import ConfigError, NotPreparedError
from encoders import ENCODERS, TRANSCRIBERS
from encoders.spec import Descriptor, describe
from fusion.bundle import Pool
from fusion.late.calibration import Decision
from fusion.late.members import Members
from fusion.nets import net_axis
from fusion.tasks import Task
from jobs import _bundles
from jobs._feeds import Clips, Store
from jobs._speaking import Fusion, Speaker, load_speaker, speak
from jobs.training.net_input import feed_of_card, make_store
from jobs.training.speaker_norm import enrolment
from jobs.training.stores import HeldTable

UNTRAINED = "face_expression"
"""The bundle that is there before anything is trained."""

FEWEST_OF_SPEAKER = 8
"""Clips of a speaker below which their own mean and spread mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle as a job needs it before any net is loaded."""

    name: str
    uri: str | None
    """Its folder; None for the one that needs no training."""

    encoders: tuple[Descriptor, ...]
    transcriber: Descriptor | None
    whole_dialogues: bool = False
    """A net reads across the clips of a dialogue."""

    clips_of_speaker: int = 0
    """Clips that must be there of each speaker, where a net was trained on clips normalised by them."""


def open_bundle(text: str, root: str, transcriber: str | None = None) -> Bundle:
    """A bundle by name (under the root), by folder, or the untrained one.

    Raises:
        NotPreparedError: there is no such bundle.
        ConfigError: an encoder is not registered here, or is not the one it was trained with.
    """
    ear = None if transcriber is None else describe(transcriber)
    if text == UNTRAINED:
        return Bundle(name=text, uri=None, encoders=(describe(UNTRAINED),), transcriber=None)
    uri = _bundle_folder(text, root)
    facts = _bundles.bundle_facts(uri)
    if facts.get("imported"):
        raise ConfigError(
            f"bundle {facts['name']!r} has members of imported predictions, which say nothing of "
            "other clips; type: affuse ensemble --runs ..."
        )
    fused = Fusion.from_facts(facts).rule.names
    cards = [member["card"] for member in facts["members"] if member["run"] in fused]
    found: dict[str, Descriptor] = {}
    for card in cards:
        for source in card["inputs"].values():
            descriptor, heard = _descriptor(source)
            found[descriptor.folder] = descriptor
            ear = heard or ear
    return Bundle(
        name=facts["name"],
        uri=uri,
        encoders=tuple(found.values()),
        transcriber=ear,
        whole_dialogues=any(net_axis(card["net"]) == "dialogue" for card in cards),
        clips_of_speaker=max(map(_clips_of_speaker, cards), default=0),
    )


def _clips_of_speaker(card: Mapping[str, Any]) -> int:
    if card["normalise"] == "none":
        return 0
    return enrolment(card["normalise"]) or FEWEST_OF_SPEAKER


def _bundle_folder(text: str, root: str) -> str:
    if "/" in text:
        uri = storage.absolute(text)
        if not storage.exists(storage.join(uri, "bundle.json")):
            raise NotPreparedError(f"{uri} holds no bundle.json; type: affuse ensemble --root ...")
        return uri
    if not root:
        raise ConfigError(
            f"where is bundle {text!r}? type: --bundle ROOT/bundles/{text}, or --bundle {UNTRAINED}"
        )
    _bundles.read_bundle(root, text)  # names the nearest where there is none
    return _bundles.bundle_uri(root, text)


def _descriptor(source: Mapping[str, Any]) -> tuple[Descriptor, Descriptor | None]:
    """The encoder that wrote a feature table, and the transcriber it read."""
    if source["name"] not in ENCODERS:
        raise ConfigError(
            f"input {source['name']!r} was imported: no encoder makes it for other clips"
        )
    options = ",".join(f"{name}={value}" for name, value in source["options"].items())
    text = f"{source['name']}:{options}" if options else source["name"]
    for ear in (None, *map(describe, TRANSCRIBERS)):
        upstream = () if ear is None else (ear.fingerprint,)
        descriptor = describe(text, upstream=upstream)
        if descriptor.fingerprint == source["fingerprint"]:
            return descriptor, ear
    raise ConfigError(
        f"the bundle was trained on {source['features']}; here {source['name']} is "
        f"{describe(text).folder}: other weights or another preprocessing"
    )


class Scorer:
    """The loaded nets of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.speakers: list[Speaker] = []
        self.fusion: Fusion | None = None
        if bundle.uri is not None:
            facts = _bundles.bundle_facts(bundle.uri)
            self.fusion = Fusion.from_facts(facts)
            for run in self.fusion.rule.names:
                base = storage.join(bundle.uri, "nets", run)
                nets = {name: storage.join(base, name) for name in storage.names(base)}
                self.speakers.append(load_speaker(run, nets))

    def scores(
        self, facts: Sequence[Mapping[str, Any]], features: Mapping[str, pa.Table]
    ) -> pa.Table:
        """SCORES of some clips.

        Args:
            facts: of each clip its clip_id, name, dialogue, turn and speaker.
            features: folder name of each encoder -> FEATURES of the same clips, in any order.
        """
        facts = sorted(facts, key=lambda fact: fact["clip_id"])
        tables_ = {name: table.sort_by("clip_id") for name, table in features.items()}
        if self.fusion is None:
            task, kind, fused = _untrained(next(iter(tables_.values())))
            decision = Decision.plain(kind.kind, kind.outputs)
        else:
            task, kind, decision = self.fusion.task, self.fusion.kind, self.fusion.decision
            fused = self.fusion.combine(self._members(facts, tables_, task, kind))
        verdicts = [_verdict(row, kind, decision) for row in fused.double()]
        states = self._states(tables_, len(facts))
        rows = [
            {"clip_id": fact["clip_id"], "name": fact["name"], "task": task, **verdict, **state}
            if verdict
            else _nothing(fact, task, state)
            for fact, verdict, state in zip(facts, verdicts, states, strict=True)
        ]
        table = pa.Table.from_pylist(rows, tables.SCORES.schema)
        return tables.SCORES.conform(table, footer={"bundle": self.bundle.name})

    def _members(
        self,
        facts: Sequence[Mapping[str, Any]],
        features: Mapping[str, pa.Table],
        name: str,
        task: Task,
    ) -> Members:
        clips = clips_without_labels(facts, name, task)
        tables_ = TablesInHand(clips, features)
        scores = torch.zeros(len(self.speakers), len(facts), task.outputs, dtype=torch.float64)
        present = torch.zeros(len(self.speakers), len(facts), dtype=torch.bool)
        for index, speaker in enumerate(self.speakers):
            said = speak(speaker, feed_of_card(speaker.card, clips, tables_), name, task)
            at = torch.from_numpy(np.searchsorted(clips.clip_id, said.clip_id))
            scores[index, at] = torch.from_numpy(said.scores)
            present[index, at] = True
        names = tuple(speaker.name for speaker in self.speakers)
        return Members(names=names, kind=task.kind, scores=scores, present=present)

    def _states(self, features: Mapping[str, pa.Table], count: int) -> list[dict[str, Any]]:
        """Per clip: the modalities that were there, and what went wrong."""
        modality = {item.folder: item.spec.modality for item in self.bundle.encoders}
        used: list[set[str]] = [set() for _ in range(count)]
        wrong: list[list[str]] = [[] for _ in range(count)]
        worst = ["ok"] * count
        for folder, table in features.items():
            columns = (table[name].to_pylist() for name in ("valid", "status", "error"))
            for row, (valid, status, error) in enumerate(zip(*columns, strict=True)):
                if valid and any(valid):
                    used[row].add(modality[folder])
                if status in ("failed", "partial"):
                    worst[row] = "partial"
                    wrong[row].append(f"{modality[folder]}: {error}")
        return [
            {
                "modalities": sorted(used[row]),
                "status": worst[row],
                "error": "; ".join(dict.fromkeys(wrong[row])) or None,
            }
            for row in range(count)
        ]


@functools.lru_cache(maxsize=2)
def scorer(bundle_text: str, root: str, transcriber: str | None) -> Scorer:
    """This process's scorer of a bundle."""
    return Scorer(open_bundle(bundle_text, root, transcriber))


def _nothing(fact: Mapping[str, Any], task: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """A clip that no member could say anything of."""
    failed = state["error"] is not None
    return {
        "clip_id": fact["clip_id"],
        "name": fact["name"],
        "task": task,
        "label": None,
        "confidence": None,
        "probabilities": None,
        "value": None,
        "modalities": [],
        "status": "failed" if failed else "missing",
        "error": state["error"] or "nothing in it that the bundle reads (no face, no speech)",
    }


def _verdict(scores: Tensor, task: Task, decision: Decision) -> dict[str, Any]:
    """Label, confidence and probabilities of one clip; empty where no member was present."""
    if bool(scores.isnan().any()):
        return {}
    if task.kind == "regression":
        return {"label": None, "confidence": None, "probabilities": None, "value": scores.item()}
    decided = decision.decide(scores.unsqueeze(0))[0]
    if task.kind == "classification":
        shares = torch.softmax(scores, -1)
        label = [task.classes[int(decided)]]
        confidence = float(shares[int(decided)])
    else:
        shares = torch.sigmoid(scores)
        label = [c for c, chosen in zip(task.classes, decided.tolist(), strict=True) if chosen]
        confidence = float(torch.where(decided.bool(), shares, 1 - shares).min())
    pairs = list(zip(task.classes, shares.tolist(), strict=True))
    return {"label": label, "confidence": confidence, "probabilities": pairs, "value": None}


def _untrained(table: pa.Table) -> tuple[str, Task, Tensor]:
    """The expression net's own classes: its probabilities averaged over the frames with a face."""
    from encoders.video._mini_xception import CLASSES

    rows = []
    columns = (table["expression"].to_pylist(), table["valid"].to_pylist())
    for steps, valid in zip(*columns, strict=True):
        seen = [step for step, ok in zip(steps or (), valid or (), strict=True) if ok]
        mean = np.mean(seen, axis=0) if seen else np.full(len(CLASSES), np.nan)
        rows.append(np.log(np.maximum(mean, 1e-9)))
    task = Task(kind="classification", classes=CLASSES)
    return "expression", task, torch.from_numpy(np.stack(rows))


class TablesInHand:
    """The features of some clips that were just made or read; each is made a net's input once."""

    def __init__(self, clips: Clips, features: Mapping[str, pa.Table]) -> None:
        self._clips, self._features = clips, features
        self._stores: dict[tuple[str, Pool, str], Store] = {}

    def store(self, folder: str, pool: Pool, normalise: str) -> Store:
        """One input of all clips."""
        key = (folder, pool, normalise)
        if key not in self._stores:
            table = HeldTable(folder, self._features[folder])
            self._stores[key] = make_store(table, self._clips, pool, normalise)
        return self._stores[key]


def clips_without_labels(facts: Sequence[Mapping[str, Any]], name: str, task: Task) -> Clips:
    """The clips without labels."""

    def column(key: str) -> np.ndarray:
        return np.array([fact.get(key) for fact in facts], dtype=object)

    width = (task.outputs,) if task.kind == "multilabel" else ()
    target = torch.zeros(len(facts), *width)
    if task.kind == "classification":
        target = target.long()
    return Clips(
        clip_id=np.array([fact["clip_id"] for fact in facts], np.int64),
        split=np.array([None] * len(facts), dtype=object),
        fold=np.zeros(len(facts), np.int64),
        group=column("group"),
        speaker=column("speaker"),
        dialogue=column("dialogue"),
        turn=column("turn"),
        targets={name: target},
        known={name: torch.zeros(target.shape, dtype=torch.bool)},
    )


def check_speakers(facts: Sequence[Mapping[str, Any]], fewest: int) -> None:
    """Refuse normalisation by speaker where a speaker has too few clips.

    Raises:
        ConfigError: naming the first such speaker.
    """
    counts: dict[str, int] = {}
    for fact in facts:
        counts[str(fact["speaker"])] = counts.get(str(fact["speaker"]), 0) + 1
    few = [name for name, count in counts.items() if count < fewest or name == "None"]
    if few:
        raise ConfigError(
            f"the bundle removes each speaker's own mean: it needs {fewest} clips of everybody, "
            f"{few[0]!r} has {counts[few[0]]}; use a bundle of normalise=none"
        )

"""The bundle for a first clip: what encoders say themselves, averaged; fitted on nobody's labels.

Every encoder with answers of its own (`jobs.scoring.pretrained`) whose weights are in the store is a member:
faces, voice and words. Their answers, joined to seven emotions by name, count the same; one that finds
nothing in a clip is absent. Nothing is calibrated: how far the answers are right is not known.
"""

import shlex
from collections.abc import Sequence
from typing import Any

import torch

from cluster.errors import NotPreparedError
from encoders import ENCODERS, TRANSCRIBERS
from encoders.registry import describe, find
from encoders.spec import Descriptor, Modality
from encoders.store import is_mirrored
from fusion.late import rule_class
from fusion.late.calibration import Calibration
from fusion.late.members import Members
from fusion.predictor import Card
from fusion.tasks import Task
from jobs.scoring.bundle import Bundle
from jobs.scoring.pretrained import card_of

NAME = "untrained"
TASK_NAME = "emotion"
TASK = Task(
    kind="classification",
    classes=("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
)

PARTS: dict[Modality, str] = {"video": "faces", "audio": "voice", "text": "words"}


def untrained_bundle(store: str, transcriber: Descriptor | None = None) -> Bundle:
    """The bundle of what is in a store.

    Args:
        store: of the weights.
        transcriber: of clips without text; by default one that the store holds, where words are read.

    Raises:
        NotPreparedError: it holds no such encoder; with the command that brings one.
    """
    found = [name for name in speaking() if in_store(describe(name), store)]
    if not found:
        raise NotPreparedError(
            f"{NAME}: none of the encoders with answers of their own is in the store {store}; type: "
            f"affuse models --encoders {' '.join(speaking())} --store {shlex.quote(store)}"
        )
    if not any(describe(name).reads_text for name in found):
        transcriber = None
    elif transcriber is None:
        known = (describe(name) for name in TRANSCRIBERS if not find(name).own_weights)
        transcriber = next((one for one in known if in_store(one, store)), None)
    chosen, cards = [], {}
    for name in found:
        descriptor = describe(name)
        if transcriber is not None and descriptor.reads_text:
            descriptor = describe(name, upstream=(transcriber.fingerprint,))
        chosen.append(descriptor)
        for card in _cards(descriptor):
            column = next(iter(card.inputs.values()))["column"]
            cards[f"{descriptor.spec.name}-{column}"] = card
    return Bundle(
        name=NAME,
        uri=None,
        encoders=tuple(chosen),
        transcriber=transcriber,
        facts=_facts(cards),
        store=store,
    )


def speaking() -> list[str]:
    """The encoders with answers of their own to the seven emotions, as they are typed."""
    typed: list[str] = []
    for name in ENCODERS:
        spec = find(name)
        if spec.answers:
            named = [f"{name}:preset={each}" for each in spec.presets]
            typed += named if spec.own_weights else [name]
    return [name for name in typed if _cards(describe(name))]


def in_store(descriptor: Descriptor, store: str) -> bool:
    """Whether a store holds all weights of an encoder."""
    return all(is_mirrored(weights, store) for weights in descriptor.weights)


def notes(bundle: Bundle) -> list[str]:
    """What it reads, and what it would read if more were in the store, in two lines."""
    if not bundle.facts:
        return [f"{bundle.name}: the 7 classes of an expression net trained on posed pictures"]
    there = {str(item.spec.modality): item.name for item in bundle.encoders}
    read = ", ".join(f"{PARTS[part]} ({there[part]})" for part in PARTS if part in there)
    lines = [f"{NAME}: what encoders say themselves, fitted on nobody's labels; reads {read}"]
    modality = {name: describe(name).spec.modality for name in speaking()}
    missing = [name for name, part in modality.items() if part not in there]
    silent = [
        what for part, what in PARTS.items() if part not in there and part not in modality.values()
    ]
    more = []
    if missing:
        what = ", ".join(dict.fromkeys(PARTS[modality[name]] for name in missing))
        where = f" --store {shlex.quote(bundle.store)}"
        more.append(f"{what}: type affuse models --encoders {' '.join(missing)}{where}")
    if silent:
        more.append(f"{' and '.join(silent)}: no encoder here says anything of them by itself")
    return [*lines, "not read: " + "; ".join(more)] if more else lines


def _cards(descriptor: Descriptor) -> Sequence[Card]:
    source = {
        "features": descriptor.folder,
        "name": descriptor.name,
        "options": dict(descriptor.options),
        "fingerprint": descriptor.fingerprint,
    }
    found = (
        card_of({**source, "column": column}, TASK_NAME, TASK) for column in descriptor.spec.answers
    )
    return [card for card in found if card is not None]


def _facts(cards: dict[str, Card]) -> dict[str, Any]:
    """As `bundle.json` holds them, but for nets."""
    rule = rule_class("mean")
    nothing = torch.zeros(len(cards), TASK.outputs, TASK.outputs)
    rows = Members.from_logits([*cards], TASK.kind, nothing)
    fitted = rule.fit(rule.Config(), rows, torch.arange(TASK.outputs))
    return {
        "name": NAME,
        "task": TASK_NAME,
        **TASK.to_json(),
        "rule": fitted.state(),
        "calibration": Calibration(method="none", kind=TASK.kind).state(),
        "members": [
            {"run": name, "seeds": [], "card": card.to_json()} for name, card in cards.items()
        ],
        "imported": [],
    }

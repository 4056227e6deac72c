"""A bundle of two untrained nets over the toys, one for words and one for sound, fused by their mean."""

import torch

from cluster import storage
from encoders.registry import describe
from fusion import predictor as nets
from fusion.late import rule_class
from fusion.late.calibration import Calibration
from fusion.late.members import Members
from fusion.tasks import Task
from jobs.catalog import bundles, layout

CLASSES = ("calm", "happy", "sad")


def source(text, *, pool="mean", ear=None):
    """An input of a card; `ear`: the transcriber whose words it read."""
    upstream = () if ear is None else (describe(ear).fingerprint,)
    descriptor = describe(text, upstream=upstream)
    return {
        "features": descriptor.folder,
        "name": descriptor.name,
        "options": dict(descriptor.options),
        "fingerprint": descriptor.fingerprint,
        "pool": pool,
    }


def write_bundle(
    root,
    *,
    normalise="none",
    text="toy_text",
    net="concat_mlp",
    sound=None,
    width=2,
    words=3,
    classes=CLASSES,
    ear=None,
):
    """The bundle `b` under a root.

    Args:
        root: of a dataset, or any folder.
        normalise: of both nets.
        text: encoder of the words; None leaves their net out.
        net: of the words; lstm_dialogue and the like read whole dialogues.
        classes: what it tells apart.
        sound: facts of the input of sound, in place of those of toy_audio.
        width: of the features of sound.
        words: width of the features of words.
        ear: transcriber of clips without text.
    """
    task = Task(kind="classification", classes=classes)
    members = []
    inputs = [] if text is None else [("words", "text", source(text, ear=ear), words, net)]
    inputs.append(("voice", "audio", sound or source("toy_audio"), width, "concat_mlp"))
    for seed, (run, name, facts, dim, kind) in enumerate(inputs):
        card = nets.Card(
            net=kind,
            config={"hidden": 8},
            tasks={"mood": task},
            dims={name: dim},
            inputs={name: facts},
            pool="mean",
            normalise=normalise,
        )
        torch.manual_seed(seed)
        predictor = nets.build(card).eval()
        folder = storage.join(layout.bundle_uri(str(root), "b"), "nets", run, "seed=0")
        storage.publish_bytes(nets.to_bytes(predictor), storage.join(folder, "model.safetensors"))
        storage.publish_json(card.to_json(), storage.join(folder, "model.json"))
        members.append({"run": run, "seeds": ["seed=0"], "card": card.to_json()})
    names = tuple(run for run, *_ in inputs)
    zeros = torch.zeros(len(names), 6, len(classes))
    rows = Members.from_logits(names, "classification", zeros)
    rule = rule_class("mean").fit(rule_class("mean").Config(), rows, torch.arange(6) % len(classes))
    facts = {
        "task": "mood",
        "kind": "classification",
        "classes": list(classes),
        "range": None,
        "rule": rule.state(),
        "calibration": Calibration(method="none", kind="classification").state(),
        "members": members,
        "imported": [],
    }
    bundles.publish(str(root), "b", facts)

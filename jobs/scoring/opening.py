"""Opening a bundle: its folder, its facts, and the encoders here that its nets were trained on."""

from collections.abc import Mapping
from typing import Any

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError
from cluster.model_registry import ModelRegistry, is_model_uri
from encoders import ENCODERS, TRANSCRIBERS
from encoders.registry import describe, find
from encoders.spec import Descriptor
from fusion.nets import net_axis
from jobs.catalog import bundles, layout
from jobs.scoring import untrained
from jobs.scoring.bundle import Bundle
from jobs.stream.selection import chosen_store
from jobs.training.speaker_norm import enrolment

UNTRAINED = "face_expression"
"""The bundle that is there before anything is trained."""

FEWEST_OF_SPEAKER = 8
"""Clips of a speaker below which their own mean and spread mean nothing."""


def open_bundle(
    text: str,
    root: str,
    transcriber: str | None = None,
    store: str | None = None,
    *,
    asks: bool = False,
) -> Bundle:
    """A bundle by name (under the root), by folder, as a registered model, or one that needs no training.

    Args:
        text: its name, folder or model.
        root: of the dataset.
        transcriber: in place of the one that it was trained with.
        store: of pretrained weights, where one was named.
        asks: a server will be asked what large models among its members say.

    Raises:
        NotPreparedError: there is no such bundle.
        ConfigError: an encoder is not the one it was trained with, or a member is of predictions alone.
    """
    ear = None if transcriber is None else describe(transcriber)
    if text == UNTRAINED:
        return Bundle(name=text, uri=None, encoders=(describe(UNTRAINED),), transcriber=ear)
    if text == untrained.NAME and text not in (layout.bundles_there(root) if root else ()):
        return untrained.untrained_bundle(chosen_store(store, root), ear)
    uri = _bundle_folder(text, root)
    facts = bundles.bundle_facts(uri)
    bundles.check_has_nets(facts)
    if (asked := bundles.asked_members(facts)) and not asks:
        print(
            f"{facts['name']}: scores without {', '.join(asked)}, a large model's answers to the clips "
            "that it was fused on"
        )
    fused = facts["rule"]["members"]
    cards = [member["card"] for member in facts["members"] if member["run"] in fused]
    found: dict[str, Descriptor] = {}
    imported: dict[str, str] = {}
    for card in cards:
        for source in card["inputs"].values():
            if source["name"] not in ENCODERS:
                imported[source["features"]] = source["name"]
                continue
            descriptor, heard = _descriptor(source)
            found[descriptor.folder] = descriptor
            ear = heard or ear
    return Bundle(
        name=facts["name"],
        uri=uri,
        facts=facts,
        encoders=tuple(found.values()),
        transcriber=ear,
        imported=imported,
        store=store or "",
        whole_dialogues=any(net_axis(card["net"]) == "dialogue" for card in cards),
        clips_of_speaker=max(map(_clips_of_speaker, cards), default=0),
    )


def name_under(root: str, text: str) -> str:
    """The name of a bundle under a root; of a registered model that of the bundle that was registered.

    Raises:
        NotPreparedError: there is no such model.
        ConfigError: its bundle is of another root, or was made anew under its name since.
    """
    if not is_model_uri(text):
        return text
    tags = ModelRegistry(root).version(text).tags
    name = tags.get("affuse.bundle", "")
    if name not in layout.bundles_there(root):
        raise ConfigError(f"{text} is the bundle {name!r}, which is not under {root}")
    if bundles.digest(bundles.read_bundle(root, name)) != tags.get("affuse.sha256"):
        raise ConfigError(
            f"{text} is not {name} of {root} as it is now, which was made anew since; "
            f"type: --bundle {name}, or affuse bundle register"
        )
    return name


def _clips_of_speaker(card: Mapping[str, Any]) -> int:
    if card["normalise"] == "none":
        return 0
    return enrolment(card["normalise"]) or FEWEST_OF_SPEAKER


def _bundle_folder(text: str, root: str) -> str:
    if is_model_uri(text):
        return _registered(text, root)
    if "/" in text:
        uri = storage.absolute(text)
        if not storage.exists(storage.join(uri, layout.BUNDLE)):
            raise NotPreparedError(f"{uri} holds no bundle.json; type: affuse ensemble --root ...")
        return uri
    if text not in (layout.bundles_there(root) if root else ()):
        _refuse_folder_here(text)
    if not root:
        raise ConfigError(
            f"where is bundle {text!r}? type: --bundle ROOT/bundles/{text} (in Python root='ROOT'), or "
            f"--bundle {UNTRAINED}"
        )
    bundles.read_bundle(root, text)  # names the nearest where there is none
    return layout.bundle_uri(root, text)


def _refuse_folder_here(text: str) -> None:
    """Say how the folder of a bundle is typed, where there is one of a name that was typed alone.

    Raises:
        ConfigError: there is one.
    """
    if storage.exists(storage.join(storage.absolute(text), layout.BUNDLE)):
        raise ConfigError(
            f"where is bundle {text!r}? a plain name is looked up under --root; for the folder that is here "
            f"type: --bundle ./{text}"
        )


def _registered(text: str, root: str) -> str:
    """The folder of the bundle inside a registered model."""
    registry = ModelRegistry(root)
    inside = storage.join(registry.folder(registry.version(text)), "artifacts")
    for name in storage.names(inside):
        if storage.exists(storage.join(inside, name, layout.BUNDLE)):
            return storage.join(inside, name)
    raise NotPreparedError(f"{text} holds no bundle of affuse; type: affuse bundle register")


def _descriptor(source: Mapping[str, Any]) -> tuple[Descriptor, Descriptor | None]:
    """The encoder that wrote a feature table, and the transcriber it read."""
    text = _written(source)
    # Bundles of earlier versions do not name it: it is one of those that need no weights of the user's.
    pinned = [name for name in TRANSCRIBERS if not find(name).own_weights]
    heard = [_written(source["transcriber"])] if "transcriber" in source else pinned
    for ear in (None, *map(describe, heard)):
        upstream = () if ear is None else (ear.fingerprint,)
        descriptor = describe(text, upstream=upstream)
        if descriptor.fingerprint == source["fingerprint"]:
            return descriptor, ear
    raise ConfigError(
        f"the bundle was trained on {source['features']}; here {source['name']} is "
        f"{describe(text).folder}: other weights or another preprocessing; type affuse encode, train and "
        "ensemble again (or tune), or use the version that made the bundle"
    )


def _written(facts: Mapping[str, Any]) -> str:
    """An encoder with all its options, as `describe` reads it."""
    options = ",".join(f"{name}={value}" for name, value in facts["options"].items())
    return f"{facts['name']}:{options}" if options else str(facts["name"])

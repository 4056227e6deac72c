"""A bundle before any net is loaded: the encoders it reads, and its requirements on clips."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError
from encoders import ENCODERS, TRANSCRIBERS
from encoders.registry import describe
from encoders.spec import Descriptor
from fusion.nets import net_axis
from jobs.catalog import bundles, layout
from jobs.catalog.manifest import read_manifest
from jobs.scoring.member_nets import Fusion
from jobs.training.speaker_norm import enrolment

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
    imported: Mapping[str, str] = field(default_factory=dict)
    """Folder -> name of the inputs that were imported: a dataset may hold them, no encoder makes them."""

    whole_dialogues: bool = False
    """A net reads across the clips of a dialogue."""

    clips_of_speaker: int = 0
    """Clips that must be there of each speaker, where a net was trained on clips normalised by them."""

    @property
    def folders(self) -> tuple[str, ...]:
        """The feature tables that its nets read."""
        return (*(item.folder for item in self.encoders), *self.imported)

    @property
    def linked(self) -> tuple[str, ...]:
        """Columns of the manifest whose clips have to be scored together."""
        dialogues = ("dialogue",) if self.whole_dialogues else ()
        return (*dialogues, "speaker") if self.clips_of_speaker else dialogues

    def refuse_raw(self) -> None:
        """Refuse a bundle that cannot score raw clips.

        Raises:
            ConfigError: an input was imported.
        """
        if self.imported:
            raise ConfigError(
                f"input {', '.join(self.imported.values())} was imported: no encoder makes it for other "
                "clips; import it for these clips too: affuse features import --root ROOT --file FILE, "
                "then: affuse score --root ROOT --source features"
            )


def open_bundle(text: str, root: str, transcriber: str | None = None) -> Bundle:
    """A bundle by name (under the root), by folder, or the untrained one.

    Raises:
        NotPreparedError: there is no such bundle.
        ConfigError: an encoder is not the one it was trained with, or a member is of predictions alone.
    """
    ear = None if transcriber is None else describe(transcriber)
    if text == UNTRAINED:
        return Bundle(name=text, uri=None, encoders=(describe(UNTRAINED),), transcriber=None)
    uri = _bundle_folder(text, root)
    facts = bundles.bundle_facts(uri)
    if facts.get("imported"):
        raise ConfigError(
            f"bundle {facts['name']!r} has members of imported predictions, which say nothing of "
            "other clips; type: affuse ensemble --runs ..."
        )
    fused = Fusion.from_facts(facts).rule.names
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
        encoders=tuple(found.values()),
        transcriber=ear,
        imported=imported,
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
        if not storage.exists(storage.join(uri, layout.BUNDLE)):
            raise NotPreparedError(f"{uri} holds no bundle.json; type: affuse ensemble --root ...")
        return uri
    if not root:
        raise ConfigError(
            f"where is bundle {text!r}? type: --bundle ROOT/bundles/{text}, or --bundle {UNTRAINED}"
        )
    bundles.read_bundle(root, text)  # names the nearest where there is none
    return layout.bundle_uri(root, text)


def _descriptor(source: Mapping[str, Any]) -> tuple[Descriptor, Descriptor | None]:
    """The encoder that wrote a feature table, and the transcriber it read."""
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


def as_needed(root: str, bundle: Bundle) -> Bundle:
    """The bundle, asking for no whole dialogues where no clip is in one."""
    if bundle.whole_dialogues:
        dialogues = read_manifest(root, ["dialogue"])["dialogue"]
        return replace(bundle, whole_dialogues=dialogues.null_count < len(dialogues))
    return bundle


def check_speakers(speakers: pa.ChunkedArray, fewest: int) -> None:
    """Refuse normalisation by speaker where a speaker has too few clips.

    Args:
        speakers: of the clips, null where none is named.
        fewest: clips that everybody must have.

    Raises:
        ConfigError: naming the first such speaker.
    """
    pairs = speakers.value_counts().to_pylist()
    counts = {pair["values"]: pair["counts"] for pair in pairs}
    few = [name for name, count in counts.items() if count < fewest or name is None]
    if few:
        who = (
            f"{counts[few[0]]} have no speaker"
            if few[0] is None
            else (f"{few[0]!r} has {counts[few[0]]}")
        )
        raise ConfigError(
            f"the bundle removes each speaker's own mean: it needs {fewest} clips of everybody, {who}; "
            "use a bundle of normalise=none"
        )

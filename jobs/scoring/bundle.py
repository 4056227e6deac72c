"""A bundle before any net is loaded: the encoders it reads, and its requirements on clips."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError
from encoders import ENCODERS
from encoders.spec import Descriptor
from jobs.catalog.features import current_rows, feature_folders
from jobs.catalog.layout import DESCRIPTOR, features_uri
from jobs.catalog.manifest import read_manifest

COVERAGES = (0.5, 0.99)
"""The least and the largest coverage that bundles hold thresholds for (`fusion.late.conformal`)."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle as a job needs it before any net is loaded."""

    name: str
    uri: str | None
    """Its folder; None for the one that needs no training."""

    encoders: tuple[Descriptor, ...]
    transcriber: Descriptor | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Its `bundle.json`; empty for the one that needs no training."""

    imported: Mapping[str, str] = field(default_factory=dict)
    """Folder -> name of the inputs that were imported: a dataset may hold them, no encoder makes them."""

    tables: Mapping[str, str] = field(default_factory=dict)
    """Folder of such an input -> the table that stands for it in a dataset of other clips (`as_needed`)."""

    whole_dialogues: bool = False
    """A net reads across the clips of a dialogue."""

    clips_of_speaker: int = 0
    """Clips that must be there of each speaker, where a net was trained on clips normalised by them."""

    told: Mapping[str, str] = field(default_factory=dict)
    """Member that is a large model -> table of what it says of the clips of a dataset."""

    told_stamps: tuple[str, ...] = ()
    """Hashes of those tables."""

    store: str = ""
    """Weights that its nets were fine-tuned from; by default where they were found in training."""

    coverage: float | None = None
    """Share of new people's clips for which sets or intervals are to hold the truth; None: none are made."""

    @property
    def folders(self) -> tuple[str, ...]:
        """The feature tables that its nets read."""
        return (*(item.folder for item in self.encoders), *self.imported)

    def table(self, folder: str) -> str:
        """The folder under the dataset that is read for an input."""
        return self.tables.get(folder, folder)

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
                "clips; import those of these clips under the same name: affuse features import --root ROOT "
                "--file FILE --name NAME, then: affuse score --root ROOT --source features"
            )

    def refuse_alone(self) -> None:
        """Refuse a bundle that cannot score one file by itself.

        Raises:
            ConfigError: an input was imported, or it needs several clips of each speaker.
        """
        self.refuse_raw()
        if self.clips_of_speaker:
            check_speakers(pa.chunked_array([[None]]), self.clips_of_speaker)

    def refuse_stream(self, root: str) -> None:
        """Refuse a stream to a bundle that has to see several clips together.

        Raises:
            ConfigError: with what to type in its place.
        """
        if self.linked:
            names = " ".join(item.typed for item in self.encoders)
            raise ConfigError(
                "the bundle reads whole dialogues or speakers, which a stream cuts; type first: "
                f"affuse encode --root {shlex.quote(root)} --encoders {names}"
            )

    def promising(self, coverage: float | None) -> "Bundle":
        """The bundle, making sets or intervals of a coverage.

        Raises:
            ConfigError: it has no thresholds, or none for that coverage.
        """
        if coverage is None:
            return self
        least, most = COVERAGES
        if not least <= coverage <= most:
            raise ConfigError(f"--coverage {coverage:g}: expected {least:g} to {most:g}")
        if "conformal" not in self.facts:
            how = (
                "it was not fitted on anybody's labels; use a bundle of `affuse ensemble`"
                if self.uri is None
                else "it was made before there were any; type affuse ensemble again"
            )
            raise ConfigError(f"--coverage {coverage:g}: {self.name} has no thresholds: {how}")
        return replace(self, coverage=coverage)


def modalities_of(bundle: Bundle, root: str = "") -> dict[str, str]:
    """Feature table that the nets read -> its modality.

    Args:
        bundle: whose.
        root: of the dataset, which knows the modality of imported inputs; without it an input is its own.
    """
    found = {item.folder: str(item.spec.modality) for item in bundle.encoders}
    for folder, name in bundle.imported.items():
        uri = root and features_uri(root, bundle.table(folder), DESCRIPTOR)
        found[folder] = storage.read_json(uri)["modality"] if uri and storage.exists(uri) else name
    return found


def as_needed(root: str, bundle: Bundle) -> Bundle:
    """The bundle for a dataset: without whole dialogues where no clip is in one, with its imported tables.

    Raises:
        ConfigError: an imported table of that name has another width, or several have the name.
    """
    if bundle.imported:
        bundle = replace(bundle, tables=tables_here(root, bundle))
    if bundle.whole_dialogues:
        dialogues = read_manifest(root, ["dialogue"])["dialogue"]
        return replace(bundle, whole_dialogues=dialogues.null_count < len(dialogues))
    return bundle


def tables_here(root: str, bundle: Bundle) -> dict[str, str]:
    """Imported tables of a dataset that stand for those of the clips that the bundle was trained on.

    The folder of an import carries a hash of its content: other clips have another one. The name says that
    they were made alike; of the rest only the width can be checked.
    """
    there, found = feature_folders(root), {}
    widths = imported_widths(bundle.facts)
    for folder, name in bundle.imported.items():
        named = sorted(each for each, facts in there.items() if facts["name"] == name)
        if folder in there or not named:
            continue
        if len(named) > 1:
            raise ConfigError(
                f"several tables under {root}/features are called {name!r}: {', '.join(named)}; move those "
                "that are not meant out of there, and type the same command"
            )
        (here,) = named
        if (width := there[here]["dim"]) != widths[name]:
            raise ConfigError(
                f"{here} has {width} features a step, and the bundle was trained on {name} of "
                f"{widths[name]}; import what was made as those were, or type another --bundle"
            )
        found[folder] = here
        print(f"input {name}: {here}, imported here, stands for {folder} of the training")
    return found


def from_features(root: str, bundle: Bundle, source: Literal["auto", "clips", "features"]) -> bool:
    """Whether stored features of a dataset are read, and not its raw clips.

    Raises:
        NotPreparedError: they were asked for, or nothing else can be read, and some are missing.
        ConfigError: raw clips were asked for, and an input was imported.
    """
    if source == "clips":
        bundle.refuse_raw()
        return False
    for folder, name in bundle.imported.items():
        if not storage.exists(features_uri(root, bundle.table(folder), DESCRIPTOR)):
            raise NotPreparedError(
                f"the bundle reads {name}, which was imported, and there is none under {root}/features; "
                f"type: affuse features import --root {shlex.quote(root)} --name {name} --file FILE "
                "--modality MODALITY"
            )
    try:
        for folder in bundle.folders:
            current_rows(root, bundle.table(folder))
    except NotPreparedError:
        if source == "features" or bundle.imported:
            raise
        return False
    return True


def imported_widths(facts: Mapping[str, Any]) -> dict[str, int]:
    """Input of a bundle's nets that was imported -> features of a step of it."""
    found = {}
    for member in facts["members"]:
        card = member["card"]
        for place, source in card["inputs"].items():
            if source["name"] not in ENCODERS:
                # What is fed is wider than what is stored where spreads stand beside means.
                fed = int(card["dims"][place])
                found[str(source["name"])] = fed // 2 if source.get("pool") == "mean_std" else fed
    return found


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

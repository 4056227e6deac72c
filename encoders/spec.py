"""Descriptors of encoders, known without loading a model, and the protocol of encoders.

An encoder file holds a `SPEC`, and its wrapper `encode(clips) -> list[Encoded]`; nothing of Ray. From a text
such as `whisper_tiny_en:layers=2,pool=mean_std` `encoders.registry.describe` makes a `Descriptor`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from encoders.answers import OwnAnswer
from encoders.artefacts import PinnedModel, Weights, preset
from encoders.clip import Clip, Encoded, FramePolicy, Frames, Needs, Transcript, Word
from encoders.digests import without_path
from encoders.options import (
    GENERAL,
    GENERAL_OPTIONS,
    HUB_OPTIONS,
    POOLS,
    Declared,
    Option,
    defaults_of,
    parse_layers,
    typed,
)
from encoders.published import Inputs, Stored
from encoders.views import View

__all__ = [
    "GENERAL_OPTIONS",
    "HUB_OPTIONS",
    "POOLS",
    "Clip",
    "Descriptor",
    "Encoded",
    "Encoder",
    "EncoderSpec",
    "FramePolicy",
    "Frames",
    "Inputs",
    "Modality",
    "Needs",
    "Option",
    "OwnAnswer",
    "PinnedModel",
    "Transcriber",
    "Transcript",
    "View",
    "Weights",
    "Word",
    "preset",
]

Modality = Literal["audio", "text", "video"]


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder before its options are chosen."""

    name: str
    modality: Modality
    summary: str
    implementation: str
    """``module:Class`` of the wrapper."""

    weights: tuple[Weights, ...]
    dim: int
    """Width of one layer."""

    widths: Mapping[str, int] = field(default_factory=dict)
    """Where the option ``kind`` changes the width: its values and their widths."""

    num_layers: int = 1
    """Hidden states on offer, embeddings included; 1 where `layers` has no meaning."""

    hop_s: float | None = None
    """Time from step to step [s]; None where steps are tokens, frames or the whole clip."""

    rate_hz: int | None = None
    frames: FramePolicy | None = None
    dtype: Literal["float16", "float32"] = "float16"
    licence: str
    memory_gb: float
    """Peak resident memory of one wrapper on a CPU, or of device memory on a GPU."""

    seconds_per_clip_second: float = 0.05
    """Rough cost on one CPU core, for the plan before anything is measured."""

    options: Mapping[str, Declared] = field(default_factory=dict)
    """Options beyond the general ones, with defaults and bounds; all of them are in the fingerprint."""

    side: Mapping[str, int] = field(default_factory=dict)
    """Side columns: name -> width (float32 lists of `steps x width`)."""

    answers: Mapping[str, OwnAnswer] = field(default_factory=dict)
    """Side columns in which the model itself says what it takes the clip for."""

    own_weights: bool = False
    """Whether the weights are always the user's own, named by the option ``weights`` or ``preset``."""

    presets: Mapping[str, PinnedModel] = field(default_factory=dict)
    """Values of the option ``preset``, which stands for others and is in no fingerprint itself."""

    extra: str | None = None
    """The extra of pyproject.toml it needs."""

    revision: int = 1
    """Raised where a change of the code gives other values: rows of both never stand in one table."""

    inputs: Inputs | None = None
    """What ``publish=inputs`` gives; None: the model cannot be trained inside a net."""


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """An encoder with its options chosen; small, picklable, known without loading."""

    spec: EncoderSpec
    options: Mapping[str, Option]
    upstream: tuple[str, ...] = ()
    """Fingerprints of what it read besides media: the transcriber's."""

    view: View | None = None
    """The augmented view that it encodes; None: the clip itself."""

    transcribes: bool = False
    """Whether it writes down what is said in clips that have no text."""

    @property
    def base(self) -> "Descriptor":
        """The same encoder of the clips themselves: its model serves all views."""
        return replace(self, view=None)

    @property
    def name(self) -> str:
        """The encoder's name without options."""
        return self.spec.name

    @property
    def typed(self) -> str:
        """The encoder as a shell takes it, with the options that are not as by default."""
        more = self.inputs.options if self.inputs else {}
        known = defaults_of({**GENERAL, **self.spec.options, **more})
        return typed(self.name, self.options, known)

    @property
    def inputs(self) -> Inputs | None:
        """What it publishes in place of states; None: states."""
        return self.spec.inputs if self.options.get("publish") == "inputs" else None

    @property
    def dtype(self) -> Stored:
        """Type of the stored values."""
        return self.spec.dtype if self.inputs is None else self.inputs.dtype

    @property
    def side(self) -> Mapping[str, int]:
        """Side columns of its table and their widths."""
        return self.spec.side if self.inputs is None else self.inputs.side

    @property
    def layers(self) -> tuple[int, ...]:
        """Indices of the hidden states that are kept, in order."""
        return parse_layers(str(self.options["layers"]), self.num_layers, self.spec.name)

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The artefacts to load: the spec's, the model's own replaced by what ``weights`` names."""
        chosen = {f"{key}={value}" for key, value in self.options.items()}
        needed = tuple(each for each in self.spec.weights if not each.when or each.when in chosen)
        uri = str(self.options.get("weights", ""))
        if not uri:
            return tuple(replace(each, of=self.typed) for each in needed)
        known = {each.weights.uri: each.weights for each in self.spec.presets.values()}
        own = Weights(name="model", uri=uri, sha256=None, licence="the user's own", size_mb=0.0)
        chosen_ones = (known.get(uri, own), *(each for each in needed if each.when))
        return tuple(replace(each, of=self.typed) for each in chosen_ones)

    @property
    def layer_dim(self) -> int:
        """Width of one layer; the options ``dim`` and ``kind`` may choose it."""
        own = int(self.options.get("dim", 0))
        return own or self.spec.widths.get(str(self.options.get("kind", "")), self.spec.dim)

    @property
    def num_layers(self) -> int:
        """Hidden states on offer; the option ``depth`` counts the blocks of another model."""
        depth = int(self.options.get("depth", 0))
        return depth + 1 if depth else self.spec.num_layers

    @property
    def width(self) -> int:
        """Width of one step before pooling: the layers side by side."""
        return self.layer_dim * len(self.layers)

    @property
    def dim(self) -> int:
        """Width of one stored step."""
        if self.inputs is not None:
            return self.inputs.width(self.options)
        return self.width * (2 if self.options["pool"] == "mean_std" else 1)

    @property
    def needs(self) -> Needs:
        """What it needs decoded."""
        rates = frozenset() if self.spec.rate_hz is None else frozenset({self.spec.rate_hz})
        policy = self.frame_policy
        frames = frozenset() if policy is None else frozenset({policy})
        return Needs(rates_hz=rates, frames=frames, text=self.spec.modality == "text")

    @property
    def reads_text(self) -> bool:
        """Whether its values depend on the text or its times, and so on a transcriber."""
        return self.spec.modality == "text" or self.options["pool"] == "words"

    @property
    def reads(self) -> tuple[str, ...]:
        """Parts of `cluster.tables.KEY_PARTS` on which its rows depend."""
        if self.transcribes:
            return ("heard",)
        parts = {"audio": ["sound"], "text": ["text", "words"], "video": ["picture"]}
        context = {"past": ["past"], "both": ["around"]}
        return (
            *parts[self.spec.modality],
            *context.get(str(self.options.get("context", "none")), []),
            *(
                ["words"]
                if self.options["pool"] == "words" and self.spec.modality != "text"
                else []
            ),
            *(["heard"] if self.upstream else []),
            *(["split"] if self.view is not None else []),
        )

    @property
    def finds_faces(self) -> bool:
        """Whether it looks for faces, which are not mirrored."""
        return any(weights.name == "detector" for weights in self.weights)

    @property
    def frame_policy(self) -> FramePolicy | None:
        """The spec's frame policy with the options `frames`, `fps`, `policy`, `px` and `most` applied."""
        policy = self.spec.frames
        if policy is None:
            return None
        changes: dict[str, Any] = {}
        if "frames" in self.options:
            changes["count"] = int(self.options["frames"])
        if "fps" in self.options:
            changes["rate_hz"] = float(self.options["fps"])
        if "policy" in self.options:
            changes["kind"] = str(self.options["policy"])
        if "px" in self.options:
            changes["size"] = max(policy.size, int(self.options["px"]))
        chosen = FramePolicy(**{**vars(policy), **changes})
        if "most" not in self.options:
            return chosen
        # Runs of a chosen length are not cut.
        least = 1 if chosen.kind == "fps" else chosen.count
        return replace(chosen, max_frames=max(least, int(self.options["most"])))

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits over all that changes the meaning of the values.

        Weights, layers, frame policy, stored type, options, upstream and revision; never device, compute
        type, batch size or library version.
        """
        meaning = {
            "name": self.spec.name,
            "weights": [[w.name, without_path(w.uri), w.sha256] for w in self.weights],
            "dim": self.dim,
            "layers": self.layers,
            "rate_hz": self.spec.rate_hz,
            "frames": None if self.frame_policy is None else vars(self.frame_policy),
            "dtype": self.dtype,
            "options": {key: value for key, value in self.options.items() if key != "weights"},
            "upstream": list(self.upstream),
        }
        if self.view is not None:
            meaning["view"] = vars(self.view)
        if self.spec.revision > 1:
            meaning["revision"] = self.spec.revision
        text = json.dumps(meaning, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """Folder name below ``features/``."""
        return f"{self.spec.name}-{self.fingerprint}"

    def facts(self) -> dict[str, Any]:
        """What is published as ``descriptor.json`` beside the features."""
        view = None if self.view is None else {**vars(self.view), "of": self.base.folder}
        return {
            "name": self.spec.name,
            "modality": self.spec.modality,
            "dim": self.dim,
            "layers": list(self.layers),
            "layer_dim": self.layer_dim,
            "hop_s": self.spec.hop_s if self.options["pool"] == "none" else None,
            "dtype": self.dtype,
            "options": dict(self.options),
            "fingerprint": self.fingerprint,
            "upstream": list(self.upstream),
            "reads": list(self.reads),
            "weights": [each.facts() for each in self.weights],
            "licence": self.spec.licence,
            "side": dict(self.side),
            **({} if view is None else {"view": view}),
        }


@runtime_checkable
class Encoder(Protocol):
    """The wrapper of one pretrained model; it uses no Ray, no storage and no other encoder."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        """Load from local paths only; `weights` maps each `Weights.name` to its path."""

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One result a clip, in order. Every clip has the modality that the spec names.

        The result of a clip does not depend on its neighbours in the list.
        """


@runtime_checkable
class Transcriber(Protocol):
    """The wrapper of one speech recogniser; constructed like an `Encoder`."""

    def transcribe(self, clips: Sequence[Clip]) -> list[Transcript]:
        """One transcript a clip, in order; empty text where there is no speech."""

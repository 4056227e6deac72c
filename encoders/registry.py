"""From the written name of an encoder to its descriptor, and from that to its loaded model."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ConfigError
from encoders import ENCODERS, TRANSCRIBERS
from encoders.artefacts import hub_parts, package_parts
from encoders.digests import stamped
from encoders.options import GENERAL, GENERAL_OPTIONS, Declared, Option, defaults_of, hint
from encoders.published import PUBLISH
from encoders.spec import Descriptor, Encoder, EncoderSpec, Transcriber

if TYPE_CHECKING:  # it imports torch
    from encoders.branch import EncoderBranch


def describe(text: str, *, upstream: tuple[str, ...] = ()) -> Descriptor:
    """Parse ``name`` or ``name:option=value,option=value``.

    Raises:
        ConfigError: an unknown encoder, option or value, or one that its weights cannot have; what is
            expected and the nearest known name are told.
        WeightsError: weights whose URI has another form, or that have changed since the text was written.
    """
    name, _, rest = text.partition(":")
    spec, where = find(name), f"encoder {text!r}"
    written = _written(where, rest)
    pinned = _of_preset(where, spec, written)
    known = declared(spec, written.get("publish"))
    options = defaults_of(known)
    options.update({key: value for key, value in pinned.items() if key in options})
    for key, value in written.items():
        if key == "preset" and spec.presets:
            continue
        if key not in known:
            raise ConfigError(f"{where}: {hint(key, known, 'option')}")
        if value is None:
            raise ConfigError(f"{where}: {key} has no value; type {key}={known[key].default}")
        options[key] = known[key].read(value, key, where)
    _check_published(where, spec, options)
    if not options.get("loud"):  # tables that are there keep their fingerprint so
        options.pop("loud", None)
    _check_weights(where, spec, options)
    _check_pinned(where, spec, options)
    options["weights"] = stamped(str(options["weights"]))
    descriptor = Descriptor(
        spec=spec, options=options, upstream=upstream, transcribes=name in TRANSCRIBERS
    )
    _ = descriptor.layers  # refuses a bad index now, not on a worker
    return descriptor


def declared(spec: EncoderSpec, publish: object) -> dict[str, Declared]:
    """Options of an encoder and what they may be, which what it publishes may change."""
    more = spec.inputs.options if spec.inputs and publish == "inputs" else {}
    return {"publish": PUBLISH, **GENERAL, **spec.options, **more}


def defaults(spec: EncoderSpec, publish: object) -> dict[str, Option]:
    """Options of an encoder that stand in its descriptor, and their defaults."""
    known = defaults_of(declared(spec, publish))
    del known["publish"]
    return known


def find(name: str, registry: Mapping[str, str] | None = None) -> EncoderSpec:
    """The spec of a registered encoder or transcriber, without loading its model.

    Raises:
        ConfigError: no such name; the nearest known one is named.
    """
    known = {**TRANSCRIBERS, **ENCODERS} if registry is None else registry
    if name not in known:
        raise ConfigError(hint(name, known, "encoder"))
    spec = importlib.import_module(known[name]).SPEC
    assert isinstance(spec, EncoderSpec)
    return spec


def load(
    descriptor: Descriptor, weights: Mapping[str, Path], *, device: str = "cpu", threads: int = 1
) -> Encoder:
    """Construct the wrapper of an encoder from local weights."""
    wrapper: Encoder = _construct(descriptor, weights, device, threads)
    return wrapper


def load_branch(descriptor: Descriptor, weights: Mapping[str, Path]) -> "EncoderBranch":
    """Construct the model of an encoder that publishes its inputs, for a net to train."""
    assert descriptor.inputs is not None
    branch: EncoderBranch = _class_of(descriptor.inputs.branch)(descriptor, weights)
    return branch


def load_transcriber(
    descriptor: Descriptor, weights: Mapping[str, Path], *, device: str = "cpu", threads: int = 1
) -> Transcriber:
    """Construct the wrapper of a transcriber from local weights."""
    wrapper: Transcriber = _construct(descriptor, weights, device, threads)
    return wrapper


def _construct(
    descriptor: Descriptor, weights: Mapping[str, Path], device: str, threads: int
) -> Any:
    inputs = descriptor.inputs
    name = descriptor.spec.implementation if inputs is None else inputs.publisher
    return _class_of(name)(descriptor, weights, device=device, threads=threads)


def _class_of(name: str) -> Any:
    """The class that ``module:Class`` names."""
    module, _, kind = name.partition(":")
    return getattr(importlib.import_module(module), kind)


def _written(where: str, rest: str) -> dict[str, str | None]:
    """The options as they were typed; None: a name without a value."""
    written: dict[str, str | None] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if key in written:
            raise ConfigError(
                f"{where}: expected {key} once, came {written[key]} and {value}; leave one out"
            )
        written[key] = value if equals else None
    return written


def _check_published(where: str, spec: EncoderSpec, options: dict[str, Option]) -> None:
    """Refuse a publication that makes no sense; the default leaves the options."""
    if options["publish"] == PUBLISH.default:
        del options["publish"]
        return
    if spec.inputs is None:
        others = [n for n in ENCODERS if (s := find(n)).inputs and s.modality == spec.modality]
        raise ConfigError(
            f"{where}: {spec.name} has no inputs that a net could train on; "
            f"type one of these {spec.modality} encoders: {', '.join(others)}"
        )
    reduced = [name for name in ("layers", "pool") if options[name] != GENERAL_OPTIONS[name]]
    if reduced:
        raise ConfigError(
            f"{where}: inputs are published as they are; leave out {' and '.join(reduced)}"
        )


def _of_preset(
    where: str, spec: EncoderSpec, written: Mapping[str, str | None]
) -> dict[str, Option]:
    """What the option ``preset`` stands for; what is written beside it goes before."""
    if "preset" not in written or not spec.presets:
        return {}
    name = written["preset"] or ""
    if name not in spec.presets:
        raise ConfigError(f"{where}: {hint(name, spec.presets, 'preset')}")
    found = spec.presets[name]
    more = found.inputs if written.get("publish") == "inputs" else {}
    return {**found.options, **more, "weights": found.weights.uri}


def _check_weights(where: str, spec: EncoderSpec, options: Mapping[str, Option]) -> None:
    uri = str(options["weights"])
    takes = bool(spec.weights) or spec.own_weights
    if uri and not (takes and uri.startswith(("file:///", "hf://", "package://"))):
        raise ConfigError(
            f"{where}: weights={uri!r}; expected hf://owner/name@revision, "
            "package://dist==version/path/inside or file:///folder, of an encoder that has weights"
        )
    if uri.startswith("hf://"):
        hub_parts(uri)  # refuses what no store finds
    if uri.startswith("package://"):
        package_parts(uri)
    if spec.own_weights and not uri:
        raise ConfigError(
            f"{where}: it is pinned to no weights; "
            f"type {spec.name}:weights=file:///path or hf://owner/name@revision"
            + (f", or preset={'|'.join(sorted(spec.presets))}" if spec.presets else "")
        )
    if not spec.dim and "dim" in options and not (options["dim"] and options["depth"]):
        raise ConfigError(f"{where}: type dim=WIDTH,depth=BLOCKS as in the model's config.json")


def _check_pinned(where: str, spec: EncoderSpec, options: Mapping[str, Option]) -> None:
    """Refuse sizes that pinned weights, or those of a preset, do not have.

    Raises:
        ConfigError: with the size that they have; a worker would find it out once they are loaded.
    """
    uri = str(options["weights"])
    presets = [each for each in spec.presets.values() if each.weights.uri == uri]
    sizes: dict[str, set[Option]]
    if presets:
        had = {**presets[0].options, **presets[0].inputs}
        sizes = {name: {had[name]} for name in ("dim", "depth", "mels") if name in had}
    elif not uri:
        count = spec.frames.count if spec.frames else 0
        sizes = {"dim": {spec.dim, 0}, "depth": {spec.num_layers - 1, 0}, "frames": {count}}
    else:
        return
    for name, known in sizes.items():
        if name in options and options[name] not in known:
            raise ConfigError(
                f"{where}: {name}={options[name]}, and the pinned weights have {max(known)}; type "
                f"{name}={max(known)}, or weights= of a model that has {options[name]}"
            )
    runs = presets and presets[0].options.get("policy", "fps") != "fps"
    if runs and options.get("policy") == "fps":
        raise ConfigError(
            f"{where}: the model reads runs of frames; type policy=even or policy=windows"
        )

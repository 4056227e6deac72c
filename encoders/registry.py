"""From the written name of an encoder to its descriptor, and from that to its loaded model."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ConfigError
from encoders import ENCODERS, TRANSCRIBERS
from encoders.digests import stamped
from encoders.options import Option, cast, hint
from encoders.published import PUBLISHED
from encoders.spec import (
    GENERAL_OPTIONS,
    POOLS,
    Descriptor,
    Encoder,
    EncoderSpec,
    Transcriber,
)

if TYPE_CHECKING:  # it imports torch
    from encoders.branch import EncoderBranch


def describe(text: str, *, upstream: tuple[str, ...] = ()) -> Descriptor:
    """Parse ``name`` or ``name:option=value,option=value``.

    Raises:
        ConfigError: an unknown encoder, option or value; the nearest known one is named.
        WeightsError: weights of the user's own have changed since the text was written.
    """
    name, _, rest = text.partition(":")
    spec = find(name)
    items = [item.partition("=") for item in rest.split(",") if item]
    chosen = [value for key, _, value in items if key == "publish"]
    options = {"publish": PUBLISHED[0], **defaults(spec, chosen[-1] if chosen else None)}
    named = [value for key, _, value in items if key == "preset"]
    pinned = _of_preset(text, spec, named, chosen[-1:])
    options.update({key: value for key, value in pinned.items() if key in options})
    for key, equals, value in items:
        if key == "preset" and spec.presets:
            continue
        if not equals or key not in options:
            raise ConfigError(f"encoder {text!r}: {hint(key, options, 'option')}")
        options[key] = cast(value, options[key], f"encoder {text!r}, option {key}")
    if options["pool"] not in POOLS:
        raise ConfigError(f"encoder {text!r}: pool is one of {', '.join(POOLS)}")
    if spec.widths and options["kind"] not in spec.widths:
        raise ConfigError(f"encoder {text!r}: kind is one of {', '.join(spec.widths)}")
    _check_published(text, spec, options)
    _check_loud(text, options)
    _check_weights(text, spec, options)
    options["weights"] = stamped(str(options["weights"]))
    descriptor = Descriptor(
        spec=spec, options=options, upstream=upstream, transcribes=name in TRANSCRIBERS
    )
    _ = descriptor.layers  # refuses a bad index now, not on a worker
    return descriptor


def defaults(spec: EncoderSpec, publish: object) -> dict[str, Option]:
    """Options of an encoder and their defaults, which what it publishes may change."""
    more = spec.inputs.options if spec.inputs and publish == "inputs" else {}
    return {**GENERAL_OPTIONS, **spec.options, **more}


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


def _check_published(text: str, spec: EncoderSpec, options: dict[str, Option]) -> None:
    """Refuse a publication that makes no sense; the default leaves the options."""
    chosen = options["publish"]
    if chosen not in PUBLISHED:
        raise ConfigError(f"encoder {text!r}: publish is one of {', '.join(PUBLISHED)}")
    if chosen == PUBLISHED[0]:
        del options["publish"]
        return
    if spec.inputs is None:
        others = [n for n in ENCODERS if (s := find(n)).inputs and s.modality == spec.modality]
        raise ConfigError(
            f"encoder {text!r}: {spec.name} has no inputs that a net could train on; "
            f"type one of these {spec.modality} encoders: {', '.join(others)}"
        )
    reduced = [name for name in ("layers", "pool") if options[name] != GENERAL_OPTIONS[name]]
    if reduced:
        raise ConfigError(
            f"encoder {text!r}: inputs are published as they are; leave out {' and '.join(reduced)}"
        )
    for name in spec.inputs.options:
        if isinstance(options[name], int) and int(options[name]) < 1:
            raise ConfigError(
                f"encoder {text!r}: {name}={options[name]}; expected 1 or more, by default "
                f"{spec.inputs.options[name]}"
            )


def _check_loud(text: str, options: dict[str, Option]) -> None:
    """Refuse a level that no step reaches; the default leaves the options.

    Tables that are there keep their fingerprint so.
    """
    loud_db = int(options.get("loud", 0))
    if loud_db < 0:
        raise ConfigError(
            f"encoder {text!r}: loud={loud_db}; expected the decibels below the loudest step, such as 30"
        )
    if not loud_db:
        options.pop("loud", None)


def _of_preset(
    text: str, spec: EncoderSpec, named: Sequence[str], publish: Sequence[str]
) -> dict[str, Option]:
    """What the option ``preset`` stands for; what is written beside it goes before."""
    if not (named and spec.presets):
        return {}
    if len(named) > 1:
        raise ConfigError(f"encoder {text!r}: preset once, came {', '.join(named)}")
    if named[0] not in spec.presets:
        raise ConfigError(f"encoder {text!r}: {hint(named[0], spec.presets, 'preset')}")
    found = spec.presets[named[0]]
    more = found.inputs if list(publish) == ["inputs"] else {}
    return {**found.options, **more, "weights": found.weights.uri}


def _check_weights(text: str, spec: EncoderSpec, options: Mapping[str, Option]) -> None:
    uri = str(options["weights"])
    takes = bool(spec.weights) or spec.own_weights
    if uri and not (takes and uri.startswith(("file:///", "hf://", "package://"))):
        raise ConfigError(
            f"encoder {text!r}: weights={uri!r}; expected hf://owner/name@revision, "
            "package://dist==version/path/inside or file:///folder, of an encoder that has weights"
        )
    if spec.own_weights and not uri:
        raise ConfigError(
            f"encoder {text!r}: it is pinned to no weights; "
            f"type {spec.name}:weights=file:///path or hf://owner/name@revision"
            + (f", or preset={'|'.join(sorted(spec.presets))}" if spec.presets else "")
        )
    if not spec.dim and "dim" in options and not (options["dim"] and options["depth"]):
        raise ConfigError(
            f"encoder {text!r}: type dim=WIDTH,depth=BLOCKS as in the model's config.json"
        )

"""From the written name of an encoder to its descriptor, and from that to its loaded model."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import ConfigError
from encoders import ENCODERS, TRANSCRIBERS
from encoders.digests import stamped
from encoders.options import Option, cast, hint
from encoders.spec import (
    GENERAL_OPTIONS,
    POOLS,
    Descriptor,
    Encoder,
    EncoderSpec,
    Transcriber,
)


def describe(text: str, *, upstream: tuple[str, ...] = ()) -> Descriptor:
    """Parse ``name`` or ``name:option=value,option=value``.

    Raises:
        ConfigError: an unknown encoder, option or value; the nearest known one is named.
        WeightsError: weights of the user's own have changed since the text was written.
    """
    name, _, rest = text.partition(":")
    spec = find(name)
    options = {**GENERAL_OPTIONS, **spec.options}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals or key not in options:
            raise ConfigError(f"encoder {text!r}: {hint(key, options, 'option')}")
        options[key] = cast(value, options[key], f"encoder {text!r}, option {key}")
    if options["pool"] not in POOLS:
        raise ConfigError(f"encoder {text!r}: pool is one of {', '.join(POOLS)}")
    if spec.widths and options["kind"] not in spec.widths:
        raise ConfigError(f"encoder {text!r}: kind is one of {', '.join(spec.widths)}")
    _check_weights(text, spec, options)
    options["weights"] = stamped(str(options["weights"]))
    descriptor = Descriptor(
        spec=spec, options=options, upstream=upstream, transcribes=name in TRANSCRIBERS
    )
    _ = descriptor.layers  # refuses a bad index now, not on a worker
    return descriptor


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


def load_transcriber(
    descriptor: Descriptor, weights: Mapping[str, Path], *, device: str = "cpu", threads: int = 1
) -> Transcriber:
    """Construct the wrapper of a transcriber from local weights."""
    wrapper: Transcriber = _construct(descriptor, weights, device, threads)
    return wrapper


def _construct(
    descriptor: Descriptor, weights: Mapping[str, Path], device: str, threads: int
) -> Any:
    module, _, kind = descriptor.spec.implementation.partition(":")
    wrapper = getattr(importlib.import_module(module), kind)
    return wrapper(descriptor, weights, device=device, threads=threads)


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
        )
    if not spec.dim and "dim" in options and not (options["dim"] and options["depth"]):
        raise ConfigError(
            f"encoder {text!r}: type dim=WIDTH,depth=BLOCKS as in the model's config.json"
        )

"""Pinned artefacts of encoders, and presets: one with its options. `encoders.spec` exports them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.errors import WeightsError
from encoders.options import Option


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One pinned artefact: a file, or a folder of a model hub."""

    name: str
    """Key under which the wrapper receives the local path."""

    uri: str
    """``hf://owner/name@revision``, ``package://dist==version/path/inside`` or ``file:///...``."""

    sha256: str | None
    """Hash of the file (package, file). None for a hub folder: the revision pins it."""

    licence: str
    size_mb: float
    when: str = ""
    """``option=value`` under which alone it is needed; empty: always."""

    of: str = field(default="NAME", compare=False)
    """The encoder that needs it, as it is typed."""

    def facts(self) -> dict[str, object]:
        """What is published of it: how it was asked for stands beside it."""
        return {name: value for name, value in vars(self).items() if name != "of"}


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """Pinned weights of one model for an encoder that takes any, and the options that they need."""

    weights: Weights
    options: Mapping[str, Option]
    inputs: Mapping[str, Option] = field(default_factory=dict)
    """Those that it needs with ``publish=inputs`` alone."""


def preset(
    uri: str,
    *,
    licence: str,
    size_mb: float,
    inputs: Mapping[str, Option] | None = None,
    **options: Option,
) -> PinnedModel:
    """A preset of a model of the hub.

    Args:
        uri: ``hf://owner/name@revision``.
        licence: of the weights.
        size_mb: of the weights [MB].
        inputs: values of options with ``publish=inputs`` alone.
        options: values of the encoder's options.
    """
    weights = Weights(name="model", uri=uri, sha256=None, licence=licence, size_mb=size_mb)
    return PinnedModel(weights=weights, options=options, inputs=inputs or {})


def package_parts(uri: str) -> tuple[str, str]:
    """Distribution and path inside of a ``package://`` URI.

    Raises:
        WeightsError: it has another form.
    """
    match = re.fullmatch(r"package://([A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+)/(.+)", uri)
    if match is None or ".." in match[2].split("/"):
        raise WeightsError(f"weights {uri!r}; expected package://dist==version/path/inside")
    return match[1], match[2]


def hub_parts(uri: str) -> tuple[str, str]:
    """Name and revision of a ``hf://`` URI.

    Raises:
        WeightsError: it has another form.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)@([\w.-]+)", uri)
    if match is None:
        raise WeightsError(f"weights {uri!r}; expected hf://owner/name@revision")
    return match[1], match[2]

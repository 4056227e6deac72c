"""Presets whose features are made here: the encoders of each modality, and the steps that run them."""

from collections.abc import Mapping, Sequence

from encoders.registry import describe
from jobs import encode
from jobs.preparing.adapter import Preparation, files_below
from jobs.reproducing.preset import ReproduceConfig, Step


def chosen(config: ReproduceConfig, defaults: Mapping[str, str]) -> dict[str, str]:
    """Modality -> encoder: those that were named, else the preset's."""
    if not config.encoders:
        return dict(defaults)
    return {describe(text).spec.modality: text for text in config.encoders}


def files_of(data: str, suffix: str) -> list[str]:
    """Files of a suffix below a folder."""
    return [file for file in files_below(data) if file.lower().endswith(suffix)]


def steps(
    config: ReproduceConfig, name: str, prepared: Preparation, encoders: Sequence[str]
) -> list[Step]:
    """Prepare a dataset, then encode its clips."""
    encoding = encode.Config(
        root=config.root,
        encoders=tuple(encoders),
        store=config.store,
        tracking=config.tracking,
        session=config.session,
    )
    return [
        Step(command=f"prepare {name}", config=prepared),
        Step(command="encode", config=encoding),
    ]

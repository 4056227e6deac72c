r"""A text as one vector by an embedding language model of the hub, or of a folder.

`hub_embedding:preset=qwen3_0_6b`, or `hub_embedding:weights=hf://owner/name@revision,dim=1024,depth=28`; the
numbers stand in its config.json. `pooling` is the state of the last token (`last`: Qwen3 Embedding, E5
Mistral), of the first (`first`: BGE) or the mean over all, the prompt's included (`mean`: E5, GTE). `prompt`
stands before each text; `\n` in it is a new line, a comma cannot be in it. The vector is not brought to
length 1. Zhang et al., 2025, https://arxiv.org/abs/2506.05176.
"""

from encoders.options import Number, OneOf, Words
from encoders.spec import HUB_OPTIONS, EncoderSpec, Inputs, preset

PRESETS = {
    "qwen3_0_6b": preset(
        "hf://Qwen/Qwen3-Embedding-0.6B@97b0c614be4d77ee51c0cef4e5f07c00f9eb65b3",
        licence="Apache-2.0",
        size_mb=1192.0,
        dim=1024,
        depth=28,
    ),
}

SPEC = EncoderSpec(
    name="hub_embedding",
    modality="text",
    summary="one vector a text by an embedding language model, by preset= or weights=, dim= and depth=",
    implementation="encoders.text._embedding:EmbeddingModel",
    weights=(),
    own_weights=True,
    dim=0,
    licence="that of the weights",
    memory_gb=4.0,
    seconds_per_clip_second=0.1,
    options={
        "pooling": OneOf("last", ("first", "last", "mean")),
        "prompt": Words(""),
        "max_tokens": Number(8192, 1, 1_000_000),
        **HUB_OPTIONS,
    },
    presets=PRESETS,
    inputs=Inputs(
        dim=1,
        dtype="float32",
        publisher="encoders.text._embedding_inputs:EmbeddingTokenPublisher",
        branch="encoders.text._embedding_inputs:EmbeddingBranch",
    ),
)

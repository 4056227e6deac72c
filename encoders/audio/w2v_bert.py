"""w2v-BERT 2.0: 24 Conformer blocks, 1024 wide, 50 Hz, pretrained on 4.5 million hours in 143 languages.

It reads log-mel frames, not samples. Seamless Communication, 2023, https://arxiv.org/abs/2312.05187.
"""

from encoders.spec import HUB_OPTIONS, EncoderSpec, Inputs, Weights

SPEC = EncoderSpec(
    name="w2v_bert",
    modality="audio",
    summary="w2v-BERT 2.0 states at 50 Hz (143 languages)",
    implementation="encoders.audio._w2v_bert:W2vBert",
    weights=(
        Weights(
            name="model",
            uri="hf://facebook/w2v-bert-2.0@da985ba0987f70aaeb84a80f2851cfac8c697a7b",
            sha256=None,
            licence="MIT",
            size_mb=2322.0,
        ),
    ),
    dim=1024,
    num_layers=25,
    hop_s=0.02,
    rate_hz=16000,
    licence="MIT",
    memory_gb=4.0,
    seconds_per_clip_second=0.5,
    options=HUB_OPTIONS,
    inputs=Inputs(
        dim=160,
        dtype="float16",
        publisher="encoders.audio._w2v_bert_inputs:FramePublisher",
        branch="encoders.audio._w2v_bert_inputs:W2vBertBranch",
    ),
)

"""BERT base, uncased English: 12 blocks, 768 wide. Devlin et al., 2018, https://arxiv.org/abs/1810.04805."""

from encoders.text import hub_spec

SPEC = hub_spec(
    "bert_base",
    "BERT base token states (uncased English)",
    "hf://google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594",
    dim=768,
    blocks=12,
    licence="Apache-2.0",
    size_mb=440.0,
)

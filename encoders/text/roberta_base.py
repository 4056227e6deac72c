"""RoBERTa base, English: 12 blocks, 768 wide. Liu et al., 2019, https://arxiv.org/abs/1907.11692."""

from encoders.text import hub_spec

SPEC = hub_spec(
    "roberta_base",
    "RoBERTa base token states (English)",
    "hf://FacebookAI/roberta-base@e2da8e2f811d1448a5b465c236feacd80ffbac7b",
    dim=768,
    blocks=12,
    licence="MIT",
    size_mb=499.0,
)

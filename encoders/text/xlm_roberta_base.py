"""XLM-RoBERTa base, 100 languages: 12 blocks, 768 wide. Conneau et al., 2019, https://arxiv.org/abs/1911.02116."""

from encoders.text import hub_spec

SPEC = hub_spec(
    "xlm_roberta_base",
    "XLM-RoBERTa base token states (100 languages)",
    "hf://FacebookAI/xlm-roberta-base@e73636d4f797dec63c3081bb6ed5c7b0bb3f2089",
    dim=768,
    blocks=12,
    licence="MIT",
    size_mb=1120.0,
)

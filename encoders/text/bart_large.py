"""The encoder of BART large, English: 12 blocks, 1024 wide. Lewis et al., 2019, https://arxiv.org/abs/1910.13461."""

from encoders.text import hub_spec

SPEC = hub_spec(
    "bart_large",
    "BART large encoder token states (English)",
    "hf://facebook/bart-large@cb48c1365bd826bd521f650dc2e0940aee54720c",
    dim=1024,
    blocks=12,
    licence="Apache-2.0",
    size_mb=1020.0,
)

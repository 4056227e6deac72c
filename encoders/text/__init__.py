"""Text encoders: hidden states of the tokens of what was said."""

from collections.abc import Mapping

from encoders.spec import Option

OPTIONS: Mapping[str, Option] = {"context": "none"}
"""context: ``none``, ``past`` or ``both`` neighbouring utterances are read along (``both`` reads the
future)."""

SIDE: Mapping[str, int] = {"word": 1}
"""Index of the blank-separated word a token belongs to; -1 for special tokens."""

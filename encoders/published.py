"""What a model is given, published in place of its states."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from encoders.options import Declared, OneOf, Option

Stored = Literal["float16", "float32", "uint8"]
"""Types of stored values."""

PUBLISHED = ("states", "inputs")
"""Values of the option ``publish`` of every encoder. ``states`` is the default and stands in no descriptor,
so that tables keep the fingerprint they have."""

PUBLISH = OneOf(PUBLISHED[0], PUBLISHED)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a model is given, published in place of its states: a net then owns the model and trains it."""

    dim: int
    """Width of a step, or what `times` multiplies."""

    dtype: Stored
    """Token ids are float32, which holds whole numbers below 2^24 exactly; the bytes of pictures uint8."""

    publisher: str
    """``module:Class`` of an `Encoder` that gives them; it keeps no model."""

    branch: str
    """``module:Class`` of an `encoders.branch.EncoderBranch` that reads them."""

    side: Mapping[str, int] = field(default_factory=dict)  # columns beside them, and their widths

    options: Mapping[str, Declared] = field(default_factory=dict)
    """Options that are there with ``publish=inputs`` alone, or whose default is another one then."""

    times: tuple[str, ...] = ()
    """Options that the width is multiplied by, each as often as it stands here."""

    stages: Mapping[str, int] = field(default_factory=dict)
    """Number of blocks whose states are of unlike shapes, by the option ``kind`` ("" where it has none);
    empty: all hidden states of the spec are alike."""

    convolutions: int = 0
    """Blocks from below without a linear layer, which a low-rank update needs."""

    def width(self, options: Mapping[str, Option]) -> int:
        """Width of a step with some options."""
        return self.dim * math.prod(int(options[name]) for name in self.times)

"""The zoo: one paper a file.

Every net is ``Net(config, *, dims, outputs)`` with ``forward(batch) -> Output``; `dims` maps each modality
to its feature width, `outputs` each task to its number of logits. `axis` says whether `time` in its batches
runs inside a clip or over the utterances of a dialogue.
"""

import importlib
from typing import Any

from fusion.batch import Axis

NETS: dict[str, str] = {}
"""Net name (= file name) -> class name in that file."""


def net_class(name: str) -> Any:
    """The class of a net; its `Config` and `axis` are attributes of it.

    Raises:
        ValueError: no such net.
    """
    if name not in NETS:
        raise ValueError(f"there is no net {name!r}; known: {', '.join(NETS)}")
    return getattr(importlib.import_module(f"fusion.nets.{name}"), NETS[name])


def net_axis(name: str) -> Axis:
    """Which sequence axis a net takes."""
    axis: Axis = net_class(name).axis
    return axis

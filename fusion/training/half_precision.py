"""Whether half precision pays on a device: without instructions for it, it costs several times more."""

import torch
from torch.utils.benchmark import Timer

ROWS, WIDTH = 512, 384
"""Of the measured product, about that of a small transformer; milliseconds of one core."""

SLOWER = 1.5
"""Times as slow as single precision from which on it is said."""


def slowdown(precision: str, device: torch.device) -> float:
    """How many times as long as single precision a product of matrices takes, measured.

    Args:
        precision: ``bfloat16`` or ``float16``.
        device: that is measured.
    """
    half, single = (_seconds(getattr(torch, kind), device) for kind in (precision, "float32"))
    return half / single


def advice(precision: str, device: torch.device) -> str | None:
    """What to tell of a precision that was asked for; None: it pays, or may."""
    if precision == "float32" or (times := slowdown(precision, device)) < SLOWER:
        return None
    return (
        f"{precision} takes {times:.1f} times as long as single precision on this {device.type.upper()}, "
        "which has no instructions for it; --precision float32 is faster"
    )


def _seconds(kind: torch.dtype, device: torch.device) -> float:
    """Of one product [s], the shortest of several."""
    values = torch.randn(ROWS, WIDTH, device=device).to(kind)
    weight = torch.randn(4 * WIDTH, WIDTH, device=device).to(kind)
    timer = Timer(
        "linear(values, weight)",
        globals={"linear": torch.nn.functional.linear, "values": values, "weight": weight},
        num_threads=torch.get_num_threads(),
    )
    timer.timeit(2)
    return min(timer.timeit(2).mean for _ in range(5))

"""Losses, one file each.

A loss is ``loss(logits, target, *, mask, weights, ...) -> (weighted sum, total weight)``: sums, so that a
distributed run can divide by the all-reduced total weight.
"""

LOSSES: dict[str, str] = {}
"""Loss name (= file name) -> one-line description."""

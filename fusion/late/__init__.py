"""Late fusion: one rule a file.

Every rule file holds one class ``Rule`` with a frozen ``Config`` and two halves:
``fit(config, members, target, *, weights=None) -> Rule`` on rows that no member trained on, and
``rule.combine(members) -> scores [row outputs]`` in the same kind of score as the members'
(log-probabilities, label logits or values). Absent members renormalise; a row without any member comes out
as NaN. ``rule.state() -> dict`` and ``Rule.from_state(dict)`` carry plain JSON values into a bundle;
``rule.member_weights() -> {name: share}`` is what the report draws.
"""

import importlib
from collections.abc import Mapping
from typing import Any

LATE: dict[str, str] = {
    "attention": "a small gating net on scores and confidences",
    "caruana": "greedy selection with replacement by a metric",
    "confidence": "rows weigh their members by entropy, margin or largest probability",
    "log_pool": "softmax of the weighted sum of log-probabilities, weights by NLL",
    "mean": "mean of probabilities or values, equal or given weights",
    "mixture": "simple rules mixed by a bootstrap over groups: no part has to be right (the default)",
    "per_class": "a log pool with one weight a member and class",
    "product": "product of experts over the prior",
    "stacking": "logistic or ridge regression on the members' scores",
    "vote": "hard, weighted or unanimous vote",
    "weighted": "weights on the simplex by a metric, linear or in log space",
}
"""Rule name (= file name) -> one-line description."""


def rule_class(name: str) -> Any:
    """The class of a rule.

    Raises:
        ValueError: no such rule.
    """
    if name not in LATE:
        raise ValueError(f"there is no late-fusion rule {name!r}; known: {', '.join(LATE)}")
    return importlib.import_module(f"fusion.late.{name}").Rule


def rule_from_state(state: Mapping[str, Any]) -> Any:
    """The rule, of whichever class, that wrote a state.

    Raises:
        ValueError: no such rule.
    """
    return rule_class(state["rule"]).from_state(state)

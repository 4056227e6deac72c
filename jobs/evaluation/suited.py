"""Whether what a fusion was asked for suits the kind of its task; asked before anything is fitted."""

import dataclasses
from collections.abc import Mapping

from cluster.errors import ConfigError
from cluster.settings import nearest
from fusion.late import LATE, rule_class
from fusion.metrics import METRICS, metrics_for
from fusion.tasks import Task


def check_fusion(
    name: str,
    task: Task,
    *,
    rule: str,
    options: Mapping[str, object],
    calibrations: Mapping[str, str | None],
    decide: str | None,
) -> None:
    """Refuse a rule, a calibration or a decision that has no meaning for the kind of the task.

    Args:
        name: of the task.
        task: that is fused.
        rule: key of LATE, or `auto`.
        options: of the rule.
        calibrations: flag -> what was typed.
        decide: metric that labels are decided for.

    Raises:
        ConfigError: naming what suits.
    """
    what = f"the task {name!r} is {task.kind}"
    if rule != "auto":
        if task.kind not in rule_class(rule).kinds:
            suits = [each for each in LATE if task.kind in rule_class(each).kinds]
            raise ConfigError(
                f"--rule {rule} is for {' or '.join(rule_class(rule).kinds)}, and {what}: type --rule "
                f"{', '.join(['auto', *suits])}"
            )
        known = [field.name for field in dataclasses.fields(rule_class(rule).Config)]
        for option in options:
            if option not in known:
                hint = nearest(option, known) if known else "it has none"
                raise ConfigError(f"--rule-options {option}: {rule} has no such option; {hint}")
    elif options:
        raise ConfigError(
            f"--rule-options {' '.join(options)}: they belong to a rule, and --rule auto tries a dozen: "
            "name one, or leave them out"
        )
    for flag, method in calibrations.items():
        if task.kind == "regression" and method not in (None, "none"):
            raise ConfigError(
                f"{flag} {method} takes probabilities, and {what}: values have none; leave it out"
            )
    if decide is None:
        return
    if task.kind == "regression":
        raise ConfigError(
            f"--decide {decide} chooses labels, and {what}: values need no decision; leave it out"
        )
    judging = metrics_for(task.kind, of_labels=True)
    if decide not in judging:
        hint = f"known: {', '.join(judging)}" if decide in METRICS else nearest(decide, judging)
        raise ConfigError(
            f"--decide {decide} judges no labels of {name!r}, a task of {task.kind}; {hint}"
        )

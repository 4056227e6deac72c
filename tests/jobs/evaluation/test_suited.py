"""What has no meaning for a task's kind is refused before a fusion begins."""

import pytest

from fusion.late import LATE, rule_class
from fusion.metrics import METRICS, metric
from jobs.__main__ import run as affuse
from jobs.evaluation.cross_fitting import every_candidate

KINDS = {"emotion": "classification", "arousal": "regression"}


def refused(root: str, task: str, capsys, *more: str) -> str:
    """What the command says; it has no member to read, which comes after the checks."""
    start = ["ensemble", "--root", root, "--imported", f"{root}/none.csv", "--task", task]
    assert affuse([*start, "--no-tracking", *more]) in (1, 2)
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    return line


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("rule", list(LATE))
def test_a_rule_of_another_kind_is_refused_with_those_that_suit(root, task, rule, capsys):
    line = refused(root, task, capsys, "--rule", rule)
    if KINDS[task] in rule_class(rule).kinds:
        assert "none.csv" in line
        return
    assert f"the task '{task}' is {KINDS[task]}" in line
    told = line.partition("type --rule ")[2].split(", ")
    assert told == ["auto", *(name for name in LATE if KINDS[task] in rule_class(name).kinds)]


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("flag", ["--calibration", "--member-calibration"])
@pytest.mark.parametrize("method", ["none", "temperature", "bias", "vector"])
def test_values_have_no_confidence_to_calibrate(root, task, flag, method, capsys):
    line = refused(root, task, capsys, flag, method)
    suits = KINDS[task] == "classification" or method == "none"
    assert ("none.csv" if suits else f"{flag} {method} takes probabilities") in line


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("name", [*METRICS, "makro_f1"])
def test_labels_are_decided_for_a_metric_of_labels_of_the_kind(root, task, name, capsys):
    line = refused(root, task, capsys, "--decide", name)
    if KINDS[task] == "regression":
        assert "values need no decision" in line
    elif name == "makro_f1":
        assert "did you mean 'macro_f1'?" in line
    elif metric(name).kind == KINDS[task] and not metric(name).needs_probabilities:
        assert "none.csv" in line
    else:
        assert "known: accuracy, cohen_kappa, macro_f1, mcc, uar, weighted_f1" in line


def test_an_option_that_the_rule_has_not_is_named(root, capsys):
    line = refused(root, "emotion", capsys, "--rule", "log_pool", "--rule-options", "shrinking=2")
    assert "--rule-options shrinking: log_pool has no such option" in line
    line = refused(root, "emotion", capsys, "--rule", "auto", "--rule-options", "shrinkage=2")
    assert "they belong to a rule" in line


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_auto_tries_what_has_a_meaning_and_nothing_twice(kind):
    tried = every_candidate(kind, ["a", "b", "c"])
    assert all(kind in rule_class(candidate.rule).kinds for candidate in tried)
    assert any(each.member_calibration != "none" for each in tried) == (kind != "regression")
    assert len({candidate.key for candidate in tried}) == len(tried)

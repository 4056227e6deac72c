"""Results that were written before a figure was known are shown with a dash for it."""

import math

import pytest

from fusion.metrics import FIGURES
from fusion.tasks import Task
from jobs.evaluation.results_table import from_facts, show


@pytest.mark.parametrize("kind", FIGURES)
def test_a_figure_that_was_not_known_then_is_undefined(kind, capsys):
    first, *later = FIGURES[kind]
    interval = {"value": 0.5, "low": 0.4, "high": 0.6, "level": 0.95, "groups": 12}
    facts = {
        "kind": kind,
        "num_rows": 30,
        "num_groups": 12,
        "rows": [{"name": "one", "role": "member", "figures": {first: interval}}],
        "best_single": "one",
        "gain_over_single": None,
        "gain_over_plain": None,
    }
    results = from_facts(facts)
    (row,) = results.rows
    assert row.figures[first].value == 0.5
    assert all(math.isnan(row.figures[name].value) for name in later)
    show(results, Task(kind=kind, classes=("a", "b")))
    assert "0.500" in capsys.readouterr().out

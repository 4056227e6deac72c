"""Learning curves are of nets that were trained for several epochs; one that was solved has none."""

from types import SimpleNamespace

import pytest

from jobs.reporting import plots
from jobs.reporting.run_history import Curve
from jobs.reporting.sections import training

EPOCHS = [
    {"epoch": epoch, "train/loss": 1 / epoch, "valid/loss": 1.0, "valid/emotion/accuracy": 0.5}
    for epoch in (1, 2, 3)
]


def evidence(**runs):
    curves = {
        run: [Curve(fold=fold, seed=0, records=records) for fold, records in enumerate(histories)]
        for run, histories in runs.items()
    }
    return SimpleNamespace(history=SimpleNamespace(curves=curves), main="accuracy")


@pytest.mark.parametrize("history", [[], EPOCHS[:1]])
def test_of_solved_nets_alone_there_is_no_section(history):
    assert training(None, evidence(solved=[history, history])) is None


@pytest.mark.parametrize("history", [[], EPOCHS[:1]])
def test_solved_nets_are_left_out_beside_trained_ones(history, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "learning_curves", lambda kept, metric: drawn.update(kept))
    section = training(None, evidence(solved=[history] * 2, trained=[EPOCHS, EPOCHS]))
    assert [*drawn] == ["trained"]
    assert {row[0] for row in section.data[0].rows} == {"trained"}
    assert len(section.data[0].rows) == 6

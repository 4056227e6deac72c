"""In the picture of a search every trial is a line that can be seen, and every axis can be read."""

import itertools
import json

import pytest
from matplotlib.axes import Axes

from jobs.reporting.plots import ABSENT, APART, SPREAD, _axis_of, parallel
from jobs.reporting.run_history import as_labels


@pytest.mark.parametrize(
    "values",
    [
        ["linear", "gated", "linear", "linear"],
        [0.1, None, None, 0.3, 0.1],
        [None, None],
        [1, 1, 1],
        ["a"],
    ],
    ids=str,
)
def test_trials_of_one_value_lie_beside_each_other(values):
    heights, ticks = _axis_of(values)
    assert len(set(heights)) == len(values)
    at = {text: height for height, text in ticks}
    for value, height in zip(values, heights, strict=True):
        middle = at["-" if value is None else str(value)]
        assert abs(height - middle) <= SPREAD / 2 + 1e-12


@pytest.mark.parametrize("values", [[1, 2, 3], [1e-5, 1e-3, 2e-3, 1e-1], [*range(40)], [7]])
def test_numbers_have_ticks_at_both_ends_and_where_there_is_room(values):
    ticks = _axis_of(values)[1]
    assert [ticks[0][1], ticks[-1][1]] == [f"{min(values):.3g}", f"{max(values):.3g}"]
    heights = [height for height, _ in ticks]
    assert all(after - before >= APART - 1e-12 for before, after in itertools.pairwise(heights))
    if len(values) == 3:
        assert [text for _, text in ticks] == ["1", "2", "3"]


def test_a_setting_that_a_trial_lacks_is_at_the_foot():
    assert _axis_of([None, 1.0, 2.0]) == (
        [ABSENT, 0.0, 1.0],
        [(0.0, "1"), (1.0, "2"), (ABSENT, "-")],
    )


@pytest.mark.parametrize("settings", [1, 2])
def test_a_trial_of_a_single_setting_is_a_point(settings, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "plot", lambda *_, **given: drawn.append(given["marker"]))
    columns = {name: [1.0, 2.0, 3.0] for name in ("lr", "net")[:settings]}
    parallel(columns, [0.1, 0.2, 0.3], "loss")
    assert drawn == ["o" if settings == 1 else ""] * 3


@pytest.mark.parametrize(
    ("lists", "labels"),
    [
        (
            [["whisper_tiny_en"], ["whisper_small", "minilm"], ["minilm"]],
            ["whisper_t", "whisper_s+mini", "mini"],
        ),
        ([["face"], ["face_au"], ["fac"]], ["face", "face_", "fac"]),
        ([["voice", "face"]], ["voic+face"]),
        ([["mean", "mean_std"]], ["mean+mean_"]),
    ],
)
def test_names_are_shortened_only_as_far_as_they_differ(lists, labels):
    given = [json.dumps(each) for each in lists]
    assert as_labels([*given, None, 0.1, "linear"]) == [*labels, None, 0.1, "linear"]

"""Rows of sound of very different lengths: only what has sound runs through a model of windows of 30 s."""

import pytest
import torch

from encoders.audio._inputs import WINDOW_STEPS, runs_of, windowed


def batch(lengths):
    """Values that tell row and step apart, and their mask."""
    time = max(max(lengths), 1)
    mask = torch.arange(time) < torch.tensor(lengths).unsqueeze(1)
    values = torch.arange(len(lengths) * time * 2.0).reshape(len(lengths), time, 2)
    return values, mask


@pytest.mark.parametrize(
    "lengths",
    [[3], [3, 0, 5], [0, 0], [1500, 7], [1501, 0, 7], [4500, 1, 1499, 0], [3000, 3000]],
    ids=str,
)
class TestWindows:
    def test_come_back_where_they_were_and_what_is_empty_is_zero(self, lengths):
        values, mask = batch(lengths)
        found = windowed(values, mask, 2, lambda part, _: 3 * part)
        assert torch.equal(found, 3 * values * mask.unsqueeze(-1))

    def test_without_sound_do_not_run_and_others_are_no_longer_than_the_longest(self, lengths):
        values, mask = batch(lengths)
        ran = []

        def run(part, inside):
            assert inside.any(1).all()
            ran.append(part.shape[:2])
            return part

        windowed(values, mask, 2, run)
        pieces = [min(WINDOW_STEPS, n - at) for n in lengths for at in range(0, n, WINDOW_STEPS)]
        full, rest = ([n for n in pieces if (n == WINDOW_STEPS) is kind] for kind in (True, False))
        expected = [(len(some), max(some)) for some in (full, rest) if some]
        assert [tuple(shape) for shape in ran] == expected
        assert sum(rows for rows, _ in ran) == len(pieces)

    def test_that_run_together_are_each_window_once(self, lengths):
        given = torch.tensor([min(n, WINDOW_STEPS) for n in lengths])
        chosen = torch.cat([rows for _, rows in runs_of(given)] or [torch.tensor([]).long()])
        assert sorted(chosen.tolist()) == [at for at, n in enumerate(lengths) if n]

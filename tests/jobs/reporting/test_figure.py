"""Pictures say once what they cannot draw, and keep every other warning."""

import warnings

import pytest
from matplotlib.figure import Figure

from jobs.reporting import figure as figures


@pytest.fixture
def titled():
    figures._say_boxes.cache_clear()

    def drawn(title):
        figure = Figure(figsize=(2, 1))
        figure.suptitle(title)
        return figures.png(figure)

    yield drawn
    figures._say_boxes.cache_clear()


@pytest.mark.parametrize("title", ["悲しい", "\U0001fae8", "सुख"])
def test_letters_that_the_font_lacks_are_one_line_for_all_pictures(titled, capsys, title):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert titled(title).startswith(b"\x89PNG")
        titled(title)
    assert capsys.readouterr().out.count("boxes in the pictures") == 1


def test_of_letters_that_it_has_nothing_is_said(titled, capsys):
    titled("سعيد, gêné, радость")
    assert capsys.readouterr().out == ""


def test_another_warning_passes(monkeypatch):
    figure = Figure()
    monkeypatch.setattr(figure, "savefig", lambda *_, **__: warnings.warn("other", stacklevel=1))
    with pytest.warns(UserWarning, match="other"):
        figures.png(figure)

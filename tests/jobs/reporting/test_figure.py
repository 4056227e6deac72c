"""Pictures say once what they cannot draw, and keep every other warning."""

import warnings

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from jobs.captioning.letters import families
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


def square(path, family, letters):
    """A font whose letters are squares."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (800, 700), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "square"])
    made.setupCharacterMap({ord(letter): "square" for letter in letters})
    made.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    made.setupHorizontalMetrics({".notdef": (900, 0), "square": (900, 100)})
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": family, "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    made.save(path)
    return str(path)


@pytest.mark.parametrize("family", ["Noto Sans CJK JP", "WenQuanYi Zen Hei", "Malgun Gothic"])
def test_letters_that_an_installed_font_has_are_drawn_by_it(
    titled, monkeypatch, tmp_path, capsys, family
):
    file, broken = square(tmp_path / "a.ttf", family, "悲しい"), tmp_path / "b.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [file, str(broken)])
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    families.cache_clear()
    try:
        figures.styled(titled)("悲しい")
    finally:
        families.cache_clear()
    assert capsys.readouterr().out == ""


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

"""Labels of any script are drawn in letters, and what no font here has is said."""

import numpy as np
import pytest
from matplotlib.font_manager import findfont

from cluster.errors import ConfigError
from jobs.captioning.captions import captions_of
from jobs.captioning.letters import font_of
from jobs.captioning.panel import Painter

SCRIPTS = {
    "Cyrillic": ("радость", "печаль"), "Greek": ("χαρά", "λύπη"), "Arabic": ("محايد", "غضب"),
    "Hebrew": ("שמחה", "כעס"), "Latin": ("übermäßig", "été"),
}  # fmt: skip


def row_of(label, share):
    return {"probabilities": [(label, share)], "label": [label], "confidence": share, "value": None,
            "status": "ok", "name": "clip", "error": None, "task": "mood"}  # fmt: skip


def panel(label):
    """The strip under one label, as pixels."""
    painter = Painter(640, 480, captions_of([row_of(label, 0.5)], 5), None)
    return painter.draw(np.zeros((480, 640, 3), np.uint8), 0.0)


@pytest.mark.parametrize("script", SCRIPTS)
def test_labels_of_one_script_look_different_and_nothing_is_warned_of(script, capsys):
    one, other = SCRIPTS[script]
    assert (panel(one) != panel(other)).any()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_letter_is_a_box(script):
    for label in SCRIPTS[script]:
        font = font_of(None, 20, [label])
        drawn = {bytes(font.getmask(letter)) for letter in label}
        assert len(drawn) == len(set(label))
        assert bytes(font.getmask("\ufffe")) not in drawn


def test_letters_that_no_font_here_has_are_said_once_with_what_to_type(monkeypatch, capsys):
    monkeypatch.setattr("jobs.captioning.letters._files", lambda: [findfont("DejaVu Sans")])
    panel("愤怒 ok")
    said = capsys.readouterr().out
    assert said.startswith("warning: 怒愤: boxes in the film")
    assert "--font FILE.ttf" in said
    assert said.count("\n") == 1


def test_a_font_that_was_named_is_used_and_what_it_lacks_is_said(capsys):
    font_of(findfont("DejaVu Sans Mono"), 20, ["радость"])
    assert capsys.readouterr().out == ""
    font_of(findfont("STIXNonUnicode"), 20, ["радость"])
    assert "its font lacks these letters" in capsys.readouterr().out


def test_what_is_no_font_is_refused_by_its_name(tmp_path):
    (tmp_path / "x.ttf").write_bytes(b"no font")
    with pytest.raises(ConfigError, match=r"font .*x\.ttf: .*expected a TrueType file"):
        font_of(str(tmp_path / "x.ttf"), 20)


def test_a_number_behind_a_label_from_right_to_left_stays_behind_it():
    (arabic,) = captions_of([row_of("محايد", 0.5)], 5)
    (latin,) = captions_of([row_of("neutral", 0.5)], 5)
    assert arabic.title == "mood: محايد\N{LEFT-TO-RIGHT MARK}  50%"
    assert latin.title == "mood: neutral  50%"

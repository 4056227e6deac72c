"""What people named is shown letter by letter: no markup, no emoji codes, nothing that a terminal obeys."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import console
from cluster.console import Table, readable

NAMES = ["Talk [x].mp4", "[happy]", "[/b]", ":smile:", "[link=file:///x]y[/link]", "1.5 True None"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stands_in_lines_titles_headings_and_cells_as_it_is(name, capsys):
    table = Table(name, title=f"title {name}")
    table.add_column(f"two {name}")
    table.add_row(f"cell {name}", "", style="bold")
    console.show(table, f"line {name}")
    said = capsys.readouterr().out
    for place in ("title", "two", "cell", "line"):
        assert f"{place} {name}" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("name", ["dia0_utt3", "a_take_of_somebody_" * 6 + "07", "surprised"])
def test_what_is_wider_than_its_column_goes_on_below_and_loses_nothing(
    monkeypatch, capsys, columns, name
):
    monkeypatch.setenv("COLUMNS", str(columns))
    table = Table("clip", "verdict", "confidence", "next")
    table.add_row(name, name, name, name)
    console.show(table)
    lines = capsys.readouterr().out.splitlines()
    cells = [re.split("[\u2502|]", line)[1:-1] for line in lines if re.match("[\u2502|]", line)]
    rows = zip(*cells, strict=True)
    assert ["".join(part.strip() for part in row) for row in rows] == [name] * 4
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("columns", [1, 5, 20])
def test_a_screen_that_is_too_narrow_for_a_table_leaves_no_cell_out(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    headings = ["split", "clips", "hours", "groups", "video", "audio", "text", "units"]
    table = Table(*headings)
    table.add_row(*(each.upper() for each in headings))
    console.show(table)
    lines = capsys.readouterr().out.splitlines()
    cells = [
        re.split("[\u2502|\u2503]", line)[1:-1] for line in lines if line[0] in "\u2502|\u2503"
    ]
    said = ["".join(part.strip() for part in column) for column in zip(*cells, strict=True)]
    assert said == [each + each.upper() for each in headings]


def test_what_a_terminal_would_obey_is_spelt_out(capsys):
    console.show("clip\x1b[2J\x1b]0;title\x07.mp4 \u202e4pm. \udcff")
    assert capsys.readouterr().out == r"clip\x1b[2J\x1b]0;title\x07.mp4 \u202e4pm. \udcff" + "\n"


def test_a_bar_takes_any_label(capsys):
    with console.bar("[/b] \x1b", total=2) as advance:
        advance()
        advance()


@given(st.text())
def test_readable_text_is_encodable_and_holds_no_control_code(text):
    shown = readable(text)
    shown.encode()
    assert "\x1b" not in shown
    assert readable(shown) == shown


def test_a_table_in_a_pipe_keeps_every_row_on_one_line(monkeypatch, capsys):
    """A job that was submitted writes into a log; a search in it finds "calibrated mean"."""
    monkeypatch.delenv("COLUMNS", raising=False)
    table = console.Table()
    for heading in ("", *map(str, range(7))):
        table.add_column(heading)
    table.add_row("calibrated mean", *["0.810 [0.763, 0.854]"] * 7)
    console.show(table)
    rows = [line for line in capsys.readouterr().out.splitlines() if "calibrated mean" in line]
    assert len(rows) == 1
    assert rows[0].count("0.810 [0.763, 0.854]") == 7

"""Commands that messages tell to type can be pasted into a shell, whatever a place is called."""

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PLACES = re.compile(r"--(root|config|file|store|source|out|array) $")


def bare_places(source: str) -> list[str]:
    """Places that are put behind a flag of a command as they are.

    A flag that stands at the beginning of a message, before a colon or "is", names itself and is no command.
    """
    found = []
    for text in ast.walk(ast.parse(source)):
        if not isinstance(text, ast.JoinedStr):
            continue
        parts = [*text.values, ast.Constant(value="")]
        for before, place, after in zip(parts, parts[1:], parts[2:], strict=False):
            flagged = isinstance(before, ast.Constant) and PLACES.search(str(before.value))
            if not flagged or not isinstance(place, ast.FormattedValue):
                continue
            told = isinstance(after, ast.Constant) and re.match(r":|/|\.npz| is ", str(after.value))
            name = ast.unparse(place.value)
            if (
                not told and "quote(" not in name and not name.isupper()
            ):  # a constant needs no quotes
                found.append(name)
    return found


@pytest.mark.parametrize("package", ["jobs", "encoders", "cluster", "fusion"])
def test_places_in_commands_are_quoted(package):
    files = sorted((CHECKOUT / package).rglob("*.py"))
    found = {str(file): bare_places(file.read_text()) for file in files}
    assert {name: bare for name, bare in found.items() if bare} == {}


@pytest.mark.parametrize(
    ("line", "bare"),
    [
        ('f"type: affuse encode --root {root} --encoders x"', ["root"]),
        ('f"type: affuse encode --root {shlex.quote(root)}"', []),
        ('f"type: affuse train "\nf"--config {where(root)}"', ["where(root)"]),
        ('f"--out {config.out}: expected a name in .csv"', []),
    ],
)
def test_a_place_that_is_not_quoted_is_found(line, bare):
    assert bare_places(f"said = ({line})") == bare

"""Which known name somebody may have meant: for errors that name it."""

from collections.abc import Iterable

FEWEST_LETTERS = 3
"""Of a beginning that stands for the whole name, and of a name in which one letter may be wrong."""


def nearest_of(name: str, known: Iterable[str]) -> str | None:
    """The known name that a word is a slip of: a third of its letters may be wrong; None: there is none.

    Fewer wrong letters win, then the earlier name; where no word is that near, the first one that the word
    begins, or that begins the word.

    >>> nearest_of("tset", ["train", "valid", "test"])
    'test'
    >>> nearest_of("class", ["regression", "classification"])
    'classification'
    >>> nearest_of("lr", ["l2", "pca"]) is None
    True
    """
    word = name.casefold()
    names = {each: each.casefold() for each in known}
    slips = {
        each: count
        for each, letters in names.items()
        if (count := num_edits(word, letters)) <= max(len(word), len(letters)) // FEWEST_LETTERS
    }
    if slips:
        return min(slips, key=lambda each: slips[each])
    for each, letters in names.items():
        begun = letters.startswith(word) or word.startswith(letters)
        if begun and min(len(word), len(letters)) >= FEWEST_LETTERS:
            return each
    return None


def num_edits(first: str, second: str) -> int:
    """Letters to change, add or drop, and neighbours to swap, to make one word of the other.

    >>> num_edits("hihg", "high"), num_edits("rot", "root")
    (1, 1)
    """
    before, row = [0] * (len(second) + 1), list(range(len(second) + 1))
    for i, a in enumerate(first):
        before, above, row = row, before, [i + 1]
        for j, b in enumerate(second):
            row.append(min(before[j] + (a != b), before[j + 1] + 1, row[j] + 1))
            if i and j and a == second[j - 1] and first[i - 1] == b:
                row[-1] = min(row[-1], above[j - 1] + 1)
    return row[-1]

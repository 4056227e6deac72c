"""What each rater of a clip chose, as shares of the classes that sum to one."""

from collections.abc import Collection, Mapping, Sequence


def from_counts(counts: Sequence[int]) -> list[list[float]]:
    """A vote a rater, from the number of raters who chose each class.

    >>> from_counts([2, 0, 1])
    [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]

    Raises:
        ValueError: a number below zero.
    """
    if min(counts) < 0:
        raise ValueError(f"votes {list(counts)}: expected counts")
    votes = []
    for index, count in enumerate(counts):
        vote = [0.0] * len(counts)
        vote[index] = 1.0
        votes += [vote] * count
    return votes


def from_choices(
    choices: Collection[str], meaning: Mapping[str, str], classes: Sequence[str]
) -> list[float] | None:
    """The vote of a rater who chose one class or several, which share it; None: none of the classes.

    Args:
        choices: as the rater's form names them.
        meaning: choice -> class; others are left out.
        classes: of the task.

    >>> from_choices(("Sadness", "Other"), {"Sadness": "sad"}, ("angry", "sad"))
    [0.0, 1.0]
    """
    chosen = [meaning[choice] for choice in dict.fromkeys(choices) if choice in meaning]
    if not chosen:
        return None
    return [chosen.count(name) / len(chosen) for name in classes]

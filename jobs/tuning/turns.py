"""In which order a search takes the sets of inputs."""

from collections.abc import Sequence


def input_cycle(sets: Sequence[Sequence[str]]) -> list[list[str]]:
    """Sets of inputs in the order in which they take turns: each by itself, the largest, then the rest."""
    if len(sets) < 2:
        return []
    largest = max(sets, key=len)
    order = sorted(sets, key=lambda some: (len(some) > 1, some is not largest))
    return [list(some) for some in order]


def inputs_of_turn(turns: Sequence[Sequence[str]], number: int) -> Sequence[str] | None:
    """The inputs of a trial where they are not the sampler's to choose.

    The first trials take every set in turn, and so does every other one after them: late fusion needs good
    nets of the weak modalities too, and a sampler that learns from scores soon asks for the best set only.
    """
    if not turns:
        return None
    first = len(turns)
    if number < first:
        return turns[number]
    return turns[(number - first) // 2 % first] if (number - first) % 2 == 0 else None


def first_sets(sets: Sequence[Sequence[str]]) -> list[list[str]]:
    """The sets that a first answer is made of: each input by itself, and the largest set.

    >>> first_sets([["a"], ["a", "b"], ["b"], ["a", "b", "c"]])
    [['a'], ['b'], ['a', 'b', 'c']]
    """
    order = input_cycle(sets) or [list(some) for some in sets]
    alone = sum(len(some) == 1 for some in order)
    return order[: alone + 1]

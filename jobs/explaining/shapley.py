"""Exact Shapley values of a few players, from the value of every subset of them.

    phi_i = sum over S without i of  |S|! (n - |S| - 1)! / n!  (v(S with i) - v(S))

The values of all players sum to v(all) - v(none); a player who never changes a value has exactly 0.
Shapley, 1953, https://doi.org/10.1515/9781400881970-018.

A subset is a number: player i is in it where bit i is set.
"""

from math import factorial

import torch
from torch import Tensor


def shapley_values(values: Tensor) -> Tensor:
    """What each player adds [player ...], in the order of the bits, from the values [subset ...].

    >>> shapley_values(torch.tensor([0.0, 1.0, 2.0, 5.0])).tolist()  # none, first, second, both
    [2.0, 3.0]

    Raises:
        ValueError: the number of subsets is no power of two.
    """
    subsets = len(values)
    players = subsets.bit_length() - 1
    if subsets != 1 << players:
        raise ValueError(f"{subsets} subsets: expected a power of two")
    share = [
        factorial(size) * factorial(players - size - 1) / factorial(players)
        for size in range(players)
    ]
    found = []
    for player in range(players):
        without = [subset for subset in range(subsets) if not subset >> player & 1]
        weight = values.new_tensor([share[subset.bit_count()] for subset in without])
        added = values[[subset | 1 << player for subset in without]] - values[without]
        found.append(torch.tensordot(weight, added, 1))
    return torch.stack(found) if found else values[:0]

"""The stack and the memo that the instructions of a pickle work on; what they take is counted."""

import struct
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.interop.pickle_names import (
    Name,
    PickledArray,
    PickledDtype,
    UnsafePickleError,
    call,
    checked_key,
    known,
)

LARGE = 64 << 10
"""Texts and bytes above this are not kept twice where an array is made of them [bytes]."""

WIDEST_GAP = 1000
"""Between the numbers that values are kept under; writers count them up."""


class Machine:
    """Runs the instructions of a pickle over a stack of values and a memo."""

    def __init__(self, content: bytes, allowed: int) -> None:
        self.content = content
        self.at = 0
        self.left = allowed
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """Stacks under the marks."""
        self.memo: list[Any] = []
        self.kept = 0
        """How many places of the memo are taken."""
        self.last = -1
        """The place that was taken last."""
        self.large: tuple[Any, _Again] | None = None
        """The large value that was read last, and how it is read again."""

    def spend(self, count: int) -> None:
        """Count memory before or just after it is taken."""
        self.left -= count
        if self.left < 0:
            raise UnsafePickleError(
                "it would take far more memory than a file of its size has data for"
            )

    def push(self, value: Any, cost: int) -> None:
        """Put a value on the stack."""
        self.spend(cost + 8)
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the topmost value."""
        if not self.stack:
            raise ValueError("a value is missing")
        return self.stack.pop()

    def top(self, kind: type[Any], what: str) -> Any:
        """The topmost value, which has to be of a kind."""
        if not self.stack or type(self.stack[-1]) is not kind:
            raise ValueError(f"{what} without a {kind.__name__}")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        """The values above the last mark."""
        if not self.below:
            raise ValueError("a mark is missing")
        values, self.stack = self.stack, self.below.pop()
        return values

    # ---- reading from the file

    def take(self, count: int) -> bytes:
        """The next bytes of the file."""
        end = self.at + count
        if count < 0 or end > len(self.content):
            raise ValueError("it ends in the middle")
        start, self.at = self.at, end
        return self.content[start:end]

    def number(self, layout: struct.Struct) -> Any:
        """The next number of the file."""
        return layout.unpack(self.take(layout.size))[0]

    def line(self, longest: int) -> bytes:
        """The rest of a line of the file."""
        end = self.content.find(b"\n", self.at, self.at + longest + 1)
        if end < 0:
            raise ValueError("a line has no end")
        return self.take(end - self.at + 1)[:-1]

    def read(self, length: int, made: Callable[[bytes], Any]) -> None:
        """Push text or bytes."""
        start = self.at
        self.spend(length)
        value = made(self.take(length))
        self.push(value, sys.getsizeof(value) - length)
        if length > LARGE:
            self.large = value, _Again(start, length, made)

    # ---- the memo

    def put(self, key: int) -> None:
        """Keep the topmost value under a number.

        Text and bytes that an array is about to be made of are kept as the place where they stand.
        """
        if not self.stack or not 0 <= key <= len(self.memo) + WIDEST_GAP:
            raise ValueError(f"nothing can be kept under {key}")
        new = max(0, key + 1 - len(self.memo))
        self.spend(9 * (new + 1))
        self.memo += [UNKNOWN] * new
        value = self.stack[-1]
        if self.large is not None and self.large[0] is value:
            value = self.large[1]
        elif type(value) is PickledArray:
            value.memo.append(key)
        self.large = None
        self.kept += self.memo[key] is UNKNOWN
        self.memo[key] = value
        self.last = key

    def get(self, key: int) -> None:
        """Push what was kept under a number."""
        if not 0 <= key < len(self.memo) or self.memo[key] is UNKNOWN or self.memo[key] is USED:
            raise ValueError(f"nothing was kept under {key}")
        value = self.memo[key]
        if type(value) is not _Again:
            self.push(value, 0)
            return
        behind, self.at = self.at, value.start
        self.read(value.length, value.made)
        self.at, self.large = behind, None

    def forget(self, value: Any) -> None:
        """Let go of arguments or a state that were kept just now: they hold the bytes of an array."""
        if self.last >= 0 and self.memo[self.last] is value:
            self.memo[self.last] = USED

    # ---- containers

    def append(self, values: Collection[Any]) -> None:
        """Put values at the end of the list on the stack."""
        self.spend(9 * len(values))
        self.top(list, "values").extend(values)

    def set_items(self, values: list[Any]) -> None:
        """Put keys and values into the dict on the stack."""
        if len(values) % 2:
            raise ValueError("a key without a value")
        self.spend(60 * len(values))
        target = self.top(dict, "keys")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[checked_key(key)] = value

    def add_items(self, values: list[Any]) -> None:
        """Put values into the set on the stack."""
        self.spend(70 * len(values))
        self.top(set, "values").update(map(checked_key, values))

    def push_tuple(self, values: Collection[Any]) -> None:
        """Push a tuple."""
        self.push(tuple(values), 48 + 8 * len(values))

    def pop_many(self, count: int) -> list[Any]:
        """Take the topmost values, the lowest first."""
        return [self.pop() for _ in range(count)][::-1]

    # ---- what pickles call

    def name(self, module: object, name: object) -> None:
        """Push a name."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        self.push(known(module, name), 200)

    def reduce(self) -> None:
        """Call a name."""
        name, arguments = self.pop_many(2)
        if not isinstance(name, Name):
            raise ValueError(f"a {type(name).__name__} is called")
        self.forget(arguments)
        value = call(name, arguments)
        size = value.nbytes if isinstance(value, np.ndarray) else 0
        self.push(value, sys.getsizeof(value) + size)

    def build(self) -> None:
        """Give a dtype or an array its state."""
        target, state = self.pop_many(2)
        self.forget(state)
        if isinstance(target, PickledDtype):
            target.build(state)
            self.push(target, 0)
        elif isinstance(target, PickledArray):
            array = target.build(state)
            self.push(array, 100 + array.nbytes)
            for key in target.memo:
                self.memo[key] = array
        else:
            raise ValueError(f"a {type(target).__name__} has no state")


@dataclass(frozen=True)
class _Again:
    """Text or bytes by their place in the file."""

    start: int
    length: int
    made: Callable[[bytes], Any]


UNKNOWN, USED = object(), object()
"""What the memo holds where nothing was kept, and where it is of no more use."""

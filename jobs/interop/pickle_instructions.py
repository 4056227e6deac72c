"""The instructions of pickles that data needs, and no others.

An array is one instruction that copies its bytes, so that a pickle of arrays is read as fast as they are
copied.
"""

import codecs
import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from jobs.interop.pickle_machine import Machine
from jobs.interop.pickle_names import UnsafePickleError, checked_key

LONGEST_NUMBER = 16
"""Of a whole number [bytes]; arrays know none above 8."""

LONGEST_LINE = 200
"""Of a name, or a number in letters [bytes]."""


def run(content: bytes, allowed: int) -> Any:
    """The value that a pickle stands for.

    Args:
        content: the file.
        allowed: how much memory its objects may take [bytes].

    Raises:
        UnsafePickleError: it asks for anything but data, or for more memory.
        IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error: it is broken.
    """
    machine = Machine(content, allowed)
    while (code := machine.take(1)[0]) != STOP:
        HANDLERS[code](machine)
    return machine.pop()


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")


def _latin(content: bytes) -> str:
    return content.decode("latin-1")


def _push_long(machine: Machine, length: int) -> None:
    if not 0 <= length <= LONGEST_NUMBER:
        raise ValueError(f"a number of {length} bytes")
    machine.push(int.from_bytes(machine.take(length), "little", signed=True), 32)


def _int_line(machine: Machine) -> None:
    line = machine.line(LONGEST_LINE).removesuffix(b"L")
    value = {b"00": False, b"01": True}.get(line)
    machine.push(int(line) if value is None else value, 32)


def _string_line(machine: Machine) -> None:
    line = machine.line(len(machine.content)).strip()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[:1] != line[-1:]:
        raise ValueError("a text without quotes")
    machine.push(_latin(codecs.escape_decode(line[1:-1])[0]), 60 + len(line))


def _unicode_line(machine: Machine) -> None:
    line = machine.line(len(machine.content))
    machine.push(str(line, "raw-unicode-escape"), 80 + 4 * len(line))


def _global_line(machine: Machine) -> None:
    module, name = (_text(machine.line(LONGEST_LINE)) for _ in range(2))
    machine.name(module, name)


def _frame(machine: Machine) -> None:
    if machine.number(UINT64) > len(machine.content) - machine.at:
        raise ValueError("it ends in the middle")


def _protocol(machine: Machine) -> None:
    if (version := machine.number(UINT8)) > 5:
        raise ValueError(f"protocol {version}; known are 0 to 5")


def _mark(machine: Machine) -> None:
    machine.spend(80)
    machine.below.append(machine.stack)
    machine.stack = []


def _dict_of(machine: Machine) -> None:
    values = machine.since_mark()
    machine.push({}, 64)
    machine.set_items(values)


def _list_of(machine: Machine) -> None:
    values = machine.since_mark()
    machine.push(values, 56 + 9 * len(values))


def _frozen(machine: Machine) -> None:
    values = machine.since_mark()
    machine.push(frozenset(map(checked_key, values)), 216 + 70 * len(values))


def _no_instruction(machine: Machine) -> None:
    at = machine.at - 1
    code = chr(machine.content[at])
    name = next((each.name for each in pickletools.opcodes if each.code == code), None)
    if name is None:
        raise ValueError(f"byte {at} is no instruction")
    raise UnsafePickleError(f"it asks for {name}, {UNUSED.get(name, NOT_DATA)}")


NOT_DATA = "which arrays and plain containers do not need"
UNUSED = {
    "PERSID": "an object outside the file",
    "BINPERSID": "an object outside the file",
    "NEXT_BUFFER": "a buffer outside the file",
}

UINT8, UINT16, UINT32, UINT64 = (struct.Struct(f"<{code}") for code in "BHIQ")
INT32, FLOAT64 = struct.Struct("<i"), struct.Struct(">d")

Handler = Callable[[Machine], None]

INSTRUCTIONS: Mapping[bytes, Handler] = {
    pickle.PROTO: _protocol,
    pickle.FRAME: _frame,
    # plain values
    pickle.NONE: lambda m: m.push(None, 0),
    pickle.NEWTRUE: lambda m: m.push(True, 0),
    pickle.NEWFALSE: lambda m: m.push(False, 0),
    pickle.INT: _int_line,
    pickle.LONG: _int_line,
    pickle.BININT: lambda m: m.push(m.number(INT32), 32),
    pickle.BININT1: lambda m: m.push(m.number(UINT8), 0),
    pickle.BININT2: lambda m: m.push(m.number(UINT16), 32),
    pickle.LONG1: lambda m: _push_long(m, m.number(UINT8)),
    pickle.LONG4: lambda m: _push_long(m, m.number(INT32)),
    pickle.FLOAT: lambda m: m.push(float(m.line(LONGEST_LINE)), 24),
    pickle.BINFLOAT: lambda m: m.push(m.number(FLOAT64), 24),
    # text and bytes
    pickle.STRING: _string_line,
    pickle.BINSTRING: lambda m: m.read(m.number(INT32), _latin),
    pickle.SHORT_BINSTRING: lambda m: m.read(m.number(UINT8), _latin),
    pickle.UNICODE: _unicode_line,
    pickle.BINUNICODE: lambda m: m.read(m.number(UINT32), _text),
    pickle.BINUNICODE8: lambda m: m.read(m.number(UINT64), _text),
    pickle.SHORT_BINUNICODE: lambda m: m.read(m.number(UINT8), _text),
    pickle.BINBYTES: lambda m: m.read(m.number(UINT32), bytes),
    pickle.BINBYTES8: lambda m: m.read(m.number(UINT64), bytes),
    pickle.SHORT_BINBYTES: lambda m: m.read(m.number(UINT8), bytes),
    pickle.BYTEARRAY8: lambda m: m.read(m.number(UINT64), bytearray),
    # containers
    pickle.MARK: _mark,
    pickle.EMPTY_LIST: lambda m: m.push([], 56),
    pickle.LIST: _list_of,
    pickle.APPEND: lambda m: m.append(m.pop_many(1)),
    pickle.APPENDS: lambda m: m.append(m.since_mark()),
    pickle.EMPTY_DICT: lambda m: m.push({}, 64),
    pickle.DICT: _dict_of,
    pickle.SETITEM: lambda m: m.set_items(m.pop_many(2)),
    pickle.SETITEMS: lambda m: m.set_items(m.since_mark()),
    pickle.EMPTY_SET: lambda m: m.push(set(), 216),
    pickle.ADDITEMS: lambda m: m.add_items(m.since_mark()),
    pickle.FROZENSET: _frozen,
    pickle.EMPTY_TUPLE: lambda m: m.push((), 0),
    pickle.TUPLE: lambda m: m.push_tuple(m.since_mark()),
    pickle.TUPLE1: lambda m: m.push_tuple(m.pop_many(1)),
    pickle.TUPLE2: lambda m: m.push_tuple(m.pop_many(2)),
    pickle.TUPLE3: lambda m: m.push_tuple(m.pop_many(3)),
    # stack and memo
    pickle.PUT: lambda m: m.put(int(m.line(LONGEST_LINE))),
    pickle.BINPUT: lambda m: m.put(m.number(UINT8)),
    pickle.LONG_BINPUT: lambda m: m.put(m.number(UINT32)),
    pickle.MEMOIZE: lambda m: m.put(m.kept),
    pickle.GET: lambda m: m.get(int(m.line(LONGEST_LINE))),
    pickle.BINGET: lambda m: m.get(m.number(UINT8)),
    pickle.LONG_BINGET: lambda m: m.get(m.number(UINT32)),
    # names and calls
    pickle.GLOBAL: _global_line,
    pickle.STACK_GLOBAL: lambda m: m.name(*m.pop_many(2)),
    pickle.REDUCE: lambda m: m.reduce(),
    pickle.BUILD: lambda m: m.build(),
}
HANDLERS = [INSTRUCTIONS.get(bytes([code]), _no_instruction) for code in range(256)]
STOP = pickle.STOP[0]

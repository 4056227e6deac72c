"""A hostile pickle costs one line: no crash, no code, and no more memory than its size allows."""

import ast
import gzip
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import ConfigError
from jobs.__main__ import run
from jobs.interop.pickle_names import UnsafePickleError
from jobs.interop.pickles import INFLATION, MEMORY_FACTOR, MEMORY_FLOOR, loads

ROOT = Path(__file__).resolve().parents[3]
PROTO = pickle.PROTO + b"\x05"


def text(value):
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


def whole(value):
    return pickle.LONG1 + bytes([9]) + value.to_bytes(9, "little", signed=True)


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def called(name, *arguments):
    return named(*name) + b"(" + b"".join(arguments) + b"tR"


DTYPE = ("numpy", "dtype")
ARRAY = called(
    ("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), b"K\x00\x85", text("b")
)


def dtype(code, *, fields=b"NNN", order="<"):
    state = b"(K\x03" + text(order) + fields + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    return called(DTYPE, text(code), b"\x89", b"\x88") + state + b"b"


def array(shape, of, content):
    return ARRAY + b"(K\x01(" + b"".join(map(whole, shape)) + b"t" + of + b"\x89" + content + b"tb"


def forged_dtype():
    """Raw bytes under a dtype whose state says that they are pointers to objects."""
    field = b"}" + text("a") + dtype("O8") + b"K\x00\x86s"
    fields = b"N" + text("a") + b"\x85" + field
    return dtype("V8", fields=fields)


def plain_bytes(count):
    return pickle.BINBYTES + struct.pack("<I", count) + bytes(count)


def laughs(levels):
    """Lists of the list before, twice each."""
    steps = (b"](h%ch%ce\x94" % (level, level) for level in range(levels))
    return b"]\x94" + b"".join(steps)


BYTES_8 = plain_bytes(8)
ATTACKS = {
    "a dtype that says its bytes are pointers": array((1,), forged_dtype(), BYTES_8),
    "an array of records": array((1,), dtype("V8"), BYTES_8),
    "an array of dates": array((1,), dtype("M8"), BYTES_8),
    "an array of pointers without objects": array((1,), dtype("O8"), BYTES_8),
    "more rows than bytes": array((1 << 60,), dtype("f8"), BYTES_8),
    "rows below zero": array((-1,), dtype("f8"), BYTES_8),
    "sizes whose product overflows": array((1 << 63, 1 << 63), dtype("f8"), BYTES_8),
    "an endless empty array": array((0, 1 << 62), dtype("f8"), plain_bytes(0)),
    "more dimensions than there are": array((1,) * 65, dtype("f8"), BYTES_8),
    "values without width": array((1 << 40,), dtype("S0"), plain_bytes(0)),
    "letters that do not exist": array((2,), dtype("U1"), BYTES_8[:5] + b"\xff" * 8),
    "a scalar of other bytes": called(
        ("numpy._core.multiarray", "scalar"), dtype("f8"), plain_bytes(7)
    ),
    "a buffer of objects": called(
        ("numpy._core.numeric", "_frombuffer"), BYTES_8, dtype("O8"), b"K\x01\x85", text("C")
    ),
    "an array without a state": ARRAY,
    "a name for a value": named("numpy", "ndarray"),
    "a state for a list": b"]K\x01b",
    "zeros by their number": called(("builtins", "bytearray"), whole(10**12)),
    "bytes by their number": called(("builtins", "bytes"), whole(10**12)),
    "text longer than the file": pickle.BINUNICODE8 + struct.pack("<Q", 1 << 62),
    "bytes longer than the file": pickle.BINBYTES8 + struct.pack("<Q", (1 << 64) - 1),
    "a buffer longer than the file": pickle.BYTEARRAY8 + struct.pack("<Q", 1 << 40),
    "a number longer than the file": pickle.LONG4 + struct.pack("<i", (1 << 31) - 1),
    "a number of many bytes": pickle.LONG4 + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20),
    "a number of many letters": b"I" + b"9" * (1 << 20) + b"\n",
    "a frame longer than the file": pickle.FRAME + struct.pack("<Q", 1 << 62) + b"N",
    "a name longer than any": b"c" + b"a" * (1 << 20) + b"\nb\n",
    "a memo of four thousand millions": b"Nr" + struct.pack("<I", (1 << 32) - 1),
    "a memo in letters": b"Np99999999999999999999\n",
    "deep lists": b"]" * 100_000 + b"a" * 99_999,
    "deep tuples": b")" + b"\x85" * 100_000,
    "marks": b"(" * 100_000,
    "sets": b"(" + b"\x8f" * 100_000 + b"t",
    "a thousand million lists in ninety": laughs(30),
    "a list that holds itself": b"]\x94h\x00a",
    "a dict that holds itself": b"}\x94" + text("a") + b"h\x00s",
    "copies of a list": b"](" + b"K\x01" * 40_000 + b"e\x94(" + 2_000 * (
        named("builtins", "list") + b"h\x00\x85R"
    ) + b"t",
    "copies of a text": text("a" * 100_000) + b"\x94(" + b"h\x00" * 20_000 + b"t",
    "keys that hold lists": b"}](K\x01e\x85K\x01s",
    "a list as a key": b"}]K\x01s",
    "an object of a class": named("builtins", "dict") + b")\x81",
    "a class by its number": b"\x82\x01",
    "a buffer outside the file": b"\x97",
    "another protocol": b"\x80\xff",
}  # fmt: skip
EVERY = {name: PROTO + content + b"." for name, content in ATTACKS.items()}
ZEROS = pickle.dumps(bytes(64 << 20), 4)
BOMBS = {"gzip": gzip.compress(ZEROS), "zlib": zlib.compress(ZEROS)}
EVERY |= BOMBS


class TestAttacks:
    @pytest.mark.parametrize("name", EVERY)
    def test_are_refused_within_the_memory_that_their_size_allows(self, name):
        content = EVERY[name]
        tracemalloc.start()
        try:
            with pytest.raises((UnsafePickleError, ConfigError), match=r"^evil\.pkl: "):
                loads(content, where="evil.pkl")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        inflated = 2 * (MEMORY_FLOOR + INFLATION * len(content)) if name in BOMBS else 0
        assert peak < 1.5 * (MEMORY_FLOOR + (MEMORY_FACTOR + 1) * len(content)) + inflated

    def test_the_message_says_what_is_wrong(self):
        for name, said in [
            ("a dtype that says its bytes are pointers", "array of 'V8'; only plain values"),
            ("deep lists", "nested more than 64 times"),
            ("a list that holds itself", "nested more than 64 times"),
            ("a thousand million lists in ninety", "shared so often"),
            ("sets", "far more memory"),
            ("gzip", "compressed to less than a part in 100"),
            ("an object of a class", "asks for NEWOBJ"),
        ]:
            with pytest.raises(UnsafePickleError, match=said):
                loads(EVERY[name], where="f")

    def test_records_hidden_behind_a_plain_dtype_are_refused(self):
        field = b"}" + text("a") + dtype("O8") + b"K\x00\x86s"
        hidden = dtype("f8", fields=b"N" + text("a") + b"\x85" + field)
        with pytest.raises(UnsafePickleError, match="array of records"):
            loads(PROTO + array((1,), hidden, BYTES_8) + b".", where="f")


class TestTheCommandLine:
    @pytest.mark.parametrize("attack", ["a dtype that says its bytes are pointers", "gzip"])
    def test_an_attack_is_one_line_and_exit_1(self, root, tmp_path, attack):
        content = EVERY[attack]
        if attack not in BOMBS:
            names = content.removeprefix(PROTO).removesuffix(b".")
            vision = pickle.dumps(np.zeros((1, 2)), 2)[2:-1]
            content = PROTO + b"}(" + text("id") + names + text("vision") + vision + b"u."
        (tmp_path / "evil.pkl").write_bytes(content)
        words = ["features", "import", "--root", root, "--file", "evil.pkl", "--name", "x"]
        done = subprocess.run(
            [sys.executable, "-m", "jobs", *words, "--modality", "video", "--array", "vision"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith("affuse features: evil.pkl: it ")
        assert len(done.stderr.splitlines()) == 1

    def test_a_broken_pickle_is_exit_1(self, root, tmp_path, capsys):
        file = tmp_path / "broken.pkl"
        file.write_bytes(pickle.dumps({"x": np.zeros(3)})[:-5])
        words = ["features", "import", "--root", root, "--file", str(file), "--array", "x"]
        assert run([*words, "--name", "x", "--modality", "video"]) == 1
        assert "broken.pkl: not a readable pickle" in capsys.readouterr().err


FUZZ = """
import random, resource, sys
import numpy as np, pickle
from cluster.errors import ConfigError
from jobs.interop import pickle_instructions
from jobs.interop.pickle_names import UnsafePickleError
from jobs.interop.pickles import loads

seed, count = map(int, sys.argv[1:])
dice = random.Random(seed)
data = {
    "train": {"vision": np.arange(24, dtype="f4").reshape(2, 3, 4), "id": ["a$_$1", "b$_$2"],
              "names": np.array(["x", None], object), "text": np.array(["ab", "c"]),
              "one": np.float64(3.5), "set": {1, 2}, "pair": (1.5, True), "raw": b"xyz"}
}
bases = [bytearray(pickle.dumps(data, protocol)) for protocol in range(6)]
parts = [bytes([code]) for code, act in enumerate(pickle_instructions.HANDLERS)
         if act is not pickle_instructions._no_instruction]
parts += [b"K\\x01", b"X\\x01\\x00\\x00\\x00a", b"h\\x00", b"cnumpy\\ndtype\\n", b"cnumpy\\nndarray\\n",
          b"cnumpy.core.multiarray\\n_reconstruct\\n", b"cnumpy.core.multiarray\\nscalar\\n", b"U\\x02f4",
          b"cnumpy._core.numeric\\n_frombuffer\\n", b"c__builtin__\\nbytearray\\n", b"U\\x02O8",
          b"\\x86R", b"](NNe", b"C\\x02ab"]

def flipped():
    content = bytearray(dice.choice(bases))
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        at = dice.randrange(len(content))
        kind = dice.randrange(3)
        if kind == 0:
            content[at] = dice.randrange(256)
        elif kind == 1:
            content[at] ^= 1 << dice.randrange(8)
        else:
            del content[at : at + dice.randrange(1, 9)]
            content[at:at] = dice.randbytes(dice.randrange(5))
    return bytes(content)

def written():
    return b"\\x80\\x04" + b"".join(dice.choices(parts, k=dice.randrange(2, 60))) + b"."

used = int(open("/proc/self/statm").read().split()[0]) * 4096
most = used + (96 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
outcomes = {}
for number in range(count):
    content = flipped() if number % 2 else written()
    try:
        loads(content, where="f")
        outcome = "read"
    except (UnsafePickleError, ConfigError) as error:
        assert not isinstance(error.__cause__, MemoryError), content
        outcome = type(error).__name__
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
print(outcomes)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts memory as Linux does")
@pytest.mark.parametrize(
    ("seed", "count"), [(0, 20_000), pytest.param(1, 200_000, marks=pytest.mark.slow)]
)
def test_no_mutated_pickle_crashes_or_takes_memory(seed, count):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FUZZ, str(seed), str(count)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = ast.literal_eval(done.stdout)
    assert sum(outcomes.values()) == count
    assert {"read", "ConfigError", "UnsafePickleError"} == set(outcomes)

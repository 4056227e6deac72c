"""A pickle gives arrays and containers, or is refused by the name of what it asks for."""

import collections
import gzip
import io
import os
import pickle
import subprocess
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from jobs.interop.pickle_names import UnsafePickleError
from jobs.interop.pickles import loads

HARMLESS = {
    "train": {
        "vision": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
        "id": ["a$_$1", "b$_$2"],
        "labels": np.array([0.5, -1.0]),
        "ragged": [np.zeros((2, 3)), np.ones((1, 3))],
        "one": np.float64(3.5),
        "names": np.array(["x", "y"], dtype=object),
        "more": collections.OrderedDict(a=(1, 2.0, None, True), b={1, 2}),
    }
}


PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

ARRAYS = [
    *(
        np.arange(6).astype(kind).reshape(2, 3)
        for kind in ("?", "i1", "u2", "<i4", ">i8", "f2", "f4")
    ),
    *(np.arange(6).astype(kind) for kind in ("f8", ">f4", "c8", "c16", "U3", ">U2", "S4", object)),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    np.arange(12.0).reshape(3, 4)[:, ::2],
    np.zeros((0, 5), np.float32),
    np.array(3.0),
    np.array([[1, "a"], [None, [2.5]]], dtype=object),
]

NUMBERS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.complex_numbers()
)
LEAVES = NUMBERS | st.text(max_size=9) | st.binary(max_size=9) | st.just(np.float32(0.1))
DATA = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
        | st.sets(st.integers() | st.text(max_size=3), max_size=4)
    ),
    max_leaves=12,
)


def same(left, right):
    if isinstance(right, np.ndarray) and right.dtype == object:
        return left.dtype == object and left.tolist() == right.tolist()
    if isinstance(right, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in right)
    if isinstance(right, list):
        return all(same(a, b) for a, b in zip(left, right, strict=True))
    return left == right


class TestWhatIsRead:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_arrays_and_containers_of_every_protocol(self, protocol):
        content = pickle.dumps(HARMLESS, protocol=protocol)
        assert same(loads(content, where="f"), HARMLESS)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}")
    def test_arrays_of_every_kind_shape_and_order(self, array, protocol):
        read = loads(pickle.dumps(array, protocol=protocol), where="f")
        assert same(read, array)
        assert read.flags.f_contiguous == array.flags.f_contiguous
        assert read.flags.writeable
        assert read.flags.owndata or read.base is not None

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @given(value=DATA)
    def test_any_data_is_read_as_the_standard_library_reads_it(self, protocol, value):
        content = pickle.dumps(value, protocol=protocol)
        assert repr(loads(content, where="f")) == repr(pickle.loads(content))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_long_texts_and_shared_parts(self, protocol):
        long = "word\u20ac " * 40_000
        shared = [1.5, None]
        value = {
            "raw_text": [long, long, "short"],
            "twice": [shared, shared],
            "raw": b"x" * 100_000,
        }
        assert loads(pickle.dumps(value, protocol=protocol), where="f") == value

    def test_gathered_arrays_are_not_kept_twice(self):
        value = {name: np.random.default_rng(0).normal(size=1_000_000) for name in "abcd"}
        content = pickle.dumps(value, 4)
        tracemalloc.start()
        loads(content, where="f")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1.6 * len(content)

    @pytest.mark.parametrize("squeeze", [gzip.compress, zlib.compress])
    def test_compressed_ones(self, squeeze):
        assert same(loads(squeeze(pickle.dumps(HARMLESS)), where="f"), HARMLESS)

    def test_arrays_that_numpy_1_wrote(self):
        content = pickle.dumps(HARMLESS["train"]["labels"], protocol=2)
        old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        assert same(loads(old, where="f"), HARMLESS["train"]["labels"])

    def test_text_of_python_2(self):
        assert loads(b"S'a\\xe4'\n.", where="f") == "a\xe4"

    def test_arrays_that_python_2_wrote(self):
        content = (
            b"\x80\x02}q\x01U\x06visionq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
            b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02f4K\x00K\x01\x87R"
            b"q\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08"
            + np.array([0.5, -2.0], "<f4").tobytes()
            + b"tbs."
        )
        assert same(loads(content, where="f"), {"vision": np.array([[0.5, -2.0]], np.float32)})

    def test_containers_that_python_2_wrote(self):
        content = (
            b"\x80\x02}q\x01(U\x01sc__builtin__\nset\nq\x02]q\x03K\x01a\x85RU\x01bc__builtin__\nbytearray\nq\x04"
            b"X\x02\x00\x00\x00xyU\x07latin-1\x86RU\x01occollections\nOrderedDict\nq\x05]q\x06]q\x07(U\x01k"
            b"K\x01ea\x85Ru."
        )
        assert loads(content, where="f") == {"s": {1}, "b": bytearray(b"xy"), "o": {"k": 1}}


class Shell:
    def __reduce__(self):
        return (os.system, ("touch /tmp/affuse-was-here",))


class Evaluates:
    def __reduce__(self):
        return (eval, ("1 + 1",))


class Opens:
    def __reduce__(self):
        return (open, ("/etc/hostname",))


class Starts:
    def __reduce__(self):
        return (subprocess.Popen, (["true"],))


class Reaches:
    def __reduce__(self):
        return (getattr, ("text", "join"))


class Loads:
    def __reduce__(self):
        return (np.load, ("x.npy",))


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("fault", "name"),
        [
            (Shell(), r"posix\.system"),
            (Evaluates(), r"builtins\.eval"),
            (Opens(), r"\.open"),
            (Starts(), r"subprocess\.Popen"),
            (Reaches(), r"builtins\.getattr"),
            (Loads(), r"numpy.*load"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_anything_else_is_refused_by_name_and_nothing_runs(self, fault, name, tmp_path):
        content = pickle.dumps({"train": {"text": [np.zeros(2), fault]}})
        with pytest.raises(UnsafePickleError, match=rf"bad\.pkl: it asks for .*{name}"):
            loads(content, where="bad.pkl")
        assert not os.path.exists("/tmp/affuse-was-here")

    def test_a_function_hidden_in_an_object_array(self):
        array = np.empty(1, object)
        array[0] = Shell()
        with pytest.raises(UnsafePickleError, match="posix"):
            loads(pickle.dumps(array), where="f")

    def test_names_below_an_allowed_module_are_not_allowed_with_it(self):
        for module, name in [("numpy", "fromfile"), ("numpy._core.multiarray", "fromfile")]:
            content = f"c{module}\n{name}\n.".encode()
            with pytest.raises(UnsafePickleError, match=name):
                loads(content, where="f")

    def test_a_dotted_name_does_not_reach_through(self):
        content = pickle.PROTO + b"\x04" + b"\x8c\x05numpy\x8c\x0dndarray.dumps\x93."
        with pytest.raises(UnsafePickleError, match=r"ndarray\.dumps"):
            loads(content, where="f")

    def test_only_plain_codecs_turn_text_into_bytes(self):
        assert loads(pickle.dumps(b"\xff\x00", protocol=2), where="f") == b"\xff\x00"
        content = b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR."
        with pytest.raises(UnsafePickleError, match="codec 'hex'"):
            loads(content, where="f")

    def test_persistent_references(self):
        class Pickler(pickle.Pickler):
            def persistent_id(self, value):
                return "there" if value == "x" else None

        buffer = io.BytesIO()
        Pickler(buffer).dump(["x"])
        with pytest.raises(UnsafePickleError, match="outside the file"):
            loads(buffer.getvalue(), where="f")

    @pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(HARMLESS)[:-20]])
    def test_a_broken_one_is_said_to_be_broken(self, content):
        with pytest.raises(ConfigError, match=r"f: not a readable pickle"):
            loads(content, where="f")

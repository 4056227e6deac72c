"""A pickle gives arrays and containers, or is refused by the name of what it asks for."""

import collections
import gzip
import io
import os
import pickle
import subprocess
import zlib

import numpy as np
import pytest

from cluster.errors import ConfigError
from jobs._pickles import UnsafePickleError, loads

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


def same(left, right):
    if isinstance(right, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in right)
    if isinstance(right, list):
        return all(same(a, b) for a, b in zip(left, right, strict=True))
    return left == right


class TestWhatIsRead:
    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_arrays_and_containers_of_every_protocol(self, protocol):
        content = pickle.dumps(HARMLESS, protocol=protocol)
        assert same(loads(content, where="f"), HARMLESS)

    @pytest.mark.parametrize("squeeze", [gzip.compress, zlib.compress])
    def test_compressed_ones(self, squeeze):
        assert same(loads(squeeze(pickle.dumps(HARMLESS)), where="f"), HARMLESS)

    def test_arrays_that_numpy_1_wrote(self):
        content = pickle.dumps(HARMLESS["train"]["labels"], protocol=2)
        old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        assert same(loads(old, where="f"), HARMLESS["train"]["labels"])

    def test_text_of_python_2(self):
        assert loads(b"S'a\\xe4'\n.", where="f") == "a\xe4"


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

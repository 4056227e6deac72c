"""The steps of recurrences in C (`steps.c`), compiled on this machine when they are first needed.

A step is one or two small matrix products and a dozen element-wise operations; a library call for each of
these costs several times its arithmetic. Where there is no C compiler, on GPUs and in other precisions the
callers make those calls instead; the numbers are the same up to rounding.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("steps.c")
CACHE = Path("~/.cache/affuse/compiled")

FLAGS = (
    *("-O3", "-march=native", "-fopenmp-simd", "-shared", "-fPIC"),
    # What vector instructions need; infinities and NaN stay what they are.
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)

NUMBERS = {
    **dict.fromkeys(("lstm_step", "lstm_step_back", "memory_step", "memory_step_back"), 3),
    **dict.fromkeys(("scan", "scan_back"), 2),
}
"""Function -> how many numbers it takes behind the arrays."""

Arrays = ctypes.Array[ctypes.c_void_p]


def steps_for(x: Tensor) -> ctypes.CDLL | None:
    """The functions of `steps.c` if there are any and they compute on tensors like this one."""
    return library() if x.device.type == "cpu" and x.dtype == torch.float32 else None


def arrays(*tensors: Tensor) -> Arrays:
    """The addresses that a function takes. They are good only while the caller keeps the tensors.

    Raises:
        ValueError: one has gaps or is not in single precision.
    """
    if not all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in tensors):
        came = [(str(tensor.dtype), tensor.shape, tensor.stride()) for tensor in tensors]
        raise ValueError(
            f"expected float32 tensors without gaps, got (dtype, shape, stride) {came}"
        )
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


@functools.lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The functions of `steps.c`; None where they cannot be compiled."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        log.info("no C compiler: recurrences make library calls for every step, which is slower")
        return None
    try:
        steps = ctypes.CDLL(str(compiled(compiler, CACHE.expanduser())))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: no home
        said = getattr(error, "stderr", None) or error
        log.warning(
            "%s cannot compile the steps of recurrences, which is slower: %s", compiler, said
        )
        return None
    for name, count in NUMBERS.items():
        function = getattr(steps, name)
        function.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * count]
        function.restype = None
    return steps


def compiled(compiler: str, cache: Path) -> Path:
    """The shared library, from the cache if this compiler made it from this source for this processor.

    Raises:
        OSError: the cache cannot be written, or others can write to it.
        subprocess.SubprocessError: the compiler failed.
    """
    key = hashlib.sha256(SOURCE.read_bytes())
    key.update(repr((os.path.realpath(compiler), FLAGS, _processor())).encode())
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    facts = cache.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise PermissionError(f"{cache} must belong to this user, and nobody else may write there")
    path = cache / f"{key.hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            made = Path(folder) / path.name
            command = [compiler, *FLAGS, "-o", str(made), str(SOURCE), "-lm"]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            # Processes that compile at the same time make the same file.
            made.replace(path)
    return path


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")

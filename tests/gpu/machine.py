"""The card: what it is, how fast it multiplies, how busy it is; and how a figure is taken and written."""

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

SIDE = {"cuda": 8192, "cpu": 256}
"""Of the square matrices that are multiplied."""


@dataclass(frozen=True)
class Task:
    """What a part is asked to do."""

    seconds: float
    small: bool
    device: str
    work: Path
    """Folder on the machine's disk for weights and clips; the parts share it."""

    begun: float = field(default_factory=time.monotonic)
    ray: bool = True
    encoders: tuple = ()
    nets: tuple = ()

    @classmethod
    def of(cls, options):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(
            seconds=options.seconds,
            small=options.small or device == "cpu",
            device=device,
            work=options.work,
            ray=not options.no_ray,
            encoders=tuple(options.encoders),
            nets=tuple(options.nets),
        )

    @property
    def devices(self):
        """Those that training is compared on."""
        return ["cuda", "cpu"] if self.device == "cuda" else ["cpu"]

    def budget_s(self, share_s):
        """Time that is spent on one figure [s]; small ones say nothing, whatever they take."""
        return min(share_s, 0.02 if self.small else 1.0)

    @property
    def left_s(self):
        """Time that is left [s]."""
        return self.seconds - (time.monotonic() - self.begun)


class Say:
    """Writes one line a figure, at once."""

    def __init__(self, file):
        self._file = file

    def __call__(self, name, **facts):
        print(name, facts, flush=True)
        self._file.write(json.dumps({"name": name, **facts}) + "\n")
        self._file.flush()

    def attempt(self, name, call):
        """The facts of a call; one line where it fails, and the next goes on."""
        print(f"in the middle of {name!r}", flush=True)  # the last words of a part that is stopped
        try:
            self(name, **call())
        except Exception as error:  # noqa: BLE001 (one line a failure, and the next figure)
            said = (str(error).strip().splitlines() or [""])[0]
            self(name, error=f"{type(error).__name__}: {said}"[:300])
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def wait_for(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(call, device, least=3, budget_s=1.0):
    """Median of the seconds that a call takes, after one that is not counted."""
    call()
    wait_for(device)
    taken = []
    while len(taken) < least or sum(taken) < budget_s:
        begun = time.perf_counter()
        call()
        wait_for(device)
        taken.append(time.perf_counter() - begun)
        if sum(taken) > 3 * budget_s:
            break
    return sorted(taken)[len(taken) // 2]


def matrix_rate(device, dtype):
    """What one large product reaches [TFLOP/s]."""
    side = SIDE[device]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = seconds_of(lambda: left @ right, device, budget_s=0.5)
    return 2 * side**3 / seconds / 1e12


def significant(figure):
    """Three digits of it, however small it is.

    >>> significant(791.26), significant(0.00012345)
    (791.0, 0.000123)
    """
    return float(f"{figure:.3g}")


def measure(task, say):
    """Facts of the machine and the rate of its products."""
    facts = {"cores": len(os.sched_getaffinity(0)), "torch": torch.__version__, "gpu": None}
    if task.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        facts |= {"gpu": card.name, "memory_gb": round(card.total_memory / 2**30, 1)}
    say("machine", **facts, small=task.small)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        say.attempt(
            name, lambda dtype=dtype: {"tflops": significant(matrix_rate(task.device, dtype))}
        )


class Busy:
    """Use of the card and its memory while something runs; nothing where there is no card.

    >>> with Busy("cpu") as busy:
    ...     pass
    >>> busy.facts()
    {}
    """

    def __init__(self, device, every_s=0.5):
        self._device, self._every_s = device, every_s
        self._end, self._samples = threading.Event(), []

    def __enter__(self):
        if self._device == "cuda":
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        if self._device == "cuda":
            self._thread.join()

    def _watch(self):
        query = "--query-gpu=utilization.gpu,memory.used"
        words = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
        while not self._end.wait(self._every_s):
            try:
                out = subprocess.run(words, capture_output=True, text=True, timeout=10).stdout
                self._samples.append([float(cell) for cell in out.splitlines()[0].split(",")])
            except (OSError, ValueError, IndexError, subprocess.SubprocessError):
                return

    def facts(self):
        """Mean use [%] and most memory [GB]."""
        if not self._samples:
            return {}
        use, memory = zip(*self._samples, strict=True)
        return {
            "gpu_use": round(sum(use) / len(use), 1),
            "gpu_memory_gb": round(max(memory) / 1024, 2),
        }


def cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))

"""The device that a process may use."""

import sys


def worker_device() -> str:
    """CUDA where a GPU that works is this process's to use, else the CPU.

    A worker of Ray may use what Ray lent it and nothing else: it sees every card of its machine also where it
    was lent none. Any other process may use what it sees.
    """
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        is_worker = ray.get_runtime_context().worker.mode == ray.WORKER_MODE
        if is_worker and not ray.get_gpu_ids():
            return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

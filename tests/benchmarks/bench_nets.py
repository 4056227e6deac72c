"""Forward and backward of every net against its plain form: same weights, outputs asserted equal first.

    python tests/benchmarks/bench_nets.py [--only mfn,tfn] [--threads 2] [--size 50|624] [--clock cpu]

Two sizes: MOSI-like (batch 32, 50 steps, 768/5/20) and the influencer-empathy study's (batch 32, 624 steps,
768/74/35; batch 4 for nets of attention). Dropout is off in both forms. Times are medians of interleaved
runs; ratio = plain / ours. On a machine that does other work too, `--clock cpu --threads 1` counts the
seconds that the process itself computed.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch
from plain_nets import plain_forms, plain_output, prepare

from fusion.batch import Batch, Sequence
from fusion.nets import NETS, net_class, net_config

SIZES = {
    50: {"text": 768, "audio": 5, "video": 20},
    624: {"text": 768, "audio": 74, "video": 35},
}
STUDY = {"ef_lstm": "A7", "graph_mfn": "A14", "lmf": "A9", "lstm": "A1", "mfn": "A10", "tfn": "A8"}
"""Presets of the second size; the other nets run with their defaults."""

ATTENTION = ("bottleneck", "dialogue_profile", "m2fnet", "mult", "sdt")
"""At 624 steps these run with a batch of 4: their plain forms keep every attention matrix."""


def build(name: str, steps: int) -> tuple[torch.nn.Module, Batch]:
    """A net without dropout and a batch whose every step is real."""
    torch.manual_seed(0)
    rows = 4 if steps == 624 and name in ATTENTION else 32
    dims = {"text": 768} if name == "lstm" else SIZES[steps]
    options = {"preset": STUDY[name]} if steps == 624 and name in STUDY else {}
    config = net_config(name, options)
    off = [f.name for f in dataclasses.fields(config) if f.name.endswith("dropout")]
    config = dataclasses.replace(config, **dict.fromkeys(off, 0.0))
    net = prepare(net_class(name)(config, dims=dims, outputs={"y": 1}))
    mask = torch.ones(rows, steps, dtype=torch.bool)
    inputs = {n: Sequence(torch.randn(rows, steps, dim), mask) for n, dim in dims.items()}
    axis = net_class(name).axis
    speaker = torch.zeros(rows, steps, dtype=torch.long)
    extra = {"steps": mask, "speaker": speaker} if axis == "dialogue" else {}
    return net, Batch(inputs=inputs, axis=axis, **extra)


def once(net: torch.nn.Module, batch: Batch, clock: Callable[[], float]) -> float:
    """Seconds of one forward and backward."""
    net.zero_grad(set_to_none=True)
    start = clock()
    net(batch).logits["y"].sum().backward()
    return clock() - start


def compare(
    name: str, steps: int, budget_s: float, clock: Callable[[], float]
) -> tuple[float, float]:
    """Median milliseconds of our form and of the plain one."""
    net, batch = build(name, steps)
    net.eval()
    torch.testing.assert_close(
        net(batch).logits["y"], plain_output(net, batch).logits["y"], atol=1e-4, rtol=1e-4
    )
    net.train()
    ours, plain = [], []
    once(net, batch, clock)
    start = time.perf_counter()
    while len(ours) < 2 or (time.perf_counter() - start < budget_s and len(ours) < 25):
        ours.append(once(net, batch, clock))
        with plain_forms():
            plain.append(once(net, batch, clock))
    return 1e3 * statistics.median(ours), 1e3 * statistics.median(plain)


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(NETS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, choices=list(SIZES))
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds a net and size")
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu adds up the time of all threads; it needs --threads 1")
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    torch.set_num_threads(arguments.threads)
    sizes = [arguments.size] if arguments.size else list(SIZES)
    how = f"{arguments.threads} threads, {arguments.clock} clock, forward + backward"
    print(f"torch {torch.__version__}, {how}\n")
    columns = "".join(f" {s} steps: ms | plain ms | ratio |" for s in sizes)
    print(f"| net | parameters (768/5/20) |{columns}")
    print("|---|--:|" + "--:|--:|--:|" * len(sizes))
    for name in arguments.only.split(","):
        small = net_class(name)(
            net_config(name),
            dims={"text": 768} if name == "lstm" else SIZES[50],
            outputs={"y": 1},
        )
        row = f"| {name} | {sum(p.numel() for p in small.parameters()):,} |"
        for steps in sizes:
            ours, plain = compare(name, steps, arguments.budget, clock)
            row += f" {ours:.1f} | {plain:.1f} | {plain / ours:.2f} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()

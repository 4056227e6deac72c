"""Forward and backward of every net against its plain form: same weights, outputs asserted equal first.

    python tests/benchmarks/bench_nets.py [--only mfn,tfn] [--threads 2] [--size 50|624] [--clock cpu]

Two sizes: MOSI-like (batch 32, 50 steps, 768/5/20) and the influencer-empathy study's (batch 32, 624 steps,
768/74/35; batch 4 for nets of attention), there with default widths and with those of the study where it has
any (the row names the preset). Dropout is off in both forms. The forms take turns; times are medians of the
turns, the ratio is plain / ours, behind it the smallest and the largest ratio of a turn.

GFLOP are those of the matrix products of the plain form, forward and backward, counted as it runs. Divided by
what the machine reaches in one large product (printed above the table) they give the floor: no form that
multiplies the same matrices can be faster. On a machine that does other work too, `--clock cpu --threads 1`
counts the seconds that the process itself computed.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch
from plain_nets import plain_forms, plain_output, prepare
from torch.utils.flop_counter import FlopCounterMode

from fusion.batch import Batch, Steps
from fusion.nets import NETS, net_class, net_config

SIZES = {
    50: {"text": 768, "audio": 5, "video": 20},
    624: {"text": 768, "audio": 74, "video": 35},
}
STUDY = {"ef_lstm": "A7", "graph_mfn": "A14", "lmf": "A9", "lstm": "A1", "mfn": "A10", "tfn": "A8"}
"""Presets of the second size, measured beside the defaults."""

ATTENTION = ("bottleneck", "dialogue_profile", "m2fnet", "mult", "sdt")
"""At 624 steps these run with a batch of 4: their plain forms keep every attention matrix."""


Clock = Callable[[], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turns:
    """Seconds of both forms, turn by turn, and what the plain one multiplies."""

    ours: list[float]
    plain: list[float]
    gflop: float


def build(name: str, steps: int, preset: str | None) -> tuple[torch.nn.Module, Batch]:
    """A net without dropout and a batch whose every step is real."""
    torch.manual_seed(0)
    rows = 4 if steps == 624 and name in ATTENTION else 32
    dims = {"text": 768} if name == "lstm" else SIZES[steps]
    config = net_config(name, {"preset": preset} if preset else {})
    off = [f.name for f in dataclasses.fields(config) if f.name.endswith("dropout")]
    config = dataclasses.replace(config, **dict.fromkeys(off, 0.0))
    net = prepare(net_class(name)(config, dims=dims, outputs={"y": 1}))
    mask = torch.ones(rows, steps, dtype=torch.bool)
    inputs = {n: Steps(torch.randn(rows, steps, dim), mask) for n, dim in dims.items()}
    axis = net_class(name).axis
    speaker = torch.zeros(rows, steps, dtype=torch.long)
    extra = {"steps": mask, "speaker": speaker} if axis == "dialogue" else {}
    return net, Batch(inputs=inputs, axis=axis, **extra)


def once(net: torch.nn.Module, batch: Batch, clock: Clock) -> float:
    """Seconds of one forward and backward."""
    net.zero_grad(set_to_none=True)
    start = clock()
    net(batch).logits["y"].sum().backward()
    return clock() - start


def compare(name: str, steps: int, preset: str | None, budget_s: float, clock: Clock) -> Turns:
    """Both forms in turns, three at least."""
    net, batch = build(name, steps, preset)
    net.eval()
    torch.testing.assert_close(
        net(batch).logits["y"], plain_output(net, batch).logits["y"], atol=1e-4, rtol=1e-4
    )
    net.train()
    with FlopCounterMode(display=False) as counter, plain_forms():
        once(net, batch, clock)
    ours, plain = [], []
    once(net, batch, clock)
    start = time.perf_counter()
    while len(ours) < 3 or (time.perf_counter() - start < budget_s and len(ours) < 25):
        ours.append(once(net, batch, clock))
        with plain_forms():
            plain.append(once(net, batch, clock))
    return Turns(ours=ours, plain=plain, gflop=counter.get_total_flops() / 1e9)


def peak(clock: Clock) -> float:
    """GFLOP/s of a product of two 2048 x 2048 matrices: the best of ten."""
    a, b, out = torch.randn(3, 2048, 2048).unbind(0)
    torch.mm(a, b, out=out)
    seconds = []
    for _ in range(10):
        start = clock()
        torch.mm(a, b, out=out)
        seconds.append(clock() - start)
    return 2 * 2048**3 / min(seconds) / 1e9


def row(name: str, steps: int, preset: str | None, turns: Turns, rate: float) -> str:
    """One line of the table."""
    config = net_config(name, {"preset": preset} if preset else {})
    dims = {"text": 768} if name == "lstm" else SIZES[steps]
    size = sum(p.numel() for p in net_class(name)(config, dims=dims, outputs={"y": 1}).parameters())
    ours, plain = (1e3 * statistics.median(side) for side in (turns.ours, turns.plain))
    ratios = [p / o for p, o in zip(turns.plain, turns.ours, strict=True)]
    label = f"{name} {preset}" if preset else name
    return (
        f"| {label} | {steps} | {size:,} | {turns.gflop:.1f} | {1e3 * turns.gflop / rate:.1f} | "
        f"{ours:.1f} | {plain:.1f} | {plain / ours:.2f} | {min(ratios):.2f}-{max(ratios):.2f} |"
    )


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
    rate = peak(clock)
    print(f"torch {torch.__version__}, {how}; 2048 x 2048 matrices: {rate:.0f} GFLOP/s\n")
    print("| net | steps | parameters | GFLOP | floor ms | ms | plain ms | ratio | of a turn |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in arguments.only.split(","):
        for steps in sizes:
            presets = [None, STUDY[name]] if steps == 624 and name in STUDY else [None]
            for preset in presets:
                turns = compare(name, steps, preset, arguments.budget, clock)
                print(row(name, steps, preset, turns, rate), flush=True)


if __name__ == "__main__":
    main()

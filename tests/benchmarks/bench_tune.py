"""How many seconds tune adds to a trial beyond training it.

A trial of a small net on pooled features trains for a fraction of a second; what Ray Tune, the ledger and the
searcher add must stay below 0.3 s a trial on two cores.

    python tests/benchmarks/bench_tune.py [--trials 60] [--tracking]
"""

import argparse
import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cluster.session import SessionConfig, ray_session
from jobs import tune

spec = importlib.util.spec_from_file_location(
    "small_root", Path(__file__).parents[1] / "jobs" / "small_root.py"
)
small_root = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small_root)


def main() -> None:
    """Search a space of one small net, and compare the clock with the seconds of training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--tracking", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = small_root.write_root(f"{folder}/small")
        space = Path(folder, "space.yaml")
        space.write_text("lr: {log: [1.0e-3, 1.0e-2]}\ninputs: [[voice], [face], [voice, face]]\n")
        base = {
            "root": root,
            "inputs": ("voice", "face"),
            "tasks": ("emotion",),
            "pool": "mean",
            "folds": "speaker",
            "epochs": 10,
            "space": str(space),
            "prune": False,
            "keep": 1,
            "ensemble": False,
            "tracking": arguments.tracking,
            "member_seeds": (0,),
        }
        with ray_session(SessionConfig(num_cpus=2)):
            stamps: list[float] = []
            said = tune.Live.__call__

            def stamped(self: tune.Live, record: object) -> None:
                said(self, record)
                stamps.append(time.monotonic())

            tune.Live.__call__ = stamped
            tune.main(tune.Config(**base, run="bench", trials=arguments.trials))
        ledger = [json.loads(p.read_text()) for p in Path(root, "runs/bench/trials").glob("*.json")]
        ledger.sort(key=lambda record: record["number"])
    # The first trial of each of the two actors pays for its start.
    wall = stamps[-1] - stamps[1]
    trained = sum(record["seconds"] for record in ledger[2:])
    count = len(ledger) - 2
    print(f"{count} trials in {wall:.1f} s, two at a time; training itself {trained:.1f} s of work")
    print(f"overhead per trial: {max(0.0, wall - trained / 2) / count:.3f} s")


if __name__ == "__main__":
    main()

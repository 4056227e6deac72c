"""Does the fusion of the demo hold on other seeds of its corpus?

    python tests/benchmarks/bench_demo.py --root FOLDER [--seeds 0 1 2 3 4 5]

Films, encodes, trains and fuses one corpus a seed under FOLDER (an interrupted run goes on), and prints a
row a seed: NLL and accuracy of what ships and of the calibrated mean, and what ships over the best single
modality. The default was chosen with seeds 0 and 1 in sight: the others are the fairer ones.
"""

import argparse
from pathlib import Path

from cluster import storage
from cluster.session import SessionConfig, ray_session
from jobs import demo
from jobs.catalog import layout
from jobs.demonstration.stages import Stages
from jobs.demonstration.summary import gain_over_modalities
from jobs.evaluation.results_table import Results, from_facts

WORST_NLL = 1.02
"""What ships has at most so many times the NLL of the calibrated mean."""

WORST_POINTS = 0.5
"""And at most so many points of accuracy less."""


def made(config: demo.Config) -> Results:
    """Run the demo up to its bundle; the table of that bundle."""
    stages = Stages(config.root, demo.outputs(config.root))
    for name in ("prepare", "encode", "train", "ensemble"):
        stages.run(name, demo.STAGES[name](config))
    return from_facts(
        storage.read_json(layout.bundle_uri(config.root, demo.BUNDLE, layout.RESULTS))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(6)))
    arguments = parser.parse_args()
    lines = []
    with ray_session(SessionConfig(num_cpus=2)):
        for seed in arguments.seeds:
            config = demo.Config(root=str(arguments.root / str(seed)), seed=seed, tracking=False)
            rows = {row.name: row.figures for row in made(config).rows}
            ships, mean = rows["shipped"], rows["calibrated mean"]
            ratio = ships["nll"].value / mean["nll"].value
            points = 100 * (ships["accuracy"].value - mean["accuracy"].value)
            _, gain = gain_over_modalities(config.root, demo.BUNDLE, resamples=2000)
            held = ratio <= WORST_NLL and points >= -WORST_POINTS
            lines.append(
                f"{seed:4d}  {ships['nll'].value:.3f} {mean['nll'].value:.3f} {ratio:6.3f}"
                f"  {ships['accuracy'].value:.3f} {mean['accuracy'].value:.3f} {points:+5.1f}"
                f"  {100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
                f"  {'holds' if held else 'does not hold'}"
            )
            print(lines[-1], flush=True)
    print(
        "\nseed  NLL: ships, mean, ratio  accuracy: ships, mean, points  over the best modality, points"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()

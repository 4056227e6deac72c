"""Rates of a machine with one GPU and many cores, in at most eight minutes: one JSON and one Markdown table.

    make gpu                                          here, in .venv
    make gpu GPU_PYTHON=python3 WHEELS=wheels         on a machine that nothing can be fetched to
    python tests/gpu/run.py --seconds 480 --out gpu-rates --encoders bert_base videomae --parts encoders nets

Parts: `matrix` (what the card reaches in one large product), `encoders` (each model of the hub at its real
size with random weights: clips of five seconds a second, in bf16 and fp16, at the best batch), `decode` (all
cores), `encode` (decode, models and tables together: the stream with Ray, and a plain pipeline of threads
without it), `nets` (a training step of each, against the cores), `finetune` (a training step of a text, a
speech and a vision model inside a net: whole, half frozen, by low-rank updates, with blocks run again; in
float32 and bf16). Each part runs in a process of its own for its share of the time and writes each figure as
it has it: a part that fails, hangs or outlives its share costs what it did not finish, and a line that says
so.

Without a GPU the models, nets and clips are tiny, and the figures say nothing but that the script works.
WHEELS is a folder of wheels that are installed beside the machine's own packages, without their dependencies,
for as long as the script runs (docs/cluster.md lists which).
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARES = {
    "matrix": 0.04, "encoders": 0.36, "decode": 0.12, "encode": 0.26, "nets": 0.14, "finetune": 0.08,
}  # fmt: skip
"""Of the time; what a part leaves over goes to those after it."""

PARTS = {
    "matrix": ("machine", "measure"),
    "encoders": ("models", "measure"),
    "decode": ("pipeline", "measure_decode"),
    "encode": ("pipeline", "measure_encode"),
    "nets": ("nets", "measure"),
    "finetune": ("finetune", "measure"),
}
"""Module and function of each; one is loaded only in the process of its part."""

LEAST_S = 25.0
"""Time of a part [s]: a busy machine needs some of it to load PyTorch."""

GRACE_S = 5.0
"""Time to end after being told so [s]; more than any figure takes to be written."""


def parsed(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-rates"), help="folder of the results")
    parser.add_argument("--seconds", type=float, help="for everything; 480, or 170 without a GPU")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--encoders", nargs="+", default=[], help="only these models")
    parser.add_argument("--nets", nargs="+", default=[], help="only these nets")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks")
    parser.add_argument("--no-ray", action="store_true", help="leave out the stream of Ray Data")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help="tiny sizes, as without a GPU")
    options = parser.parse_args(argv)
    if options.seconds is None:
        options.seconds = 480.0 if has_gpu() and not options.small else 170.0
    return options


def has_gpu():
    """Whether the driver lists a card; the parts ask PyTorch."""
    try:
        return "GPU" in subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except OSError:
        return False


def main(options):
    """Run every part, and write the results after each."""
    begun = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="affuse-gpu-") as folder:
        environment = with_wheels(options.wheels, Path(folder) / "site")
        found = {"date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "parts": {}}
        shares = {part: SHARES[part] for part in options.parts}
        for part in list(shares):
            left_s = options.seconds - (time.monotonic() - begun) - GRACE_S
            limit_s = max(left_s * shares[part] / sum(shares.values()), min(left_s, LEAST_S))
            del shares[part]
            print(f"{part}: at most {limit_s:.0f} s", flush=True)
            found["parts"][part] = run_part(part, options, limit_s, Path(folder), environment)
            found["seconds"] = round(time.monotonic() - begun, 1)
            write(found, options.out)
    print(f"wrote {options.out}/rates.json and rates.md in {found['seconds']} s")
    return found


def with_wheels(wheels, site):
    """The environment of the parts, with some wheels unpacked where Python finds them."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    paths = [str(ROOT)]
    if wheels is not None:
        files = sorted(map(str, wheels.glob("*.whl")))
        if not files:
            raise SystemExit(f"{wheels} holds no wheels")
        words = ["install", "-q", "--no-index", "--no-deps", "--no-compile", "--target", str(site)]
        subprocess.run([sys.executable, "-m", "pip", *words, *files], check=True)
        paths.insert(0, str(site))
    environment["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    return environment


def run_part(part, options, limit_s, folder, environment):
    """What one part found, line by line, and how it ended."""
    lines, log = folder / f"{part}.jsonl", folder / f"{part}.log"
    words = ["--child", part, "--lines", str(lines), "--seconds", str(max(limit_s - 2, 1))]
    words += ["--work", str(folder)]
    words += ["--small"] if options.small else []
    words += ["--no-ray"] if options.no_ray else []
    for flag, names in (("--encoders", options.encoders), ("--nets", options.nets)):
        words += [flag, *names] if names else []
    begun = time.monotonic()
    with log.open("w") as file:
        child = subprocess.Popen(
            [sys.executable, __file__, *words], cwd=ROOT, env=environment, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        ended = finished(child, limit_s)
    found = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    if ended:
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
        found.append({"name": part, "error": f"{ended}: {last[0][:300]}"})
    return {"seconds": round(time.monotonic() - begun, 1), "found": found}


def finished(child, limit_s):
    """Wait for a part; how it ended where that was not well."""
    try:
        code = child.wait(limit_s)
        return "" if code == 0 else f"ended with status {code}"
    except subprocess.TimeoutExpired:
        # Its session: decoder children and Ray's processes go with it.
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        return f"stopped after {limit_s:.0f} s"


def write(found, out):
    """Replace the results by what is there now."""
    from tests.gpu.table import markdown

    (out / "rates.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    (out / "rates.md").write_text(markdown(found))


def child(options):
    """One part, in its own process."""
    from tests.gpu import machine

    module, function = PARTS[options.child]
    with options.lines.open("a") as file:
        task, say = machine.Task.of(options), machine.Say(file)
        getattr(importlib.import_module(f"tests.gpu.{module}"), function)(task, say)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    chosen = parsed()
    if chosen.child:
        child(chosen)
    else:
        main(chosen)

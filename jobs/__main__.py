"""The command line: `affuse JOB --flags`, equal to `python -m jobs JOB --flags`.

Exit status 0: done. 1: failed, one line says why. 2: the command line or config was not understood.
"""

import importlib
import sys
from collections.abc import Sequence

from cluster.errors import AffuseError, ConfigError, LabelTableError
from jobs import JOBS


def main(argv: Sequence[str] | None = None) -> None:
    """Run one job; never returns normally with an error."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run one job and return the exit status."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if argv else 2
    name, *rest = argv
    if name not in JOBS:
        import difflib

        close = difflib.get_close_matches(name, JOBS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "type: affuse --help"
        print(f"affuse: there is no job {name!r}; {hint}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"jobs.{name}")
    from jobs._cli import parse

    try:
        config = parse(name, module, rest)
    except (ConfigError, ValueError) as error:
        print(f"affuse {name}: {error}", file=sys.stderr)
        return 2
    try:
        module.main(config)
    except LabelTableError as error:
        print(f"affuse {name}: {error}", file=sys.stderr)
        return 1
    except ConfigError as error:
        print(f"affuse {name}: {error}", file=sys.stderr)
        return 2
    except AffuseError as error:
        print(f"affuse {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"affuse {name}: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def overview() -> str:
    """The list of jobs."""
    width = max(map(len, JOBS))
    lines = [f"  {name:<{width}}  {text}" for name, text in JOBS.items()]
    return "\n".join(
        [
            "usage: affuse JOB [options]      (affuse JOB --help lists a job's options)",
            "",
            "Recognise emotion, empathy and sentiment from video, voice and words.",
            "",
            "jobs:",
            *lines,
        ]
    )


if __name__ == "__main__":
    main()

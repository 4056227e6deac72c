"""Turn a source of clips and labels into a manifest: one row a clip, cut into units of work.

Reads:  the source's own files, through one adapter of jobs/datasets
Writes: <root>/manifest/<hash>/  (cluster.tables.MANIFEST, a unit a row group), folds/, dataset.json last

Laptop:  affuse prepare ravdess --source ravdess --root data/ravdess
Own:     affuse prepare folder --source clips --labels labels.csv --tasks mood=classification --root R
Cluster: affuse prepare folder --source s3://bucket/clips --labels l.csv --root s3://bucket/work

Faults of the label table are all listed and stop the job. Faults of media do not: such clips get their rows
from `encode`. Clips that are added later make new units; old ones stay as they are.
"""

import importlib

from cluster import settings
from cluster.errors import ConfigError
from jobs._cli import parse_config, take_config_flag
from jobs.datasets import DATASETS
from jobs.preparing.adapter import Preparation
from jobs.preparing.builder import build

FACTS = "--how prints what to download and where to put it, --cite the papers and the licence."


def configure(argv: list[str]) -> Preparation:
    """`affuse prepare DATASET --flags`, or the resolved config of an earlier time by `--config`."""
    path, argv = take_config_flag(argv)
    values = {} if path is None else settings.read_mapping(path)
    name = str(values.pop("dataset", ""))
    if argv and not argv[0].startswith("-"):
        name, argv = argv[0], argv[1:]
    if not name and argv and argv[0] in ("-h", "--help"):
        print(overview())
        raise SystemExit(0)
    if name not in DATASETS:
        known = ", ".join(DATASETS)
        hint = settings.nearest(name, list(DATASETS)) if name else ""
        raise ConfigError(
            f"there is no dataset {name!r}; {hint}" if name else f"expected a dataset: {known}"
        )
    adapter = importlib.import_module(f"jobs.datasets.{name}")
    for flag, text in (("--how", adapter.ABOUT.how), ("--cite", adapter.ABOUT.cite)):
        if flag in argv:
            print(text())
            raise SystemExit(0)
    config = parse_config(
        f"affuse prepare {name}",
        adapter.Config,
        argv,
        description=f"{adapter.__doc__ or ''}\n{FACTS}",
        given=values,
    )
    assert isinstance(config, Preparation)
    return config


def main(config: Preparation) -> None:
    """Collect, check, probe, split, cut into units, publish."""
    build(config)


def overview() -> str:
    """The list of datasets."""
    width = max(map(len, DATASETS))
    manual = (__doc__ or "").rstrip()
    lines = [f"  {name:<{width}}  {text}" for name, text in DATASETS.items()]
    usage = "usage: affuse prepare DATASET [options]   (affuse prepare DATASET --help lists them)"
    facts = f"affuse prepare DATASET {FACTS}"
    return "\n".join([usage, "", manual, "", "datasets:", *lines, "", facts])

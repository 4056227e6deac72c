"""Make a published table again: as its authors made it, and as it should be made.

Reads:  the dataset as it is handed out
Writes: <root>/reproduce/<preset>.md and .json, and all that prepare, features, encode, train, ensemble and
        evaluate write on the way; every part is an ordinary run or bundle of the root

Presets:  affuse reproduce --list
Laptop:   affuse reproduce mmsa_mosi --data MOSI --root data/mosi
A trial:  affuse reproduce mmsa_mosi --data MOSI --root data/mosi --models TFN LMF --epochs 2 --seeds 1
Cluster:  affuse submit --address URL -- reproduce mmsa_mosi --data s3://bucket/MOSI --root s3://bucket/mosi

Three columns: what was published, the authors' protocol repeated, and a clean protocol with its faults
mended. The page says why the first is not to be compared with the last. Nothing is made twice.
"""

import importlib
import time

from cluster import settings
from cluster.errors import ConfigError
from jobs._cli import parse_config, take_config_flag
from jobs.reproducing import PRESETS, preset
from jobs.reproducing.preset import Model, Protocol, ReproduceConfig
from jobs.reproducing.running import CellFigures, Workshop, caption, prepare
from jobs.reproducing.table import publish

Config = ReproduceConfig
"""Its fields are in `jobs.reproducing.preset`, since the presets read them."""


def configure(argv: list[str]) -> Config:
    """`affuse reproduce PRESET --flags`, or `--list`, which prints the presets and leaves."""
    if "--list" in argv:
        print(overview())
        raise SystemExit(0)
    path, argv = take_config_flag(argv)
    values = {} if path is None else settings.read_mapping(path)
    if argv and not argv[0].startswith("-"):
        values["preset"], argv = argv[0], argv[1:]
    if "preset" in values:
        preset(str(values["preset"]))
    config = parse_config("affuse reproduce", Config, argv, description=__doc__ or "", given=values)
    assert isinstance(config, Config)
    return config


def main(config: Config) -> None:
    """Prepare the data, make and judge every model by both protocols, write the table."""
    start = time.monotonic()
    chosen = preset(config.preset)
    prepare(config, chosen)
    models = {model.name: model for model in chosen.models(config)}
    asked = asked_for(config, models)
    workshop = Workshop(config, chosen, models)
    cells: dict[str, dict[Protocol, CellFigures]] = {}
    for name in asked:
        judged = {
            protocol: workshop.judged(models[name], protocol) for protocol in config.protocols
        }
        cells[name] = {protocol: found for protocol, found in judged.items() if found is not None}
        page = publish(config, chosen, models, cells)
        print(f"{config.preset}: {len(cells)} of {len(asked)} models are judged", flush=True)
    caption(config, chosen, next(iter(cells.values())))
    print(f"wrote {page} in {time.monotonic() - start:.0f} s")


def asked_for(config: Config, models: dict[str, Model]) -> tuple[str, ...]:
    """The models to make.

    Raises:
        ConfigError: one is not among the preset's.
    """
    for name in config.models:
        if name not in models:
            hint = settings.nearest(name, list(models))
            raise ConfigError(f"{config.preset} has no model {name!r}; {hint}")
    return config.models or tuple(models)


def overview() -> str:
    """The presets: what each makes again, which data it needs, and their licence."""
    lines = ["usage: affuse reproduce PRESET --data FILE_OR_FOLDER --root FOLDER", ""]
    for name in PRESETS:
        found = preset(name)
        about = importlib.import_module(f"jobs.datasets.{found.dataset}").ABOUT
        lines += [
            name,
            f"  table:    {found.title}",
            f"  source:   {found.source}",
            f"  data:     {found.data}",
            f"  get it:   affuse prepare {found.dataset} --how",
            f"  licence:  {about.licence or 'that of the data you bring'}",
            "",
        ]
    return "\n".join(lines)

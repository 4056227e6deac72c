"""Hand a bundle on: register it in MLflow, make it the champion, or write it out for a model hub.

`affuse ensemble` and `affuse tune` register what they ship; `register` does it later, or for a bundle that
was made while MLflow was away. `promote` moves an alias to a bundle, only if the paired test on held-out
clips says that it is not worse and in one primary figure better than what has the alias now. Where a bundle
is asked for, `models:/NAME@champion` stands for the one that has it.

Reads:  <root>/bundles/<bundle>/
Writes: MLflow's model registry (MLFLOW_TRACKING_URI, or <root>/mlflow.db); export: --out FOLDER

Register: affuse bundle register --root data/ravdess --bundle ensemble
Promote:  affuse bundle promote --root data/ravdess --bundle ensemble --model ravdess
Hub:      affuse bundle export --root data/ravdess --bundle ensemble --out to_hub
Call:     affuse score clip.mp4 --root data/ravdess --bundle models:/ravdess@champion
Server:   MLFLOW_TRACKING_URI=... mlflow models serve --model-uri models:/ravdess@champion --env-manager local
"""

from dataclasses import dataclass
from typing import Any

from cluster import storage
from cluster.errors import ConfigError
from cluster.model_registry import ModelRegistry
from cluster.settings import NameOrPlace, Place
from jobs.catalog import bundles, layout
from jobs.catalog.manifest import read_dataset
from jobs.catalog.names import check_names
from jobs.catalog.outputs import check_outputs, publish_outputs
from jobs.evaluation.judging import check_resamples
from jobs.registry.export import exported
from jobs.registry.promotion import PromotionVerdict, compared
from jobs.registry.registering import dataset_of, register, write_card
from jobs.scoring.opening import open_bundle


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    """Make a bundle the next version of a registered model."""

    root: Place
    """Folder or URI of the dataset."""

    bundle: str = "ensemble"
    """Bundle under the root."""

    model: str | None = None
    """Name of the registered model; by default the bundle's. Datasets that share a server need one each."""

    def __post_init__(self) -> None:
        check_names(bundle=self.bundle, model=self.model)


@dataclass(frozen=True, kw_only=True)
class PromoteConfig(RegisterConfig):
    """Move an alias of a registered model to a bundle that is better than the one that has it."""

    alias: str = "champion"
    """Alias to move."""

    resamples: int = 5000
    """Number of bootstrap resamples and of sign flips."""

    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(alias=self.alias)
        check_resamples(self.resamples)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a bundle as a folder for a model hub."""

    out: Place
    """Folder to write."""

    bundle: NameOrPlace = "ensemble"
    """Bundle: a name under --root, a folder, or models:/NAME@ALIAS."""

    root: Place = ""
    """Folder or URI of the dataset."""

    overwrite: bool = False
    """Replace files of --out that no earlier run made."""


COMMANDS = {"register": RegisterConfig, "promote": PromoteConfig, "export": ExportConfig}


def main(config: RegisterConfig | PromoteConfig | ExportConfig) -> None:
    """Do what the command says."""
    if isinstance(config, ExportConfig):
        export(config)
        return
    root = storage.absolute(config.root)
    write_card(root, config.bundle)
    version = register(root, config.bundle, config.model)
    print(f"{version.uri} is {config.bundle} of {root}")
    if isinstance(config, PromoteConfig):
        promote(config, root, version)


def promote(config: PromoteConfig, root: str, new: Any) -> None:
    """Move the alias, or say why not.

    Raises:
        ConfigError: the bundle is worse, or not shown to be better.
    """
    registry = ModelRegistry(root)
    old = registry.find(new.name, config.alias)
    if old is not None and old.version == new.version:
        print(f"nothing to do: {new.uri} has the alias {config.alias}")
        return
    if old is not None:
        verdict = judged(config, root, old.tags.get("affuse.bundle", ""))
        print(f"{config.bundle} against {old.uri}: {verdict.said}")
        if not verdict.passes:
            why = (
                f"worse in {', '.join(verdict.worse)}"
                if verdict.worse
                else "not shown to be better in any of " + ", ".join(verdict.gains)
            )
            raise ConfigError(
                f"{config.bundle} is {why} than {old.uri}, which keeps {config.alias}"
            )
    registry.move(config.alias, new)
    print(f"models:/{new.name}@{config.alias} is {new.uri}")


def judged(config: PromoteConfig, root: str, champion: str) -> PromotionVerdict:
    """The bundle beside the one that has the alias.

    Raises:
        ConfigError: that one is of another root, or was made anew under its name since.
    """
    if champion not in layout.bundles_there(root):
        raise ConfigError(
            f"the bundle {champion!r} that has the alias {config.alias} is not under {root}: nothing can be "
            "compared; type another --alias, or remove the alias in MLflow"
        )
    if champion == config.bundle:
        raise ConfigError(
            f"{champion} was made anew since it got the alias {config.alias}, and its former predictions are "
            "gone; type: affuse ensemble --bundle OTHER, then promote that"
        )
    name = str(bundles.read_bundle(root, config.bundle)["task"])
    task = read_dataset(root).tasks[name]
    return compared(
        root, config.bundle, champion, name, task, resamples=config.resamples, seed=config.seed
    )


def export(config: ExportConfig) -> None:
    """Write the folder.

    Raises:
        ConfigError: a file there was not made by an earlier export.
    """
    root = storage.absolute(config.root) if config.root else ""
    bundle = open_bundle(config.bundle, root)
    if bundle.uri is None:
        raise ConfigError(f"{bundle.name} has no nets of its own to export; type: --bundle NAME")
    out = storage.absolute(config.out)
    contents = {
        storage.join(out, name): content
        for name, content in exported(bundle.uri, bundle.facts, dataset_of(root))
    }
    record = storage.join(out, f".{layout.CONFIG}")
    check_outputs(contents, record, overwrite=config.overwrite)
    publish_outputs(None, contents, record, whole=True)
    print(f"wrote {out}: {len(contents)} files; README.md is the card")

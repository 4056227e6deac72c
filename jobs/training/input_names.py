"""What the inputs of a net are called in its batches, and options that call them so."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cluster import settings
from cluster.errors import ConfigError
from fusion.nets import names_typed
from jobs.catalog.features import feature_folders, resolve_features


def input_folders(
    root: str, inputs: Sequence[str], facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Name in a batch -> feature folder: the modality where it is unique, else the encoder's name.

    Args:
        root: of the dataset.
        inputs: as typed.
        facts: feature folder -> what stands beside it.

    Raises:
        ConfigError: no inputs, a table twice, or an augmented view.
        NotPreparedError: an input is not there.
    """
    if not inputs:
        raise ConfigError("inputs: expected at least one encoder, e.g. --inputs minilm egemaps")
    folders = [resolve_features(root, text) for text in inputs]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"inputs {list(inputs)} name a table twice: {folders}")
    for folder in folders:
        if "view" in facts[folder]:
            raise ConfigError(
                f"{folder} is an augmented view of {facts[folder]['view']['of']}, which only training "
                "rows may see; name its encoder, and --views"
            )
    modality = [str(facts[folder].get("modality") or folder) for folder in folders]
    encoder = [str(facts[folder].get("name") or folder) for folder in folders]
    names = []
    for index, folder in enumerate(folders):
        if modality.count(modality[index]) == 1:
            names.append(modality[index])
        elif encoder.count(encoder[index]) == 1:
            names.append(encoder[index])
        else:
            names.append(folder)
    # A table may be called as the modality of another.
    return dict(zip(names if len(set(names)) == len(names) else folders, folders, strict=True))


def check_option_names(
    root: str, sets: Iterable[Sequence[str]], options: Iterable[tuple[str, Any]]
) -> None:
    """Refuse options of a net that name an input which no set of inputs has: they would change nothing.

    Args:
        root: of the dataset.
        sets: sets of inputs, as typed.
        options: options as typed, and their values.

    Raises:
        ConfigError: naming the inputs that are there.
    """
    typed = [(key, name) for key, value in options for name in names_typed(key, value)]
    if not typed:
        return
    facts = feature_folders(root)
    known = sorted({name for some in sets for name in input_folders(root, some, facts)})
    for key, name in typed:
        if name not in known:
            raise ConfigError(
                f"{key}: no input is called {name!r}; {settings.nearest(name, known)}"
            )

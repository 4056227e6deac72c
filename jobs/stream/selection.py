"""Encoders of a command, and the checks before anything starts."""

from collections.abc import Sequence
from dataclasses import replace

from cluster import storage
from cluster.errors import ConfigError
from encoders import ENCODERS, TRANSCRIBERS
from encoders.registry import describe, find
from encoders.spec import Descriptor, View
from encoders.store import default_store, local_paths
from jobs.catalog.manifest import units
from jobs.stream.job import Work


def encoder_table() -> str:
    """Table of encoders and transcribers, to choose from."""
    rows = [("encoder", "reads", "dim", "layers", "size", "licence", "what it is")]
    for name in [*ENCODERS, *TRANSCRIBERS]:
        spec = find(name)
        size_mb = sum(item.size_mb for item in spec.weights)
        rows.append(
            (
                name,
                spec.modality,
                str(spec.dim) if name in ENCODERS else "text",
                str(spec.num_layers),
                f"{size_mb:.0f} MB" if size_mb else "-",
                spec.licence,
                spec.summary,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def chosen_store(named: str | None, root: str) -> str:
    """Store of the weights: the one that was named, else the default of the root, said where it is remote."""
    if named is not None:
        return named
    store = default_store(root)
    if not storage.is_local(store):
        print(f"weights: {store}, beside the remote root; --store names another")
    return store


def chosen_work(
    root: str,
    encoders: Sequence[str],
    transcriber: str | None,
    store: str,
    *,
    views: int = 0,
    find_weights: bool = True,
) -> Work:
    """The encoders of a command, their weights found; a transcriber only where text is missing.

    Args:
        root: of the dataset.
        encoders: as they are typed, with their options.
        transcriber: as it is typed.
        store: of the weights.
        views: augmented views of each clip.
        find_weights: look for them; a plan does not need them.

    Raises:
        ConfigError: an unknown encoder or option, or one named twice.
        WeightsError: weights are not in the store.
    """
    recogniser = None
    if transcriber is not None:
        if transcriber.partition(":")[0] not in TRANSCRIBERS:
            raise ConfigError(
                f"there is no transcriber {transcriber!r}; known: {', '.join(TRANSCRIBERS)}"
            )
        recogniser = describe(transcriber)
        if not _wordless(root):
            print(f"{recogniser.name} is not needed: every clip has its text")
            recogniser = None
    upstream = () if recogniser is None else (recogniser.fingerprint,)
    descriptors = []
    for text in encoders:
        if text.partition(":")[0] not in ENCODERS:
            describe(text)  # names the nearest known one
            raise ConfigError(f"{text!r} is no encoder; type: --transcriber {text}")
        descriptors.append(describe(text, upstream=upstream if describe(text).reads_text else ()))
    check_context(root, descriptors)
    folders = [item.folder for item in descriptors]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"--encoders {' '.join(encoders)}: one is named twice")
    store = storage.absolute(store)
    for item in [*descriptors, *([recogniser] if recogniser else [])] if find_weights else ():
        local_paths(item.weights, store)
    descriptors += views_of(descriptors, views)
    return Work(descriptors=tuple(descriptors), transcriber=recogniser, store=store)


def check_context(root: str, descriptors: Sequence[Descriptor]) -> None:
    """Refuse a context of neighbours whose texts are not known before the stream starts.

    Raises:
        ConfigError: an encoder reads its neighbours, and some clips of the manifest have no text.
    """
    reading = [item.name for item in descriptors if item.options.get("context", "none") != "none"]
    wordless = _wordless(root) if reading else 0
    if wordless:
        raise ConfigError(
            f"{', '.join(reading)}: context reads neighbouring texts, and {wordless} clips have none in "
            "the manifest; add the texts by `affuse prepare`, or leave context=none"
        )


def _wordless(root: str) -> int:
    """Clips of the manifest that have no text."""
    return sum(ref.wordless for ref in units(root))


def views_of(descriptors: Sequence[Descriptor], count: int) -> list[Descriptor]:
    """The same encoders of augmented clips; text has no views.

    Raises:
        ConfigError: views are asked for, and all encoders read text.
    """
    seeing = [item for item in descriptors if item.spec.modality != "text"]
    if count and not seeing:
        raise ConfigError(f"--views {count}: text has none; name an encoder of sound or pictures")
    return [
        replace(item, view=View(number=number, mirror=not item.finds_faces))
        for item in seeing
        for number in range(1, count + 1)
    ]


def models_gb(work: Work) -> dict[str, float]:
    """Memory of each model for the plan [GB]; the transcriber comes first, since others may read it.

    Views are encoded by the model of their encoder.
    """
    chosen = [*([work.transcriber] if work.transcriber else []), *work.descriptors]
    return {item.base.folder: item.spec.memory_gb for item in chosen} | dict(work.nets_gb)

"""affuse in a notebook or a script: the same as the command line, in a few calls.

    import affuse
    affuse.score("clip.mp4")                                       # a DataFrame, a row a clip
    bundle = affuse.load_bundle("data/ravdess/bundles/ensemble")
    bundle = affuse.load_bundle("models:/ravdess@champion", root="data/ravdess")   # once promoted
    bundle.predict(["a.mp4", "b.wav"])                             # or a DataFrame: clip, text, start_s, ...
    bundle.explain("a.mp4")                                        # what each modality and member adds
    affuse.features("clip.mp4", "egemaps")                         # a DataFrame, a row a step

This module is a door and nothing else: it loads neither torch nor Ray until a function is called.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from jobs.library.clip_rows import ClipsGiven
    from jobs.library.loaded_bundle import LoadedBundle

__all__ = ["features", "load_bundle", "score"]


def score(
    clips: "ClipsGiven",
    *,
    bundle: str | None = None,
    root: str = "",
    store: str | None = None,
    coverage: float | None = None,
) -> "pd.DataFrame":
    """Score clips.

    Args:
        clips: a path, URI, folder or pattern, several of them, or a frame (see `LoadedBundle.predict`).
        bundle: as `load_bundle` takes it.
        root: as `load_bundle` takes it.
        store: as `load_bundle` takes it.
        coverage: as `load_bundle` takes it.

    Returns:
        A row a clip: name, label, confidence, a column p_CLASS for each class (or value), the modalities
        that were there, status and error.

    Raises:
        cluster.errors.AffuseError: the message says what came, what was expected and what to type.
    """
    return load_bundle(bundle, root=root, store=store, coverage=coverage).predict(clips)


def load_bundle(
    place: str | None = None,
    *,
    root: str = "",
    store: str | None = None,
    coverage: float | None = None,
) -> "LoadedBundle":
    """Open a bundle; its models are loaded by the first call that needs them, and stay.

    Args:
        place: a folder, `models:/NAME@ALIAS` or `models:/NAME/VERSION`, or a plain name under `root`. By
            default the only or newest bundle under `root`; without a root `face_expression`, which needs no
            training.
        root: folder or URI of a dataset: of a plain name, and of a registered model where MLFLOW_TRACKING_URI
            names no server.
        store: of pretrained weights; by default ~/.cache/affuse/store.
        coverage: gives each clip the classes (each value the interval) that hold the truth for this share of
            a new person's clips [0.5..0.99].

    Raises:
        cluster.errors.AffuseError: there is no such bundle, or it was trained with other encoders.
    """
    from jobs.library.loaded_bundle import load

    return load(place, root=root, store=store, coverage=coverage)


def features(
    clips: "ClipsGiven",
    encoder: str,
    *,
    transcriber: str | None = None,
    store: str | None = None,
) -> "pd.DataFrame":
    """Encode clips with one pretrained encoder.

    Args:
        clips: as `score` takes them.
        encoder: as `affuse encode --encoders` takes it, e.g. "minilm:layers=all".
        transcriber: recognises the speech of clips without text, for an encoder of text.
        store: of pretrained weights; by default ~/.cache/affuse/store.

    Returns:
        A row a step: name, start_s, end_s, valid, status and error, then a column a feature. A clip without
        a step has one row, without numbers.

    Raises:
        cluster.errors.AffuseError: no such encoder, or its weights are not there.
    """
    from jobs.library.encoding import encoded

    return encoded(clips, encoder, transcriber=transcriber, store=store)

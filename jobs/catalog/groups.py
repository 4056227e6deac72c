"""Groups of clips (speaker, dialogue, film): splits, bootstrap and cross-fitting never divide one."""

from collections.abc import Iterable

import numpy as np

from cluster.errors import NotPreparedError
from jobs.catalog.manifest import read_manifest


def groups_of(root: str, clip_id: np.ndarray) -> np.ndarray:
    """Code of each clip's group [row]; a clip without a group stands for itself.

    Raises:
        NotPreparedError: clips that the present manifest does not know.
    """
    manifest = read_manifest(root, ["clip_id", "group"])
    group = dict(zip(manifest["clip_id"].to_pylist(), manifest["group"].to_pylist(), strict=True))
    unknown = [clip for clip in clip_id.tolist() if clip not in group]
    if unknown:
        raise NotPreparedError(
            f"{len(unknown)} predicted clips are not in the manifest any more (first: {unknown[0]}); "
            "train again on the present manifest"
        )
    names = group_names((group[clip] for clip in clip_id.tolist()), clip_id)
    return np.unique(names, return_inverse=True)[1]


def group_names(group: Iterable[str | None], clip_id: np.ndarray) -> np.ndarray:
    """Name of each clip's group [row]; a clip without one stands for itself."""
    pairs = zip(group, clip_id.tolist(), strict=True)
    return np.array([name or f"clip {clip}" for name, clip in pairs], dtype=str)

"""The ranges of a new bundle: where the features of its training clips lie."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import AffuseError
from jobs.catalog.bundles import nets_of_run
from jobs.catalog.manifest import read_manifest
from jobs.scoring.feature_range import MOST_CLIPS, fitted_ranges
from jobs.scoring.member_nets import clips_without_labels, load_member

COLUMNS = ("clip_id", "name", "dialogue", "turn", "speaker", "group")


def training_ranges(
    root: str, runs: Sequence[str], clip_id: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Feature table -> the state of its range; empty, with a line, where nets or features cannot be read.

    Args:
        root: the dataset.
        runs: the members that ship.
        clip_id: of clips that they were trained on.
    """
    if len(clip_id) > MOST_CLIPS:
        clip_id = np.random.default_rng(0).choice(clip_id, MOST_CLIPS, replace=False)
    manifest = read_manifest(root, list(COLUMNS))
    wanted = pc.is_in(manifest["clip_id"], value_set=pa.array(np.unique(clip_id)))
    clips = clips_without_labels(manifest.filter(wanted).sort_by("clip_id").to_pylist())
    try:
        members = [load_member(run, nets_of_run(root, run)) for run in runs]
        found = fitted_ranges(root, members, clips)
    except (AffuseError, ValueError) as error:  # nets that are none, features that are gone
        print(
            f"no training range of features, so that `affuse score` cannot warn of others: {error}"
        )
        return {}
    return {folder: one.state() for folder, one in found.items()}

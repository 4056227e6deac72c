"""The parts of a run, one net each, and the role of each clip in a part: train, valid or held out."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cluster import storage
from cluster.errors import ConfigError
from fusion.training.ordering import seed_of
from jobs.catalog import layout
from jobs.catalog.groups import group_names
from jobs.catalog.predictions import predictions_uri
from jobs.training.feeds import Clips


@dataclass(frozen=True, kw_only=True)
class Split:
    """Clips by role, as masks; every clip has at most one."""

    train: np.ndarray
    valid: np.ndarray
    oof: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Part:
    """One net to train."""

    seed: int
    fold: int | None
    """None: the refit on all rows."""

    def folder(self, root: str, run: str) -> str:
        """Folder of the part."""
        return layout.part_uri(root, run, self.fold, self.seed)

    def commit(self, root: str, run: str) -> str:
        """The file whose existence means that the part is done."""
        if self.fold is None:
            return storage.join(self.folder(root, run), layout.WEIGHTS)
        return predictions_uri(root, run, self.fold, self.seed)

    def checkpoint(self, root: str, run: str) -> str:
        """The checkpoint from which it resumes."""
        return storage.join(self.folder(root, run), layout.CHECKPOINT)

    @property
    def title(self) -> str:
        """Name of the part in progress lines."""
        return f"{'refit' if self.fold is None else f'fold {self.fold}'} seed {self.seed}"


def split_of(
    clips: Clips, part: Part, *, valid_share: float, has_folds: bool, share: float = 1.0
) -> Split:
    """Roles of the clips in one part.

    With folds the part's fold is held out and some groups of the rest choose the epoch; each seed draws its
    own, so that the seeds of a fold together see all of its rows. A valid share of 0 keeps nobody back: the
    net trains on all of the rest and its last epoch counts. Without folds the valid split chooses (or,
    where the dataset has none, some groups of the rest, the same for every seed).

    A share leaves out training groups, and with folds groups that choose the epoch; judged rows stay.
    """
    split = _whole_split(clips, part, valid_share, has_folds)
    if share == 1.0:
        return split
    order = seed_of("share", "refit" if part.fold is None else part.fold, part.seed)
    train = share_of_groups(clips, split.train, share, order)
    valid = share_of_groups(clips, split.valid, share, order) if has_folds else split.valid
    return Split(train=train, valid=valid, oof=split.oof)


def _whole_split(clips: Clips, part: Part, valid_share: float, has_folds: bool) -> Split:
    nobody = np.zeros(len(clips), bool)
    if part.fold is None:
        return Split(train=~nobody, valid=nobody, oof=nobody)
    if has_folds:
        oof = clips.fold == part.fold
        if valid_share == 0:
            return Split(train=~oof, valid=nobody, oof=oof)
        valid = some_groups(clips, ~oof, valid_share, seed_of("inner", part.fold, part.seed))
        return Split(train=~oof & ~valid, valid=valid, oof=oof)
    valid = clips.split == "valid"
    if not valid.any():
        valid = some_groups(clips, ~nobody, valid_share, seed_of("inner"))
    return Split(train=~valid, valid=valid, oof=nobody)


def some_groups(clips: Clips, among: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Whole groups drawn at random until they hold a share of the labelled rows.

    A group without any label can neither choose nor judge: none is drawn.

    Raises:
        ConfigError: there is only one group that has labels.
    """
    group = group_names(clips.group, clips.clip_id)
    labelled = np.stack([is_known(flags) for flags in clips.known.values()]).any(0)
    names, counts = np.unique(group[among & labelled], return_counts=True)
    if len(names) < 2:
        raise ConfigError(
            f"the labelled rows to train on are all of one group ({names.tolist()}): nothing is left "
            "to choose the epoch by; type --valid-share 0 (the last epoch counts), or other --folds"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    wanted = max(1, int(np.searchsorted(counts[order].cumsum(), share * counts.sum()) + 1))
    return among & np.isin(group, names[order[: min(wanted, len(names) - 1)]])


def share_of_groups(clips: Clips, among: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The first groups of a random order, at least one; those of a smaller share are among them."""
    group = group_names(clips.group, clips.clip_id)
    names = np.unique(group[among])
    order = np.random.default_rng(seed).permutation(len(names))
    return among & np.isin(group, names[order[: max(1, round(share * len(names)))]])


def is_known(flags: Tensor) -> np.ndarray:
    """Whether a clip has a target, or one of several labels [clip]."""
    return flags.reshape(len(flags), -1).any(1).numpy()

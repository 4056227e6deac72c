"""What accuracy to expect of a collection that has been scored, and what is unlike the training data."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster import console, storage
from fusion.shift import Expectation
from jobs.catalog import layout
from jobs.catalog.manifest import manifest_files, read_dataset
from jobs.scoring.bundle import Bundle, modalities_of
from jobs.scoring.outcome import show_outcome
from jobs.scoring.tally import Tally

ODD_SHARE = 0.05
"""Share of unusual clips that is never warned of: 1 % of the training clips are, and people differ."""

FOREIGN_SHARE = 0.5
"""Share of unusual clips beyond which the training data says nothing of a collection."""


OWN_SHARE = 0.01
"""Share of clips of the training part beyond which a collection is no new one."""


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """A collection as the bundle sees it, without its labels."""

    expected: float | None
    """Share of the answers (labels) that are right; None: it cannot tell."""

    low: float | None
    high: float | None
    """95 % interval, which honours how few people there were in training and are here."""

    training: float | None
    """The same share in training, on people left out."""

    reason: str
    """Why it cannot tell; empty where it can."""

    people: int
    clips: int
    """That have an answer."""

    unusual: Mapping[str, float]
    """Input -> share of the clips whose features lie outside the training range."""

    odd: tuple[str, ...]
    """Inputs of which more clips are unusual than of nearly all people in training."""

    missing: Mapping[str, float]
    """Modality -> share of the answered clips that lack it."""

    def lines(self) -> Iterator[str]:
        """What to print."""
        if self.expected is None:
            yield f"expected accuracy: cannot tell: {self.reason}"
        else:
            yield (
                f"expected accuracy: {self.expected:.2f} [{self.low:.2f}, {self.high:.2f}] "
                f"({self.training:.2f} in training, on people left out)"
            )
        for name in self.odd:
            yield (
                f"warning: {name}: features of {self.unusual[name]:.0%} of the clips lie outside the "
                "training range"
            )

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def outlook(
    bundle: Bundle, tally: Tally, people: int, root: str = "", *, is_own: bool = False
) -> Outlook:
    """The outlook on scores.

    Args:
        bundle: that made them.
        tally: of the scores.
        people: groups in the collection, 1 where nobody is named.
        root: of the dataset that was scored, which knows the modality of imported inputs; empty: files.
        is_own: the dataset has clips that the bundle was trained on.
    """
    state = bundle.facts.get("expectation")
    names = {item.folder: item.spec.name for item in bundle.encoders} | dict(bundle.imported)
    unusual = tally.shares("unusual", sorted(names.values()))
    usual = {names[f]: one["usual"] for f, one in bundle.facts.get("ranges", {}).items()}
    odd = tuple(n for n, share in unusual.items() if share > max(ODD_SHARE, usual.get(n, 0.0)))
    modalities = sorted({*modalities_of(bundle, root).values()})
    there = tally.shares("modalities", modalities)
    mean = tally.expected / tally.foreseen if tally.foreseen else None
    reason = _reason(bundle, state, unusual, mean)
    fitted = None if state is None else Expectation.from_state(state)
    if fitted is not None and is_own:
        reason = (
            "the bundle was trained on clips of this dataset, where it is right more often than "
            f"elsewhere ({fitted.accuracy:.2f} on people left out)"
        )
    low = high = None
    if fitted is not None and mean is not None and not reason:
        reach = fitted.margin(people, tally.answered, mean)
        low, high = max(0.0, mean - reach), min(1.0, mean + reach)
    return Outlook(
        expected=None if reason else mean,
        low=low,
        high=high,
        training=None if fitted is None else fitted.accuracy,
        reason=reason,
        people=people,
        clips=tally.answered,
        unusual=unusual,
        odd=odd,
        missing={name: 1 - share for name, share in there.items()},
    )


def show_result(
    bundle: Bundle, tally: Tally, root: str = "", name: str = "", groups: int | None = None
) -> None:
    """Print what many scores say all together; arguments as of `show_outlook`."""
    show_outcome(tally)
    show_outlook(bundle, tally, root, name, groups)


def show_outlook(
    bundle: Bundle, tally: Tally, root: str = "", name: str = "", groups: int | None = None
) -> None:
    """Print the outlook on scores; of a dataset it is written beside them.

    Args:
        bundle: that made them.
        tally: of the scores.
        root: of the dataset; empty: files, of which nobody says whose they are.
        name: of the scores.
        groups: of the dataset, where they have been counted; clips that name none are of one.
    """
    if root and groups is None:
        groups = groups_in(root)
    is_own = bool(root) and was_trained_on(bundle, root)
    seen = outlook(bundle, tally, max(1, groups or 0), root, is_own=is_own)
    if root:
        uri = layout.scores_uri(root, name)
        storage.publish_json(seen.facts(), storage.join(uri, layout.OUTLOOK))
    for line in seen.lines():
        print(console.readable(line))


def was_trained_on(bundle: Bundle, root: str) -> bool:
    """Whether a dataset has clips of the bundle's training part, also where others came or left since.

    A bundle knows its clips by the rows that it was judged on. One without them (exported, or of an earlier
    version) knows the manifest alone. Names may be the same in other datasets, so those are not compared.
    """
    dataset = read_dataset(root)
    if bundle.facts.get("manifest") == dataset.manifest_hash:
        return True
    is_here = bundle.uri == layout.bundle_uri(root, bundle.name)
    if bundle.uri is None or not (is_here or bundle.facts.get("dataset") == dataset.name):
        return False
    uri = storage.join(bundle.uri, layout.PREDICTIONS)
    if not storage.exists(uri):
        return False
    known = pc.unique(storage.open_parquet(uri).read(columns=["clip_id"])["clip_id"])
    count = shared = 0
    for file in manifest_files(root):
        clips = storage.open_parquet(file).read(columns=["clip_id"])["clip_id"]
        count += len(clips)
        shared += pc.sum(pc.is_in(clips, value_set=known)).as_py() or 0
    return shared > OWN_SHARE * count


def groups_in(root: str) -> int:
    """Groups of a dataset."""
    seen = pa.array([], pa.string())
    for file in manifest_files(root):
        groups = storage.open_parquet(file).read(columns=["group"])["group"]
        seen = pc.unique(pa.chunked_array([seen, *groups.chunks]))
    return len(seen.drop_null())


def _reason(
    bundle: Bundle,
    state: Mapping[str, Any] | None,
    unusual: Mapping[str, float],
    mean: float | None,
) -> str:
    """Why nothing can be said of the accuracy; empty where something can."""
    if bundle.uri is None:
        return "the bundle was not fitted on anybody's labels"
    if state is None:
        if bundle.facts.get("kind") == "regression":
            return "values have none"
        if "expectation" in bundle.facts:
            return "the bundle was fitted on too few people"
        return "the bundle was made before it was foreseen; type affuse ensemble again"
    if mean is None:
        return "no clip has an answer"
    foreign = [name for name, share in unusual.items() if share > FOREIGN_SHARE]
    if foreign:
        return f"most clips lie outside the training range in {', '.join(foreign)}"
    return ""

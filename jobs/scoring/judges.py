"""The bundles of one command, each with the folder of its scores, and which of them share a pass.

A pass has one transcriber, so bundles that read words share a pass only if they read those of the same
transcriber, or of none. Bundles that read no words go with any.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cluster import storage
from cluster.errors import ConfigError
from cluster.resources import Plan, WorkersConfig, plan_stream
from cluster.session import Capacity
from jobs.catalog import layout
from jobs.catalog.bundles import nets_of_member
from jobs.catalog.label_names import check_bundle
from jobs.scoring.bundle import Bundle, as_needed
from jobs.scoring.config import ScoreConfig
from jobs.scoring.in_process import work_of_bundles
from jobs.scoring.opening import open_bundle
from jobs.stream.job import Work
from jobs.stream.selection import models_gb


@dataclass(frozen=True, kw_only=True)
class NamedBundle:
    """A bundle of a command."""

    typed: str
    """As it was named."""

    bundle: Bundle
    name: str
    """Of its scores."""

    def uri(self, root: str) -> str:
        """Folder of its scores under a dataset."""
        return layout.scores_uri(root, self.name)

    def needed(self, root: str) -> "NamedBundle":
        """With what the clips of a dataset ask of the bundle."""
        return replace(self, bundle=as_needed(root, self.bundle))


def open_judges(config: ScoreConfig) -> list[NamedBundle]:
    """The bundles of a command; the scores of each have its own name, unless one is given.

    Raises:
        ConfigError: two have the same name, or the dataset that is scored has other labels by now.
    """
    typed = (config.bundle, *config.also)
    bundles = [
        open_bundle(
            text, config.root, config.transcriber, config.store, asks=config.server is not None
        ).promising(config.coverage)
        for text in typed
    ]
    for bundle in bundles:
        if bundle.facts and not config.clips:  # of files nobody says labels: a bundle keeps its own
            check_bundle(config.root, bundle.facts, bundle.uri)
    judges = [
        NamedBundle(typed=text, bundle=bundle, name=config.name or bundle.name)
        for text, bundle in zip(typed, bundles, strict=True)
    ]
    often, count = Counter(judge.name for judge in judges).most_common(1)[0]
    if count > 1:
        same = [judge.typed for judge in judges if judge.name == often]
        raise ConfigError(
            f"--bundle {same[0]} and --also {' '.join(same[1:])} are all called {often}, and their scores "
            "would stand in one folder; score them one after the other, with another --name"
        )
    return judges


def by_transcriber(judges: Sequence[NamedBundle]) -> list[list[NamedBundle]]:
    """The bundles that can share a pass, because its words mean the same to all of them."""
    groups: dict[str | None, list[NamedBundle]] = {}
    for judge in (each for each in judges if _reads_text(each)):
        ear = judge.bundle.transcriber
        groups.setdefault(None if ear is None else ear.folder, []).append(judge)
    deaf = [judge for judge in judges if not _reads_text(judge)]
    first, *others = [*groups.values()] or [[]]
    return [[*first, *deaf], *others]


def _reads_text(judge: NamedBundle) -> bool:
    return any(item.reads_text for item in judge.bundle.encoders)


def work_of_judges(judges: Sequence[NamedBundle], store: str) -> Work:
    """The encoders of a pass, each once, and the memory of the nets behind them."""
    work = work_of_bundles([judge.bundle for judge in judges], store)
    return replace(work, nets_gb={f"nets of {each.name}": nets_gb(each.bundle) for each in judges})


def nets_gb(bundle: Bundle) -> float:
    """Memory of the nets of a bundle: that of their weights [GB]."""
    if bundle.uri is None:
        return 0.0
    fused = bundle.facts["rule"]["members"]
    size = 0
    for member in (each for each in bundle.facts["members"] if each["run"] in fused):
        for folder in nets_of_member(bundle.uri, member).values():
            fs, path = storage.filesystem(storage.join(folder, layout.WEIGHTS))
            size += int(fs.size(path))
    return size / 1e9


def passes(
    judges: Sequence[NamedBundle], store: str, capacity: Capacity, workers: WorkersConfig
) -> Iterator[tuple[list[NamedBundle], Plan]]:
    """The bundles of each pass over the clips, with its plan: as many together as there is memory for.

    Raises:
        ConfigError: the encoders of one bundle do not fit together.
    """
    for together in by_transcriber(judges):
        plan = plan_stream(models_gb(work_of_judges(together, store)), capacity, workers)
        if len(plan.passes) == 1:
            yield together, plan
            continue
        for judge in together:
            alone = plan_stream(models_gb(work_of_judges([judge], store)), capacity, workers)
            if len(alone.passes) > 1:
                raise ConfigError(
                    f"{alone.notes[0]}; scoring needs all of them at once; type first: affuse encode"
                )
            yield [judge], alone

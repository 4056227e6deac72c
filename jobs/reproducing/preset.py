"""What a preset is made of: the data it needs, its models, and what was published of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.errors import ConfigError
from cluster.session import SessionConfig
from cluster.settings import Place
from encoders.store import DEFAULT_STORE
from jobs.evaluation.judging import check_resamples
from jobs.training.run import TrainConfig

Protocol = Literal["reproduced", "clean"]
PROTOCOLS: tuple[Protocol, ...] = ("reproduced", "clean")


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Which published table is made again, and of what data."""

    preset: str
    """Preset to run; `affuse reproduce --list` shows them."""

    data: Place
    """Folder or file of the dataset, as its authors hand it out."""

    root: Place
    """Folder or URI that receives the manifest, the runs and the table."""

    models: tuple[str, ...] = ()
    """Models of the preset to make; by default all of them."""

    protocols: tuple[Protocol, ...] = PROTOCOLS
    """Columns to make."""

    encoders: tuple[str, ...] = ()
    """Encoders in place of the preset's, one a modality, e.g. minilm where the hub is out of reach."""

    epochs: int | None = None
    """Largest number of epochs in place of the preset's; few make a trial of the chain, which is
    noted on the page."""

    seeds: tuple[int, ...] = ()
    """Seeds in place of the preset's."""

    resamples: int = 2000
    """Number of bootstrap resamples of the groups."""

    workers: int | None = None
    """Workers of each training; 0: this process."""

    store: Place = DEFAULT_STORE
    """Folder or bucket of the pretrained weights."""

    tracking: bool = True
    """Record the runs in MLflow."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """Ray session of the jobs."""

    def __post_init__(self) -> None:
        check_resamples(self.resamples)
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"--epochs {self.epochs}: expected 1 or more")
        if not self.protocols:
            raise ConfigError(f"--protocols: expected one of {', '.join(PROTOCOLS)}, or both")

    def trained(
        self,
        inputs: Sequence[str],
        net: str,
        options: Mapping[str, Any],
        *,
        seeds: tuple[int, ...],
        **recipe: Any,
    ) -> TrainConfig:
        """The training of one net, with what the user asked for in place of the preset's."""
        if self.epochs is not None:
            recipe["epochs"] = min(self.epochs, recipe.get("epochs", self.epochs))
        return TrainConfig(
            root=self.root,
            inputs=tuple(inputs),
            net=net,
            net_options=dict(options),
            seeds=self.seeds or seeds,
            tracking=self.tracking,
            session=self.session,
            workers=self.workers,
            **recipe,
        )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command before anything is trained."""

    command: str
    """The job and its command: `prepare mmsa`, `features import`, `encode`."""

    config: Any
    """Of that job."""


@dataclass(frozen=True, kw_only=True)
class TrainedNet:
    """One net, judged on rows that it has not seen."""

    config: TrainConfig

    seeds_apart: bool = False
    """Each seed is a run of its own and the figure is the mean of theirs, as published tables have it; else
    the seeds' predictions are averaged before they are judged."""


@dataclass(frozen=True, kw_only=True)
class Fused:
    """A late fusion of models of the same protocol, or of predictions made elsewhere."""

    models: tuple[str, ...] = ()
    """Their names in the table."""

    imported: tuple[str, ...] = ()
    """Files of predictions."""

    rule: str | None = None
    """Late rule; None: the default of `affuse ensemble`."""

    rule_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One line of the table."""

    name: str
    """As `--models` takes it."""

    title: str = ""
    """What stands in the table beside the name."""

    published: Mapping[str, float] = field(default_factory=dict)
    """Metric -> figure, in the metric's own unit."""

    reproduced: TrainedNet | Fused | None = None
    """The authors' net, settings and way of judging, without what cannot be repeated; None: see `note`."""

    clean: TrainedNet | Fused | None = None
    """The same inputs with the faults mended: see the preset's `why`."""

    note: str = ""
    """What is to be known of this line alone."""

    def way(self, protocol: Protocol) -> TrainedNet | Fused | None:
        """How the figure of one column is made."""
        return self.reproduced if protocol == "reproduced" else self.clean


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published table."""

    title: str
    source: str
    """Paper or repository of the published figures."""

    dataset: str
    """Adapter of `affuse prepare`, which knows the licence and the layout."""

    data: str
    """What `--data` is, in one line."""

    task: str
    metrics: tuple[str, ...]
    """Columns of figures, as `fusion.metrics` names them."""

    why: tuple[str, ...]
    """Why the published figures are not to be compared with the clean ones, a sentence each."""

    columns: Mapping[Protocol, str]
    """How each column is made, in a sentence."""

    steps: Callable[[ReproduceConfig], Sequence[Step]]
    models: Callable[[ReproduceConfig], Sequence[Model]]
    """Called when the steps are done."""

    captions: bool = False
    """Whether the films of a dialogue of the test split are captioned by the first line of the table."""

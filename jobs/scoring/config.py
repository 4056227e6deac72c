"""Settings of `score`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from cluster.errors import ConfigError
from cluster.resources import WorkersConfig
from cluster.session import SessionConfig
from cluster.settings import NameOrPlace, Place
from jobs.catalog.names import check_names
from jobs.scoring.grouped import Per, Pooling
from jobs.scoring.pieces import By, PiecesConfig
from jobs.stream.autotune import Autotune
from jobs.stream.forecast import Assumed
from jobs.stream.job import STALL_LIMIT_S, DecodingConfig


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Which clips are scored, and by which bundle."""

    clips: Annotated[tuple[Place, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CLIPS")] = ()
    """Files, folders and patterns such as ``calls/*.mp4``; without any, the dataset under --root."""

    root: Place = ""
    """Folder or URI of a dataset; a bundle's plain name is looked up under it."""

    bundle: NameOrPlace = "face_expression"
    """Bundle: a name under --root, a folder, or one that needs no training: face_expression, or untrained,
    which reads faces, voice and words by encoders with class probabilities of their own."""

    also: tuple[NameOrPlace, ...] = ()
    """More bundles for the same clips, each of which is decoded and encoded once; the scores of each bundle
    have its own name."""

    name: str | None = None
    """Name of the scores; by default the bundle's."""

    out: Place | None = None
    """File for the scores of files without a manifest, or of pieces of clips: .csv, .jsonl or .parquet."""

    overwrite: bool = False
    """Replace an --out that no earlier run made; an input is never replaced."""

    by: By = "clip"
    """What gets a row: each clip, each window of a clip, or each sentence of its transcript."""

    window_s: float = 5.0
    """Length of a window [s]."""

    step_s: float = 1.0
    """From the start of a window to that of the next [s]."""

    per: tuple[Per, ...] = ()
    """Second table of a dataset, with a row for each dialogue, speaker or file."""

    pooling: Pooling = "mean"
    """How --per averages the probabilities of clips: as they are, or their logarithms."""

    coverage: float | None = None
    """Give each clip the classes that cannot be excluded (each value an interval), so that they hold the
    truth for this share of a new person's clips [0.5..0.99], e.g. 0.9."""

    source: Literal["auto", "clips", "features"] = "auto"
    """What a dataset is scored from: clips, or stored features; auto takes features where all are there."""

    transcriber: str | None = None
    """Transcriber for clips that have no text, where the bundle brings none."""

    server: str | None = None
    """Base of a server's interface, e.g. http://127.0.0.1:8000/v1, for a bundle with a large model among its
    members: asked about the clips of a dataset as it was in `affuse ask`."""

    store: Place | None = None
    """Store of the weights; by default ~/.cache/affuse/store, or ROOT/../store where ROOT is remote."""

    max_failed_share: float = 0.2
    """Share of clips that may fail [0..1]. Above it the job ends with status 1, from 100 clips on at once."""

    autotune: Autotune = "auto"
    """Time a few clips first and size the stages by them: auto where the job is long enough to gain."""

    stall_limit_s: float = STALL_LIMIT_S
    """Time that a model may take for a clip beyond its usual pace [s]; after it the clip fails."""

    dry_run: bool = False
    """Print the plan, what it is made of and what the job would take, and stop before Ray starts."""

    assume: Assumed = field(default_factory=Assumed)
    """What a dry run plans for, where that is not what is there."""

    workers: WorkersConfig = field(default_factory=WorkersConfig)
    """Workers of the stream; what is left out is derived from the machine."""

    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """Limits of decoding one clip."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """Ray session: which cluster is joined, or what a local session may use."""

    def __post_init__(self) -> None:
        check_names(name=self.name)
        if not self.clips and not self.root:
            raise ConfigError("score what? type: affuse score clip.mp4, or --root FOLDER")
        if self.out is not None and not self.out.endswith((".csv", ".jsonl", ".parquet")):
            raise ConfigError(f"--out {self.out}: expected a name in .csv, .jsonl or .parquet")
        if self.out is not None and not self.clips and self.by == "clip":
            raise ConfigError(
                f"--out {self.out} is for files without a manifest; the scores of a dataset are Parquet "
                f"files below {self.root}/scores/{self.name or 'BUNDLE'}: leave --out away"
            )
        _ = self.size
        if self.by != "clip" and not self.clips:
            self._check_pieces_of_dataset()
        if self.per and self.clips:
            raise ConfigError(
                f"--per {' '.join(self.per)} is for a dataset, which names dialogues, speakers and files; "
                "type first: affuse prepare, then --root"
            )
        if self.also and self.name is not None:
            raise ConfigError(
                f"--name {self.name}: with --also the scores of each bundle have its own name; leave it away"
            )
        if self.server is not None and self.clips:
            raise ConfigError(
                f"--server {self.server} is asked about the clips of a dataset, whose words are known; type "
                "first: affuse prepare, then --root"
            )
        if self.source == "features" and self.clips:
            raise ConfigError("--source features: files have none; leave it away")
        if self.dry_run and self.clips:
            raise ConfigError("--dry-run plans a dataset; type first: affuse prepare, then --root")
        self.assume.check(dry_run=self.dry_run)

    def _check_pieces_of_dataset(self) -> None:
        """Refuse what only whole clips have."""
        if self.out is None:
            raise ConfigError(f"--by {self.by}: where to? type: --out pieces.parquet")
        whole = {
            "--per": self.per, "--dry-run": self.dry_run, "--name": self.name,
            "--source features": self.source == "features",
        }  # fmt: skip
        if given := [flag for flag, is_given in whole.items() if is_given]:
            raise ConfigError(f"{given[0]} is for whole clips; leave it or --by {self.by} away")

    @property
    def size(self) -> PiecesConfig:
        """Of the pieces."""
        return PiecesConfig(window_s=self.window_s, step_s=self.step_s)

"""Settings of `ask`."""

from dataclasses import dataclass, field
from typing import Literal

from cluster.errors import ConfigError
from cluster.settings import Place
from jobs.asking.contents import Shown, check_shown
from jobs.asking.server import Limits, checked_token, checked_url
from jobs.catalog.names import check_names
from jobs.stream.job import DecodingConfig


@dataclass(frozen=True, kw_only=True)
class AskConfig:
    """Which model is asked what."""

    root: Place
    """Folder or URI of the dataset."""

    server: str
    """Base of the server's interface, e.g. http://127.0.0.1:8000/v1: https, or http to this machine."""

    model: str
    """Name of the model on the server."""

    run: str = "asked"
    """Name of the run."""

    task: str | None = None
    """Task to ask about; may be left out where the dataset has one."""

    folds: str | None = None
    """Name of the folds of the runs that it will be fused with; by default the validation split."""

    show: tuple[Shown, ...] = ("text",)
    """What of a clip is shown: text, audio (WAV), frames (JPEG)."""

    transcriber: str | None = None
    """Whose transcripts are the text of clips without one."""

    context: int = 0
    """Number of utterances before the clip in its dialogue that are shown with its text."""

    frames: int = 4
    """Number of frames, spread evenly."""

    question: str | None = None
    """Wording of the question; with several labels a clip, {label} stands for each of them."""

    orders: int = 3
    """Number of rotated orders of the labels that are averaged; 0: as many as there are labels."""

    how: Literal["auto", "letters", "json"] = "auto"
    """Where probabilities come from: letters, the first token of the answer; json, numbers that the model
    writes; auto, letters where the server gives them."""

    max_failed_share: float = 0.1
    """Share of clips without a usable answer above which the job stops, from 100 clips on [0..1]."""

    limits: Limits = field(default_factory=Limits)
    """How hard the server is worked."""

    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """Limits of decoding, where sound or frames are shown."""

    def __post_init__(self) -> None:
        check_names(run=self.run, folds=self.folds)
        check_shown(self.show, self.frames)
        checked_url(self.server)
        checked_token()
        if not self.model.strip():
            raise ConfigError("--model: expected the name that the server knows it by")
        if self.context < 0 or self.orders < 0:
            raise ConfigError("--context and --orders: expected 0 or more")
        if not 0 <= self.max_failed_share <= 1:
            raise ConfigError(f"--max-failed-share {self.max_failed_share}: expected 0 to 1")

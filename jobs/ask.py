"""Ask a large model about clips: its label probabilities become the predictions of a run, as one more member.

The server is any that speaks OpenAI's chat completions (vLLM, llama.cpp, a hosted one). It is shown a clip's
words, and on request its sound and pictures, and chooses among lettered labels; the probabilities of the
letters, averaged over rotated orders of the labels, are the scores (`jobs.asking.question`). Only clips that
runs are judged on are sent: those of the folds, or of the validation split; never a row of the test split.

Every answer is kept, so that the same command goes on after a stop and asks nothing twice. The token of a
server is read from the environment, AFFUSE_ASK_TOKEN.

Reads:  <root>/manifest/, <root>/folds/, <root>/transcripts/ (with --transcriber), media (with --show)
Writes: <root>/runs/<run>/   (cluster.tables.PREDICTIONS, roles oof or valid), for `affuse ensemble`
        <root>/answers/      what was answered, by what was asked

Laptop:   affuse ask --root data/meld --server http://127.0.0.1:8080/v1 --model qwen --context 5
One GPU:  affuse ask --root data/mosei --server http://127.0.0.1:8000/v1 --model omni --show text audio frames
Hosted:   affuse ask --root data/meld --server https://host.example/v1 --model big --limits.per-minute 60
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cluster import settings, storage
from cluster.console import readable
from cluster.errors import ConfigError, MediaError, ServerError, TooManyFailuresError
from cluster.settings import Place
from encoders.media import Decoder
from jobs.asking.answers import Answers, folder_of
from jobs.asking.asker import Asker, UnusableError
from jobs.asking.contents import Part, Shower, Shown, check_shown, said_before, shown_rows
from jobs.asking.question import Question, questions_of, scores_of
from jobs.asking.server import Limits, Server, checked_token, checked_url
from jobs.catalog import layout
from jobs.catalog.manifest import read_dataset, read_folds
from jobs.catalog.names import check_names
from jobs.catalog.outputs import publish_config
from jobs.catalog.run_names import free, holds_results, owner
from jobs.catalog.tasks import pick_task
from jobs.stream.job import DecodingConfig
from jobs.stream.progress import FIRST_COUNTED, Progress, failures_line
from jobs.training.given_scores import judged_clips, publish_predictions, publish_summary

ELSEWHERE = ("decoding", "limits", "max_failed_share", "root", "run", "server")
"""Fields that do not change the answers."""


@dataclass(frozen=True, kw_only=True)
class Config:
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


def main(config: Config) -> None:
    """Ask about every held-out clip, then write the answers as a run."""
    config = replace(config, root=storage.absolute(config.root))
    name, task = pick_task(read_dataset(config.root), config.task)
    asked = questions_of(name, task, config.question)
    base = layout.run_uri(config.root, config.run)
    claim(config, base)
    if storage.exists(storage.join(base, layout.SUMMARY)):
        print(f"nothing to do: {base} is complete")
        return
    judged = judged_clips(config.root, name, task, config.folds)
    if not len(judged.rows):
        raise ConfigError(f"no held-out clip has a label of {name!r}; type --folds, or --task")
    what = " and ".join(config.show)
    print(
        readable(f"{len(judged.rows)} clips: their {what} go to {config.server} ({config.model})")
    )
    said = answers_of(config, asked, judged.clip_id)
    scores = {clip: scores_of(answers, task) for clip, answers in said.items()}
    publish_predictions(config.root, config.run, name, task, judged, scores)
    facts = {"asked": config.model, "how": config.how, "orders": config.orders}
    publish_summary(config.root, config.run, name, task, facts)
    print(f"wrote {base}; type: affuse ensemble --root {config.root} --runs OTHERS {config.run}")


def claim(config: Config, base: str) -> None:
    """Take the name of the run.

    Raises:
        ConfigError: it is that of another run, or of another way to ask.
    """
    own = {"identity": identity(config)}
    there = owner(base)
    if there not in (None, own) or (there is None and holds_results(base)):
        if there is None or holds_results(base):
            raise ConfigError(
                f"run {config.run!r} is there already, and was made otherwise; type another --run"
            )
        free(base)
    publish_config(config, base)
    storage.publish_json({"model": config.model}, storage.join(base, layout.ASKED))
    storage.publish_json(own, storage.join(base, layout.IDENTITY))


def identity(config: Config) -> str:
    """Eight hex digits over all that shapes the answers, and over what they are answers to."""
    meaning: dict[str, Any] = {
        key: value for key, value in settings.to_mapping(config).items() if key not in ELSEWHERE
    }
    meaning["manifest"] = read_dataset(config.root).manifest_hash
    if config.folds is not None:
        meaning["cut"] = sorted(read_folds(config.root, config.folds).items())
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:8]


def answers_of(
    config: Config, asked: Sequence[Question], clip_id: np.ndarray
) -> dict[int, list[np.ndarray]]:
    """Clip -> log-probabilities of the options of each question; clips without an answer are absent.

    Raises:
        ServerError: the server does not answer any more; what it answered is kept.
        TooManyFailuresError: too few of its answers are of any use.
    """
    known = shown_rows(config.root, config.transcriber)
    before = said_before(known.values(), config.context)
    rows = [known[clip] for clip in clip_id.tolist()]
    found: dict[int, list[np.ndarray]] = {}
    uri = folder_of(config.root, config.model)
    with (
        Answers(uri) as answers,
        Decoder(**vars(config.decoding)) as decoder,
        Progress(len(rows), label="ask") as progress,
    ):
        shower = Shower(config.show, config.frames, decoder)
        asker = Asker(
            server=Server(config.server, config.limits),
            model=config.model,
            answers=answers,
            questions=asked,
            num_orders=config.orders,
            how=config.how,
        )
        try:
            with contextlib.closing(asker.clips(shown(rows, before, shower, progress))) as clips:
                for clip, answer in clips:
                    if isinstance(answer, UnusableError):
                        progress.add(1, 1, {str(answer): 1})
                        check_usable(progress, config, FIRST_COUNTED)
                    else:
                        found[clip] = answer
                        progress.add(1, 0)
        except ServerError as error:
            raise ServerError(
                f"{error}; {len(found)} of {len(rows)} clips are answered and kept in {uri}; the same "
                "command goes on from there"
            ) from error
    check_usable(progress, config, 1)
    if progress.failed:
        print(readable(failures_line(progress.failed, progress.done, progress.reasons)))
    return found


def shown(
    rows: Sequence[Mapping[str, Any]],
    before: Mapping[int, Sequence[str]],
    shower: Shower,
    progress: Progress,
) -> Iterator[tuple[int, list[Part]]]:
    """Clips that have something to show; others are counted as done."""
    for row in rows:
        try:
            parts = shower.parts(row, before.get(row["clip_id"], ()))
        except MediaError as error:
            progress.add(1, 1, {str(error): 1})
            continue
        if parts:
            yield row["clip_id"], parts
        else:
            progress.add(1, 0)


def check_usable(progress: Progress, config: Config, least: int) -> None:
    """Stop where too many answers are of no use, once some clips are done.

    Raises:
        TooManyFailuresError: with the commonest reasons.
    """
    if progress.done < least or progress.failed <= config.max_failed_share * progress.done:
        return
    raise TooManyFailuresError(
        f"{failures_line(progress.failed, progress.done, progress.reasons)}; that is more than "
        f"--max-failed-share {config.max_failed_share:g}; another --how or --model may do better"
    )

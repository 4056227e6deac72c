"""A server asked about many clips: what it answers is kept, what is of no use is counted."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cluster.console import readable
from cluster.errors import MediaError, ServerError, TooManyFailuresError
from encoders.media import Decoder
from jobs.asking.answers import Answers, folder_of
from jobs.asking.asker import Asker, UnusableError
from jobs.asking.config import AskConfig
from jobs.asking.contents import Part, Shower, said_before, shown_rows
from jobs.asking.question import Question
from jobs.asking.server import Server
from jobs.stream.progress import FIRST_COUNTED, Progress, failures_line


def answers_of(
    config: AskConfig,
    asked: Sequence[Question],
    clip_id: np.ndarray,
    found: dict[int, list[np.ndarray]] | None = None,
    *,
    with_test: bool = False,
) -> dict[int, list[np.ndarray]]:
    """Clip -> log-probabilities of the options of each question; clips without an answer are absent.

    Args:
        config: which model is asked what.
        asked: the questions.
        clip_id: of the clips.
        found: what is filled, so that whoever catches an error has what was answered before it.
        with_test: show clips of the test split too.

    Raises:
        ServerError: the server does not answer any more; what it answered is kept.
        TooManyFailuresError: too few of its answers are of any use.
    """
    known = shown_rows(config.root, config.transcriber, with_test=with_test)
    before = said_before(known.values(), config.context)
    rows = [known[clip] for clip in clip_id.tolist()]
    found = {} if found is None else found
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


def check_usable(progress: Progress, config: AskConfig, least: int) -> None:
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

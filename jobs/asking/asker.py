"""Asks a server about clips, several questions at a time, and keeps every answer."""

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cluster.errors import ServerError
from jobs.asking import question as questions
from jobs.asking.answers import Answers, key_of
from jobs.asking.contents import Part
from jobs.asking.question import How, Question
from jobs.asking.server import TOKEN, RefusedError, Server

ONE_QUESTION = (400, 413, 422)
"""Statuses with which servers refuse one question (too long, no such content); others are of all of them."""


class UnusableError(Exception):
    """The model answered, but with nothing that probabilities can be read from."""


@dataclass
class Asker:
    """One model and how it is asked."""

    server: Server
    model: str
    answers: Answers
    questions: Sequence[Question]
    num_orders: int
    how: Literal["auto", "letters", "json"]
    asked: int = 0
    """Questions that went to the server."""

    _no_letters: str = field(default="", init=False)
    """Why the server cannot be asked for letters; empty while that is not known."""

    _gave_letters: bool = field(default=False, init=False)
    """Whether it ever did: one answer without them, as of a content filter, then says nothing of others."""

    def clips(
        self, clips: Iterable[tuple[int, Sequence[Part]]]
    ) -> Generator[tuple[int, list[np.ndarray] | UnusableError]]:
        """Log-probabilities of the options of each question, clip after clip in their order.

        Args:
            clips: id and content parts; they are made while others are asked.

        Raises:
            ServerError: the server does not answer any more; the answers so far are kept.
        """
        at_once = self.server.limits.at_once
        waiting: list[tuple[int, Future[list[np.ndarray]]]] = []
        with ThreadPoolExecutor(at_once) as threads:
            try:
                for clip, parts in clips:
                    waiting.append((clip, threads.submit(self.clip, parts)))
                    if len(waiting) >= 2 * at_once:
                        yield _outcome(*waiting.pop(0))
                while waiting:
                    yield _outcome(*waiting.pop(0))
            finally:
                self.server.close() if waiting else None
                for _, future in waiting:
                    future.cancel()

    def clip(self, parts: Sequence[Part]) -> list[np.ndarray]:
        """Log-probabilities of the options of each question about one clip.

        Raises:
            UnusableError: the model's answer is none.
            ServerError: the server does not answer, or refuses.
        """
        found = []
        for each in self.questions:
            asked = questions.orders(len(each.options), self.num_orders)
            replies = [self._answer(each, order, parts) for order in asked]
            found.append(questions.averaged(replies, asked))
        return found

    def _answer(
        self, question: Question, order: Sequence[int], parts: Sequence[Part]
    ) -> Sequence[float]:
        few = len(question.options) <= questions.TOP
        if self.how != "json" and few and (self._gave_letters or not self._no_letters):
            answer = self._of(question, order, parts, "letters")
            if answer is not None:
                return answer
            if self.how == "letters":
                raise UnusableError(self._no_letters or "the answer is not one of the letters")
        elif self.how == "letters":
            raise ServerError(
                self._no_letters or f"{len(question.options)} options: type --how json"
            )
        answer = self._of(question, order, parts, "json")
        if answer is None:
            raise UnusableError("the answer holds no JSON object of probabilities")
        return answer

    def _of(
        self, question: Question, order: Sequence[int], parts: Sequence[Part], how: How
    ) -> Sequence[float] | None:
        """One answer, from the store or from the server."""
        body = questions.body(self.model, question, order, parts, how)
        key = key_of(body)
        if key in self.answers:
            known = self.answers[key]
            self._gave_letters |= how == "letters" and known is not None
            return known
        try:
            reply = self.server.ask(body)
        except RefusedError as error:
            if error.status not in ONE_QUESTION:
                raise refused(self.server, error) from error
            if how == "letters" and "logprob" in error.said.casefold():
                self._no_letters = f"the server refuses log-probabilities: {error.said}"
            if how == "letters" and self.how == "auto":
                return None
            raise UnusableError(f"the server refuses it: {error.said}") from error
        self.asked += 1
        if how == "letters":
            if questions.has_log_probs(reply):
                self._gave_letters = True
            elif not self._gave_letters and questions.has_words(reply):
                self._no_letters = "the server gives no log-probabilities"
                return None
            answer = questions.from_letters(reply, len(order))
            self.answers.add(key, answer)
            return answer
        answer = questions.from_json(reply, [question.options[place] for place in order])
        if answer is not None:
            # An answer that is none may become one: it is asked for again next time.
            self.answers.add(key, answer)
        return answer


def refused(server: Server, error: RefusedError) -> ServerError:
    """Error for a server that will not answer, with what to do."""
    advice = "it names the model by --model, and some models take text alone (--show text)"
    if error.status in (401, 403):
        advice = f"it wants a token: export {TOKEN}=..."
    elif 300 <= error.status < 400:
        advice = "it sends us elsewhere; type that URL as --server"
    return ServerError(f"{server.url} refuses, status {error.status}: {error.said}; {advice}")


def _outcome(
    clip: int, future: Future[list[np.ndarray]]
) -> tuple[int, list[np.ndarray] | UnusableError]:
    try:
        return clip, future.result()
    except UnusableError as error:
        return clip, error

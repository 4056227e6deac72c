"""What a visitor is told instead of an answer."""


class RefusalError(Exception):
    """A request that gets no answer.

    Args:
        status: of HTTP.
        sentence: what came, and what was expected.
        retry_s: when it may be tried again [s]; None: as it is, never.
    """

    def __init__(self, status: int, sentence: str, retry_s: int | None = None) -> None:
        super().__init__(status, sentence, retry_s)
        self.status, self.sentence, self.retry_s = status, sentence, retry_s

"""What the HTTP interface answers, as OpenAPI describes it."""

from pydantic import BaseModel, Field


class SaidOfClip(BaseModel):
    """A prediction."""

    label: str | None = Field(description='Class, or several joined by "+"; null of a regression.')
    confidence: float | None = Field(description="Calibrated probability of the label, 0 to 1.")
    probabilities: dict[str, float] | None = Field(description="Class to probability.")
    value: float | None = Field(description="Of a regression.")


class OfModality(SaidOfClip):
    """What is predicted where only one modality is there."""

    modality: str


class TimelinePiece(SaidOfClip):
    """A piece of the timeline."""

    start_s: float
    end_s: float


class HeardWord(BaseModel):
    """A word of the transcript."""

    text: str
    start_s: float
    end_s: float


class HeardText(BaseModel):
    """The transcript."""

    text: str
    language: str | None
    confidence: float | None
    words: list[HeardWord] | None


class FullAnswer(SaidOfClip):
    """All that is said about a file or a text."""

    name: str
    bundle: str
    task: str
    kind: str = Field(description="classification, multilabel or regression.")
    classes: list[str]
    status: str = Field(description="ok, or partial where `error` says what could not be read.")
    error: str | None
    hint: str | None = Field(description="What would let more of it be read, such as more light.")
    modalities: list[OfModality] = Field(description="Those that were there, each by itself.")
    transcript: HeardText | None
    timeline: list[TimelinePiece] = Field(description="Of longer clips; empty of others.")
    duration_s: float | None
    film: bool = Field(description="Whether it is a film, on which the answer can be written.")
    seconds: float = Field(description="Time that it took, without waiting.")


class OrderState(BaseModel):
    """How far an order is."""

    id: str
    state: str = Field(description="waiting, working, done or refused.")
    place: int = Field(description="Orders up to this one that nobody has begun; 0: it is begun.")
    progress: float = Field(description="Share that is done, 0 to 1.")
    answer: FullAnswer | None = None
    film: bool = Field(False, description="Whether film.mp4 is there.")
    error: str | None = Field(None, description="Why it was refused.")


class Refused(BaseModel):
    """Why there is no answer."""

    error: str


class ServerHealth(BaseModel):
    """State of the server."""

    status: str = Field(description="ok, or starting while no worker has loaded its models.")
    bundle: str
    workers: int
    ready: int
    waiting: int


class ServedFacts(BaseModel):
    """What the page has to know."""

    bundle: str
    task: str
    classes: list[str]
    modalities: list[str]
    transcribes: bool
    max_mb: float
    max_s: float
    max_letters: int
    keep_s: float

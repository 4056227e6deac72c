"""A few files scored in this process: no Ray, and one decoded clip in memory at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cluster.errors import ConfigError, MediaError
from cluster.tables import SCORES
from encoders.media import ClipSource, Decoded, Decoder, Source
from encoders.store import local_paths
from jobs.preparing.adapter import clip_id, is_sound, media
from jobs.scoring.bundle import Bundle
from jobs.scoring.files import names_of
from jobs.scoring.scorer import Scorer
from jobs.stream.decode import decode_clip, decoder_of
from jobs.stream.faults import Kind, WorkerFaultError
from jobs.stream.job import STALL_LIMIT_S, DecodingConfig, Todo, UnitResult, Work
from jobs.stream.result_rows import error_rows, joined
from jobs.stream.watch import Hands, Watch
from jobs.stream.workbench import Workbench


class OneByOne:
    """Encodes single clips; one that keeps a model too long is left behind with that model.

    Args:
        work: the models.
        decoding: what a clip may cost.
        stall_limit_s: what a call of a model may take beyond its own pace [s].
    """

    def __init__(self, work: Work, decoding: DecodingConfig, stall_limit_s: float) -> None:
        self.work, self.decoding, self.stall_limit_s = work, decoding, stall_limit_s
        self._loaded: tuple[Hands, Workbench] | None = None

    def outcome(self, clip: ClipSource) -> UnitResult | WorkerFaultError:
        """The tables of one clip, or what failed."""
        todo = self.work.everything
        return self.encoded([decode_clip(self.work, todo, clip, decoder_of(self.decoding))], todo)

    def encoded(self, decoded: Sequence[Decoded], todo: Todo) -> UnitResult | WorkerFaultError:
        """The tables of decoded clips, or what failed."""
        hands, bench = self.load()
        try:
            return hands.run(lambda: bench.run(decoded, todo))
        except WorkerFaultError as fault:
            if fault.kind is Kind.HUNG:
                # Its thread keeps the models; the next clip gets them anew.
                self._loaded = None
            return fault

    def load(self) -> tuple[Hands, Workbench]:
        """The models, and the hands that work with them."""
        if self._loaded is None:
            hands = Hands(Watch())
            bench = Workbench(self.work, watch=hands.watch, stall_limit_s=self.stall_limit_s)
            self._loaded = hands, bench
        return self._loaded


def encoder_of(
    bundles: Sequence[Bundle],
    store: str,
    decoding: DecodingConfig,
    stall_limit_s: float = STALL_LIMIT_S,
) -> OneByOne:
    """What encodes clips for some bundles; the weights are found before anything starts."""
    work = work_of_bundles(bundles, store)
    for item in filter(None, (*work.descriptors, work.transcriber)):
        local_paths(item.weights, store)
    return OneByOne(work, decoding, stall_limit_s)


def work_of_bundles(bundles: Sequence[Bundle], store: str) -> Work:
    """The encoders that some bundles read, each once.

    Raises:
        ConfigError: their words come from different transcribers, so one pass cannot serve both.
    """
    ears = {item.transcriber.folder: item for item in bundles if item.transcriber is not None}
    if len(ears) > 1:
        said = " and ".join(f"{item.name} hears by {folder}" for folder, item in ears.items())
        raise ConfigError(
            f"one pass has one transcriber, but {said}; score them one after the other"
        )
    found = {each.folder: each for item in bundles for each in item.encoders}
    ear = next((item.transcriber for item in ears.values()), None)
    return Work(descriptors=tuple(found.values()), transcriber=ear, store=store)


def score_here(files: Sequence[str], encoder: OneByOne, *scorers: Scorer) -> pa.Table:
    """SCORES of files.

    Args:
        files: paths or URIs.
        encoder: of the bundle's encoders.
        scorers: the bundles, loaded.

    Raises:
        WorkerFaultError: what may be the machine's fault, where no clip passed.
    """
    names = names_of(files)
    decoder = decoder_of(encoder.decoding)
    clips = [clip_of(file, names[file], decoder) for file in files]
    results = settled(encoder.work, clips, [encoder.outcome(clip) for clip in clips])
    facts = [{"clip_id": clip_id(names[file]), "name": names[file]} for file in files]
    return scores_of(scorers, facts, joined(results).features)


def scores_of(
    scorers: Sequence[Scorer],
    facts: Sequence[Mapping[str, Any]],
    features: Mapping[str, pa.Table],
) -> pa.Table:
    """SCORES of clips by several bundles, each from the features that its nets read."""
    parts = [
        scorer.scores(facts, {folder: features[folder] for folder in scorer.bundle.folders})
        for scorer in scorers
    ]
    return SCORES.conform(pa.concat_tables(parts))


def clip_of(file: str, name: str, decoder: Decoder) -> ClipSource:
    """A file with the tracks and the length that its headers say; as it is where it cannot be opened."""
    source = Source(file)
    try:
        found = decoder.probe(source)
    except MediaError:
        # Without headers decoding says what is the matter.
        return ClipSource(clip_id=clip_id(name), **media(file))
    return ClipSource(
        clip_id=clip_id(name),
        duration_s=found.duration_s,
        # The cover of a song is no film.
        video=source if found.has_video and not is_sound(file) else None,
        audio=source if found.has_audio else None,
    )


def settled(
    work: Work,
    clips: Sequence[ClipSource],
    outcomes: Sequence[UnitResult | WorkerFaultError],
) -> list[UnitResult]:
    """Clips that failed get error rows: those that hung a model always, others if some clip passed.

    Raises:
        WorkerFaultError: what may be the machine's fault, where none passed.
    """
    passed = any(isinstance(outcome, UnitResult) for outcome in outcomes)
    results = []
    for clip, outcome in zip(clips, outcomes, strict=True):
        if isinstance(outcome, WorkerFaultError):
            if not passed and outcome.kind is not Kind.HUNG:
                raise outcome
            outcome = error_rows(work, work.everything, clip, outcome.row())
        results.append(outcome)
    return results

"""A few files scored in this process: no Ray, and one decoded clip in memory at a time."""

from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa

from cluster.errors import MediaError
from encoders.media import ClipSource, Decoder, Source
from jobs.preparing.adapter import clip_id, media
from jobs.scoring.files import names_of
from jobs.scoring.scorer import Scorer
from jobs.stream.decode import decode_clip, decoder_of
from jobs.stream.faults import Kind, WorkerFaultError
from jobs.stream.job import DecodingConfig, UnitResult, Work
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
        decoded = [decode_clip(self.work, todo, clip, decoder_of(self.decoding))]
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


def score_here(files: Sequence[str], encoder: OneByOne, scorer: Scorer) -> pa.Table:
    """SCORES of files.

    Args:
        files: paths or URIs.
        encoder: of the bundle's encoders.
        scorer: the bundle loaded.

    Raises:
        WorkerFaultError: what may be the machine's fault, where no clip passed.
    """
    names = names_of(files)
    decoder = decoder_of(encoder.decoding)
    clips = [clip_of(file, names[file], decoder) for file in files]
    results = settled(encoder.work, clips, [encoder.outcome(clip) for clip in clips])
    facts = [{"clip_id": clip_id(names[file]), "name": names[file]} for file in files]
    return scorer.scores(facts, joined(results).features)


def clip_of(file: str, name: str, decoder: Decoder) -> ClipSource:
    """A file with the tracks and the length that its headers say; as it is where it cannot be opened."""
    tracks, length_s = media(file), None
    # Without headers decoding says what is the matter.
    with suppress(MediaError):
        found = decoder.probe(Source(file))
        there = {"video": found.has_video, "audio": found.has_audio}
        tracks = {track: source for track, source in tracks.items() if there[track]}
        length_s = found.duration_s
    return ClipSource(clip_id=clip_id(name), duration_s=length_s, **tracks)


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

"""A few files scored in this process: no Ray, and one decoded clip in memory at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.preparing import probing
from jobs.preparing.rows import checked, clips_of
from jobs.scoring.files import collected
from jobs.scoring.scorer import Scorer
from jobs.stream.decode import decode_rows, decoder_of
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

    def outcome(self, row: Mapping[str, Any]) -> UnitResult | WorkerFaultError:
        """The tables of one clip, by its row of the manifest, or what failed."""
        todo = self.work.everything
        decoded = decode_rows(self.work, todo, [row], decoder_of(self.decoding))
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
    clips = manifest_rows(files)
    results = settled(encoder.work, clips, [encoder.outcome(clip) for clip in clips])
    return scorer.scores(clips, joined(results).features)


def manifest_rows(files: Sequence[str]) -> list[dict[str, Any]]:
    """The rows that the files would have in a manifest."""
    found = collected(files)
    sources = [s for row in checked(found) for s in (row.video, row.audio) if s is not None]
    stamps = probing.stamps_of((source.uri for source in sources), 4)
    return clips_of(found, stamps, probing.probe_all(sources, stamps, {}, 1), None)


def settled(
    work: Work,
    clips: Sequence[Mapping[str, Any]],
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

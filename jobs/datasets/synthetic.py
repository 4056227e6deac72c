"""A synthetic corpus: clips of painted faces and synthetic voices, made from a seed in under a minute.

240 clips of 2 to 3 s with 12 speakers and 4 emotions. Face, voice and words are each informative, each
fails in its own way, and some clips are ironic (`jobs/datasets/corpus/script.py` has the tables and the
reasons), so that fusing pays by construction. It shows that a pipeline works and that its figures are honest;
it says nothing about accuracy on real people.

    affuse prepare synthetic --root demo

Writes `<root>/clips/*.mp4` and, last, `<root>/corpus.json`: the tables, the best accuracy they allow, and
what was really shown and said in each clip. No job reads the sentences: the manifest has no text, so that
the words have to be recognised. Folds `speaker`: unseen voices, unseen faces, unseen sentences.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from cluster import storage
from cluster.errors import ConfigError
from encoders.media import Source
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.datasets.corpus import script
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation, Row

MAX_CLIPS = 240
NUM_FOLDS = 4
EDITION = 2
"""Counts changes to what is filmed: clips of another edition are filmed anew."""

ABOUT = About(
    name="synthetic",
    licence="Apache-2.0",
    citation="None: it is made by this command.",
    download="nothing: its films are painted from a seed",
    layout=("data/demo/clips/*.mp4 are written below --root",),
    looked_for="nothing",
    groups="speakers",
    splits="folds speaker: four, of unseen voices, faces and sentences",
    command="affuse prepare synthetic --root data/demo",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """Painted faces and synthetic voices: 240 clips of acted emotion, made from a seed."""

    clips: int = MAX_CLIPS
    """Number of clips, at most 240."""

    processes: int = 2
    """Number of processes that render clips at the same time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(script.SPEAKERS) <= self.clips <= MAX_CLIPS:
            raise ConfigError(
                f"--clips {self.clips}: expected {len(script.SPEAKERS)} (one a speaker) to {MAX_CLIPS}"
            )
        if self.processes < 1:
            raise ConfigError(f"--processes {self.processes}: expected at least 1")
        if not storage.is_local(self.root):
            raise ConfigError(
                f"--root {self.root}: the synthetic corpus is filmed into a local folder"
            )

    def collect(self) -> Collected:
        """Render the clips that are missing, and describe all of them."""
        root = storage.absolute(self.root)
        lines = script.write(self.seed, self.clips)
        film_all(lines, root, seed=self.seed, processes=self.processes)
        print("\n".join(summary(lines)))
        fold_of = {speaker.name: n % NUM_FOLDS for n, speaker in enumerate(script.SPEAKERS)}
        return Collected(
            name="synthetic",
            licence=ABOUT.licence,
            tasks={"emotion": Task(kind="classification", classes=script.EMOTIONS)},
            rows=[_row(line, clip_uri(root, line)) for line in lines],
            folds={"speaker": {line.name: fold_of[line.speaker.name] for line in lines}},
        )


def clip_uri(root: str, line: script.ScriptLine) -> str:
    """Where the clip of a line lies."""
    return storage.join(root, "clips", f"{line.name}.mp4")


def film_all(lines: Sequence[script.ScriptLine], root: str, *, seed: int, processes: int) -> None:
    """Film every line that has no clip of this seed and edition yet; `corpus.json` is the commit."""
    facts = {"seed": seed, "edition": EDITION}
    record = layout.corpus_uri(root)
    kept = storage.read_json(record) if storage.exists(record) else {}
    same = {key: kept.get(key) for key in facts} == facts
    todo = [
        line for line in lines
        if not (same and line.name in kept["clips"] and storage.exists(clip_uri(root, line)))
    ]  # fmt: skip
    if not todo:
        print(f"synthetic: {len(lines)} clips of seed {seed} are there already")
        return
    storage.remove(record)
    os.makedirs(storage.join(root, "clips"), exist_ok=True)
    started = time.monotonic()
    shares = [todo[start::processes] for start in range(processes)]
    # Spawned, not forked: the parent may hold threads of PyAV, torch or Ray.
    context = multiprocessing.get_context("spawn")
    quiet = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=signal.signal, initargs=quiet
    ) as pool:
        jobs = [pool.submit(_film_share, share, root, seed) for share in shares if share]
        for job in jobs:
            job.result()
    storage.publish_json(facts | _truth(lines), record)
    took_s = time.monotonic() - started
    print(f"synthetic: filmed {len(todo)} clips in {took_s:.0f} s, seed {seed}")


def _film_share(lines: Sequence[script.ScriptLine], root: str, seed: int) -> None:
    from jobs.datasets.corpus.film import film
    from jobs.datasets.corpus.voice import Voice

    voice = Voice()
    for line in lines:
        final = clip_uri(root, line)
        film(line, voice=voice, seed=seed, to=f"{final}.tmp")
        os.replace(f"{final}.tmp", final)


def _truth(lines: Sequence[script.ScriptLine]) -> dict[str, Any]:
    """Content of `corpus.json`: the clips, and the tables that they were drawn from."""
    return {
        "ceilings": script.ceilings(),
        "tables": {
            "face": script.FACE,
            "voice": script.VOICE,
            "words": script.WORDS,
            "irony_share": script.IRONY_SHARE,
            "ironic_words": script.IRONIC_WORDS,
            "strength": script.STRENGTH,
        },
        "speakers": [asdict(speaker) for speaker in script.SPEAKERS],
        "clips": {
            line.name: {
                "emotion": line.emotion, "face": line.face, "voice": line.manner,
                "words": line.words, "sentence": line.sentence, "strength": line.strength,
                "best": script.posterior(line.face, line.manner, line.words),
            }
            for line in lines
        },
    }  # fmt: skip


def summary(lines: Sequence[script.ScriptLine]) -> list[str]:
    """The constants of the corpus as printed beside it."""
    rows = []
    for name, table in (("face", script.FACE), ("voice", script.VOICE), ("words", script.WORDS)):
        shares = ", ".join(f"{y} {table[y][y]:.2f}" for y in script.EMOTIONS)
        rows.append(f"  {name:<6} shows what is felt: {shares}")
    shares = ", ".join(f"{y} {share:.2f}" for y, share in script.IRONY_SHARE.items())
    ceilings = script.ceilings()
    best = ", ".join(f"{name} {value:.3f}" for name, value in ceilings.items())
    hits = sum(_best_guess(line) == line.emotion for line in lines)
    return [
        f"synthetic corpus: {len(lines)} clips, {len({line.speaker.name for line in lines})} speakers, "
        f"{len({line.sentence for line in lines})} sentences, {sum(line.ironic for line in lines)} ironic",
        *rows,
        f"  irony  (words mean their opposite): {shares}",
        f"  best accuracy the tables allow: {best}",
        f"  on these very clips the best reader gets {hits / len(lines):.3f}",
    ]


def _best_guess(line: script.ScriptLine) -> str:
    best = script.posterior(line.face, line.manner, line.words)
    return max(best, key=lambda y: best[y])


def _row(line: script.ScriptLine, uri: str) -> Row:
    return Row(
        name=line.name,
        video=Source(uri),
        audio=Source(uri),
        speaker=line.speaker.name,
        group=line.speaker.name,
        labels={"emotion": line.emotion},
    )

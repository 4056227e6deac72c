"""From nothing to a calibrated ensemble and its report, on a corpus that is made on the spot.

Reads:  nothing; the pretrained weights come through `affuse models`
Writes: <root>/  everything that a real project has: clips, manifest, features, runs, a bundle, a report

Laptop:   affuse demo
Another:  affuse demo --root demo1 --seed 1
Again:    affuse demo

Nothing is made twice. Every stage is an ordinary job; the line above each stage is the command that does the
same. Choices are fixed beforehand, none is made on the result. Held-out rows are of speakers, faces and
sentences that no net has trained on; the corpus is synthetic, so the figures say nothing about real people.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster import settings, storage
from cluster.errors import ConfigError
from cluster.session import SessionConfig, ray_session
from encoders.store import DEFAULT_STORE
from fusion.statistics import Difference
from jobs import encode, ensemble, evaluate, models, prepare, report, train
from jobs._evidence import with_bundle
from jobs._manifest import read_dataset
from jobs._people import groups_of
from jobs._predictions import held_out
from jobs._rates import Rates, corpus_rates
from jobs._results import Results, from_facts, gain, loss, member_lines
from jobs.datasets import synthetic

ENCODERS = ("minilm", "egemaps", "whisper_tiny_en", "face_expression")
TRANSCRIBER = "whisper_tiny_en_asr"
FACE, WORDS, VOICE = ("face_expression",), ("minilm",), ("egemaps", "whisper_tiny_en")
BUNDLE = "demo"

SMALL: Mapping[str, Any] = {"hidden": 64, "layers": 1}
NETS: Mapping[str, tuple[tuple[str, ...], str, Mapping[str, Any]]] = {
    "face": (FACE, "concat_mlp", SMALL),
    "voice": (VOICE, "concat_mlp", SMALL),
    "words": (WORDS, "concat_mlp", SMALL),
    "all-concat": ((*WORDS, *VOICE, *FACE), "concat_mlp", SMALL),
    "all-gated": ((*WORDS, *VOICE, *FACE), "gated", {"hidden": 64}),
    "all-lmf": ((*WORDS, "egemaps", *FACE), "lmf", {"recurrent": "", "hidden": 16}),
    "all-tfn": (
        (*WORDS, "egemaps", *FACE),
        "tfn",
        {"recurrent": "", "hidden": 16, "post_fusion": 32},
    ),
}
"""Run -> what it eats, its net and the net's options; one modality each, then all together."""

ALONE = ("face", "voice", "words")
"""The runs that read one modality."""

SHOWN = {"accuracy": "accuracy", "weighted_f1": "weighted F1", "ece": "ECE"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the demo goes and which corpus it makes."""

    root: str = "demo"
    """Local folder for everything."""

    seed: int = 0
    """Of the corpus."""

    clips: int = synthetic.MAX_CLIPS
    """How many clips are filmed, at most 240."""

    store: str = DEFAULT_STORE
    """Folder or bucket of the pretrained weights."""

    seeds: tuple[int, ...] = (0,)
    """Of the nets."""

    resamples: int = 2000
    """Bootstrap resamples of the speakers."""

    tracking: bool = True
    """Record the runs in MLflow."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """The Ray session."""

    def __post_init__(self) -> None:
        if not storage.is_local(self.root):
            raise ConfigError(f"--root {self.root}: the demo films into a local folder")


def main(config: Config) -> Results:
    """Every job in order, each of them only where something is missing; then the results."""
    started = time.monotonic()
    check_root(config)
    stages = Stages(config)
    with stages.session():
        for name, make in STAGES.items():
            stages.run(name, make(config))
    results = show(config)
    made = ", ".join(stages.made) or "nothing"
    print(f"demo: made {made}; {time.monotonic() - started:.0f} s")
    if not stages.made:
        print("demo: everything was there, nothing was recomputed")
    return results


def check_root(config: Config) -> None:
    """Refuse a folder that holds another corpus: its runs would not fit.

    Raises:
        ConfigError: naming what is there and what to type.
    """
    if not has_corpus(config.root):
        return
    there = storage.read_json(storage.join(config.root, "corpus.json"))
    found = (there["seed"], len(there["clips"]))
    if found != (config.seed, config.clips):
        raise ConfigError(
            f"{config.root} holds {found[1]} clips of seed {found[0]}, asked are {config.clips} of "
            f"seed {config.seed}; type another --root"
        )


Stage = tuple[str, Callable[[], object], Mapping[str, Any]]
"""The command that does the same, what is done here, and all that shapes the result."""


def stage_prepare(config: Config) -> Stage:
    """Film the corpus and list its clips."""
    job = synthetic.Config(root=config.root, seed=config.seed, clips=config.clips)
    facts = {**_facts(job), "edition": synthetic.EDITION}
    return f"prepare synthetic --root {config.root}", lambda: prepare.main(job), facts


def stage_models(config: Config) -> Stage:
    """Mirror the pretrained weights."""
    job = models.Config(encoders=(*ENCODERS, TRANSCRIBER), store=config.store)
    text = f"models --encoders {' '.join(job.encoders)}"
    return text, lambda: models.main(job), {"encoders": job.encoders, "store": config.store}


def stage_encode(config: Config) -> Stage:
    """Recognise the words and encode face, voice and words."""
    job = encode.Config(
        root=config.root, encoders=ENCODERS, transcriber=TRANSCRIBER, store=config.store,
        session=config.session,
    )  # fmt: skip
    text = (
        f"encode --root {config.root} --encoders {' '.join(ENCODERS)} --transcriber {TRANSCRIBER}"
    )
    return text, lambda: encode.main(job), {"encoders": ENCODERS, "transcriber": TRANSCRIBER}


def stage_train(config: Config) -> Stage:
    """One net for each modality, then nets that see all of them."""
    jobs = [training(config, run) for run in NETS]

    def every() -> None:
        for job in jobs:
            train.main(job)

    text = f"train --root {config.root} --run words --inputs minilm --folds speaker ...   (7 nets)"
    return text, every, {job.run or "": _facts(job) for job in jobs}


def training(config: Config, run: str) -> train.Config:
    """How one net of the demo is trained; the same for all of them."""
    inputs, net, options = NETS[run]
    return train.Config(
        root=config.root, run=run, inputs=inputs, net=net, net_options=dict(options), pool="mean",
        folds="speaker", seeds=config.seeds, epochs=60, patience=10, lr=2e-3, weight_decay=1e-2,
        tracking=config.tracking, session=config.session,
    )  # fmt: skip


def stage_ensemble(config: Config) -> Stage:
    """Fuse them all, cross-fitted over the speaker folds."""
    job = ensemble.Config(
        root=config.root, runs=tuple(NETS), name=BUNDLE, resamples=config.resamples
    )
    text = f"ensemble --root {config.root} --name {BUNDLE} --runs {' '.join(NETS)}"
    return text, lambda: ensemble.main(job), _facts(job)


def stage_evaluate(config: Config) -> Stage:
    """The honest figure: there is no test split, so it is the cross-fitted one."""
    job = evaluate.Config(root=config.root, bundle=BUNDLE)
    return f"evaluate --root {config.root} --bundle {BUNDLE}", lambda: evaluate.main(job), {}


def stage_report(config: Config) -> Stage:
    """Pictures and tables of all of it."""
    best = ceilings(config.root)["face+voice+words"] if has_corpus(config.root) else 1.0
    job = report.Config(
        root=config.root, bundle=BUNDLE, title="affuse demo: the synthetic corpus",
        limit=("best the corpus allows", best), resamples=config.resamples,
    )  # fmt: skip
    return f"report --root {config.root} --bundle {BUNDLE}", lambda: report.main(job), {}


STAGES: Mapping[str, Callable[[Config], Stage]] = {
    "prepare": stage_prepare,
    "models": stage_models,
    "encode": stage_encode,
    "train": stage_train,
    "ensemble": stage_ensemble,
    "evaluate": stage_evaluate,
    "report": stage_report,
}


class Stages:
    """Remembers in `demo.json` what has been made of what, so that nothing is made twice.

    The key of a stage is a hash of all that shapes its result and of the stage before it. Jobs skip what
    they have themselves; this also skips those that would look at every row again.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._record = storage.join(storage.absolute(config.root), "demo.json")
        self._kept = storage.read_json(self._record) if storage.exists(self._record) else {}
        self._key = ""
        self.made: list[str] = []

    def session(self) -> AbstractContextManager[None]:
        """One Ray session for all stages; none where encoding is done."""
        if "encode" in self._kept:
            return nullcontext()
        return ray_session(self._config.session)

    def run(self, name: str, stage: Stage) -> None:
        """Do one stage unless it was done with the same inputs."""
        command, do, facts = stage
        text = json.dumps([self._key, name, facts], sort_keys=True, default=str)
        self._key = hashlib.sha256(text.encode()).hexdigest()[:16]
        if self._kept.get(name) == self._key and self._is_there(name):
            print(f"{name}: nothing to do")
            return
        print(f"\n== affuse {command}", flush=True)
        start = time.monotonic()
        do()
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        self.made.append(name)
        self._kept[name] = self._key
        storage.publish_json(self._kept, self._record)

    def _is_there(self, name: str) -> bool:
        """Whether the last thing that a stage writes is still there."""
        outputs = {
            "prepare": "dataset.json",
            "train": f"runs/{[*NETS][-1]}/summary.json",
            "ensemble": f"bundles/{BUNDLE}/bundle.json",
            "report": f"reports/{BUNDLE}/report.html",
        }
        root = storage.absolute(self._config.root)
        return name not in outputs or storage.exists(storage.join(root, outputs[name]))


def _facts(job: Any) -> dict[str, Any]:
    """What of a job's config shapes its result."""
    plain = settings.to_mapping(job)
    return {k: v for k, v in plain.items() if k not in ("root", "session", "tracking", "workers")}


def has_corpus(root: str) -> bool:
    """Whether a corpus has been filmed."""
    return storage.exists(storage.join(root, "corpus.json"))


def ceilings(root: str) -> dict[str, float]:
    """The best accuracies that the tables of the corpus allow."""
    return dict(storage.read_json(storage.join(root, "corpus.json"))["ceilings"])


def show(config: Config) -> Results:
    """The results table, the rates of the pretrained models, the ceilings, and what to type next."""
    root = storage.absolute(config.root)
    results = from_facts(storage.read_json(storage.join(root, "bundles", BUNDLE, "results.json")))
    rates = corpus_rates(root, FACE[0], TRANSCRIBER)
    best, difference = gain_over_modalities(root, resamples=config.resamples)
    print()
    Console().print(table(results, read_dataset(root).name))
    print(
        f"the ensemble over {best}, the best single modality in hindsight: {difference.value:+.3f} "
        f"[{difference.low:+.3f}, {difference.high:+.3f}] accuracy, p = {difference.p_value:.3f}"
    )
    print(f"over the best of all its members: {results.verdict}")
    print("\n".join(closing(root, config, rates)))
    return results


def gain_over_modalities(root: str, *, resamples: int) -> tuple[str, Difference]:
    """How much the ensemble gains over the best net that reads one modality, paired by clip.

    Returns:
        Name of that net, and the difference of the accuracies; positive is better.
    """
    name, task = next(iter(read_dataset(root).tasks.items()))
    held = held_out(root, ALONE, name, task)
    held, fused = with_bundle(root, held, BUNDLE, name, task)
    alone = member_lines(held)
    best = min(alone, key=lambda line: loss("accuracy", task.kind, line.scores, held.target))
    pair = (fused["ensemble"], best.scores)
    people = groups_of(root, held.clip_id)
    return best.name, gain("accuracy", task.kind, pair, held.target, people, resamples, 0)


def table(results: Results, name: str) -> Table:
    """Every way to answer, with 95 % intervals over speakers."""
    shown = Table(
        title=f"{name}: {results.num_rows} clips out of fold, {results.num_groups} unseen speakers, "
        "95 % intervals over speakers"
    )
    shown.add_column("")
    for heading in SHOWN.values():
        shown.add_column(heading, justify="right")
    for row in results.rows:
        if row.role == "pool":
            continue
        cells = [
            f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
            for figure in (row.figures[metric] for metric in SHOWN)
        ]
        shown.add_row(row.name, *cells, style="bold" if row.role == "ensemble" else None)
    return shown


def closing(root: str, config: Config, rates: Rates) -> list[str]:
    """What the corpus allows, what the pretrained models read of it, and where to go on."""
    best = ", ".join(f"{name} {value:.3f}" for name, value in ceilings(root).items())
    return [
        f"best accuracy the corpus allows: {best}",
        *rates.lines(),
        "the corpus is synthetic: it shows that the pipeline works, not how well real people are read",
        f"report: {storage.join(root, 'reports', BUNDLE, 'report.html')}",
        f"your own video: affuse score clip.mp4 --root {config.root} --bundle {BUNDLE}",
    ]

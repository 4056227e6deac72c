"""Run all jobs in order on a synthetic corpus, up to a calibrated ensemble and its report.

Reads:  nothing; the pretrained weights come through `affuse models`
Writes: <root>/  everything that a real project has: clips, manifest, features, runs, a bundle, a report

Laptop:   affuse demo
Another:  affuse demo --root demo1 --seed 1
Again:    affuse demo

Nothing is made twice. Every stage is an ordinary job; the line above each stage is the command that does the
same. Choices are fixed beforehand, none is made on the result. Held-out rows are of speakers, faces and
sentences that no net has trained on; the corpus is synthetic, so the figures say nothing about real people.
"""

import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from cluster import settings, storage
from cluster.errors import ConfigError
from cluster.session import SessionConfig, ray_session
from cluster.settings import Place
from encoders.registry import describe
from encoders.store import DEFAULT_STORE
from jobs import encode, ensemble, evaluate, models, prepare, report, train, tune
from jobs.catalog import layout
from jobs.datasets import synthetic
from jobs.demonstration.stages import Stage, Stages
from jobs.demonstration.summary import ceilings, has_corpus, show
from jobs.evaluation.results_table import Results

ENCODERS = ("minilm", "egemaps", "whisper_tiny_en", "face_expression")
TRANSCRIBER = "whisper_tiny_en_asr"
FACE, WORDS, VOICE = ("face_expression",), ("minilm",), ("egemaps", "whisper_tiny_en")
BUNDLE = "demo"

SMALL: Mapping[str, Any] = {"hidden": 64, "layers": 1}
ALL = (*WORDS, *VOICE, *FACE)
NETS: Mapping[str, tuple[tuple[str, ...], str, Mapping[str, Any]]] = {
    "face": (FACE, "concat_mlp", SMALL),
    "voice": (VOICE, "concat_mlp", SMALL),
    "words": (WORDS, "concat_mlp", SMALL),
    "all-concat": (ALL, "concat_mlp", SMALL),
    "all-gated": (ALL, "gated", {"hidden": 64}),
    "all-lmf": ((*WORDS, "egemaps", *FACE), "lmf", {"recurrent": "", "hidden": 16}),
    "all-tfn": (
        (*WORDS, "egemaps", *FACE),
        "tfn",
        {"recurrent": "", "hidden": 16, "post_fusion": 32},
    ),
}
"""Run -> its inputs, its net and the net's options; one modality each, then all together."""

TUNED, TRIALS = "tuned", 12
TUNED_WITH = ("pool", "folds", "epochs", "patience", "lr", "weight_decay")
SPACE: Mapping[str, Any] = {
    "net": ["concat_mlp", "gated"],
    "inputs": [list(ALL), [*WORDS, "egemaps", *FACE]],
    "lr": {"log": [3e-4, 3e-3]},
    "weight_decay": {"log": [1e-3, 1e-1]},
    "feature_noise": [0.0, 0.3],
    "modality_dropout": [0.0, 0.2],
}
"""What the small search tries."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the demo is written, and which corpus it makes."""

    root: Place = "demo"
    """Local folder that receives everything."""

    seed: int = 0
    """Seed of the corpus."""

    clips: int = synthetic.MAX_CLIPS
    """Number of clips in the corpus, at most 240."""

    store: Place = DEFAULT_STORE
    """Folder or bucket of the pretrained weights."""

    seeds: tuple[int, ...] = (0,)
    """Seeds of the nets."""

    resamples: int = 2000
    """Number of bootstrap resamples of the speakers."""

    tracking: bool = True
    """Record the runs in MLflow."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """Ray session of the jobs."""

    def __post_init__(self) -> None:
        if not storage.is_local(self.root):
            raise ConfigError(f"--root {self.root}: the demo films into a local folder")


def main(config: Config) -> Results:
    """Run each job whose result is missing, in order; then print the results."""
    started = time.monotonic()
    check_root(config)
    stages = Stages(config.root, outputs(config.root))
    # One Ray session for all stages; none where everything that needs one is done.
    needs_ray = not {"encode", "tune"} <= stages.kept.keys()
    with ray_session(config.session) if needs_ray else nullcontext():
        for name, make in STAGES.items():
            stages.run(name, make(config))
    results = show(
        config.root,
        bundle=BUNDLE,
        face=FACE[0],
        transcriber=TRANSCRIBER,
        resamples=config.resamples,
    )
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
    there = storage.read_json(layout.corpus_uri(config.root))
    found = (there["seed"], len(there["clips"]))
    if found != (config.seed, config.clips):
        raise ConfigError(
            f"{config.root} holds {found[1]} clips of seed {found[0]}, asked are {config.clips} of "
            f"seed {config.seed}; type another --root"
        )


def stage_prepare(config: Config) -> Stage:
    """Film the corpus and list its clips."""
    job = synthetic.Config(root=config.root, seed=config.seed, clips=config.clips)
    facts = {**_facts(job), "edition": synthetic.EDITION}
    return f"prepare synthetic {place(config)}", lambda: prepare.main(job), facts


def place(config: Config) -> str:
    """The root as it is typed."""
    return f"--root {shlex.quote(config.root)}"


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
    text = f"encode {place(config)} --encoders {' '.join(ENCODERS)} --transcriber {TRANSCRIBER}"
    tables = [describe(name).folder for name in (*ENCODERS, TRANSCRIBER)]
    return text, lambda: encode.main(job), {"tables": tables}


def stage_train(config: Config) -> Stage:
    """Train one net for each modality, then nets that read all of them."""
    jobs = [training(config, run) for run in NETS]

    def every() -> None:
        try:
            for job in jobs:
                train.main(job)
        except ConfigError as error:  # runs of an earlier corpus or of other encoders
            raise ConfigError(f"{error}; or give the demo another --root") from error

    text = f"train {place(config)} --run words --inputs minilm --folds speaker ...   (7 nets)"
    return text, every, {job.run or "": _facts(job) for job in jobs}


def training(config: Config, run: str) -> train.Config:
    """How one net of the demo is trained; the same for all of them."""
    inputs, net, options = NETS[run]
    return train.Config(
        root=config.root, run=run, inputs=inputs, net=net, net_options=dict(options), pool="mean",
        folds="speaker", seeds=config.seeds, epochs=60, patience=10, lr=2e-3, weight_decay=1e-2,
        tracking=config.tracking, session=config.session,
    )  # fmt: skip


def stage_tune(config: Config) -> Stage:
    """A small search; what it finds is shown beside the ensemble but not fused: it chose on these rows."""
    space = storage.join(storage.absolute(config.root), layout.SPACE)
    base = settings.to_mapping(training(config, "all-concat"))
    fixed = {key: base[key] for key in TUNED_WITH}
    job = tune.Config(
        root=config.root, run=TUNED, space=space, trials=TRIALS, keep=1, ensemble=False,
        session=config.session, tracking=config.tracking, **{**fixed, "inputs": tuple(ALL)},
        seeds=config.seeds, refit=False,
    )  # fmt: skip

    def search() -> None:
        storage.publish_json(SPACE, space)
        tune.main(job)

    text = f"tune {place(config)} --run {TUNED} --space {space} --trials {TRIALS} --keep 1 ..."
    return text, search, {"space": SPACE, "trials": TRIALS, **fixed}


def stage_ensemble(config: Config) -> Stage:
    """Fuse them all, cross-fitted over the speaker folds."""
    job = ensemble.Config(
        root=config.root, runs=tuple(NETS), bundle=BUNDLE, resamples=config.resamples
    )
    text = f"ensemble {place(config)} --bundle {BUNDLE} --runs {' '.join(NETS)}"
    return text, lambda: ensemble.main(job), _facts(job)


def stage_evaluate(config: Config) -> Stage:
    """Evaluate the bundle; there is no test split, so the figure is the cross-fitted one."""
    job = evaluate.Config(root=config.root, bundle=BUNDLE)
    return (
        f"evaluate {place(config)} --bundle {BUNDLE}",
        lambda: evaluate.main(job),
        {},
    )


def stage_report(config: Config) -> Stage:
    """Write the report."""
    best = ceilings(config.root)["face+voice+words"] if has_corpus(config.root) else 1.0
    job = report.Config(
        root=config.root, runs=(*NETS, *tuned_runs(config.root)), bundle=BUNDLE,
        title="affuse demo: the synthetic corpus",
        limit=("best the corpus allows", best), resamples=config.resamples,
    )  # fmt: skip
    return (
        f"report {place(config)} --bundle {BUNDLE}",
        lambda: report.main(job),
        {},
    )


def tuned_runs(root: str) -> list[str]:
    """The runs that the search kept."""
    summary = layout.run_uri(root, TUNED, layout.SUMMARY)
    found = storage.read_json(summary)["members"] if storage.exists(summary) else []
    return [member["run"] for member in found]


STAGES: Mapping[str, Callable[[Config], Stage]] = {
    "prepare": stage_prepare,
    "models": stage_models,
    "encode": stage_encode,
    "train": stage_train,
    "tune": stage_tune,
    "ensemble": stage_ensemble,
    "evaluate": stage_evaluate,
    "report": stage_report,
}


def outputs(root: str) -> dict[str, str]:
    """The last thing that a stage writes."""
    return {
        "prepare": layout.dataset_uri(root),
        "train": layout.run_uri(root, [*NETS][-1], layout.SUMMARY),
        "tune": layout.run_uri(root, TUNED, layout.SUMMARY),
        "ensemble": layout.bundle_uri(root, BUNDLE, layout.BUNDLE),
        "report": layout.report_uri(root, BUNDLE, layout.REPORT),
    }


def _facts(job: Any) -> dict[str, Any]:
    """The fields of a config that shape its result."""
    plain = settings.to_mapping(job)
    return {k: v for k, v in plain.items() if k not in ("root", "session", "tracking", "workers")}

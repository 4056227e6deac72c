"""Where everything lies below the root of a dataset, a folder or a URI; no other file joins these names.

    dataset.json                              the present manifest, its tasks and profile fields
    manifest/<hash>/                          part-NNNNN.parquet, config.json of `prepare`
    units/<hash>.parquet                      where each unit of that manifest stands
    folds/<name>.parquet                      clip -> fold
    probes/, probes.parquet                   lengths of media files, while they are looked at and after
    shards/                                   <hash>.tar of small files, index.parquet
    features/<encoder>-<fingerprint>/         descriptor.json, one file a unit or a few gathered ones
    transcripts/<transcriber>-<fingerprint>/  likewise
    former/<features or transcripts>/         rows of units that have left the manifest
    encodings/<hash>/                         config.json and summary.json of `encode`
    runs/<run>/                               config.json, identity.json, tasks.json, summary.json and others
        fold=K/seed=S/, refit/seed=S/         the net, history.jsonl, predictions.parquet, checkpoint.pt
        trials/                               records and logs of a search
    searches/<hash>/                          judged candidates of late fusion
    answers/<model>-<hash>/                   what a large model answered, by what it was asked
    bundles/<name>/                           bundle.json, nets/<run>/seed=S/, results.json and others
    comparisons/<name>/, evaluations/<name>/  results.json and tables
    looks/, leaks/                            who opened the test split, what leaks into it
    scores/<name>/                            bundle.json (made with), descriptor.json, one file a unit
    explanations/<bundle>/                    values.parquet, rests_on.json
    reports/<name>/                           report.html, its pictures and tables
    reproduce/                                <preset>.md and .json: published tables made again

Every function takes the names below the place that it gives: `run_uri(root, run, SUMMARY)`.
"""

from typing import Literal

from cluster import storage

CONFIG = "config.json"
"""Resolved config of what lies beside it."""

SUMMARY = "summary.json"
"""What a run came to, written last."""

IDENTITY = "identity.json"
"""What a run is recognised by when it is started again."""

TASKS = "tasks.json"
"""What a run predicts: its tasks with their classes, as they were when it took its name."""

HISTORY = "history.jsonl"
TRIALS = "trials.parquet"
SPACE = "space.json"
EARLIER = "earlier.json"
IMPORTANCE = "importance.json"
PREDICTIONS = "predictions.parquet"
"""Of a run; of a bundle the cross-fitted scores of what ships."""

FUSED = "fused.parquet"
"""Cross-fitted scores of a bundle's fusion, which ships or does not."""

COVERED = "covered.parquet"
"""Whether the answers of a bundle hold the truth for people left out, and how large they are."""

RESULTS = "results.json"
OUTLOOK = "outlook.json"
"""Beside scores: what accuracy to expect."""

BUNDLE = "bundle.json"
"""Commit of a bundle; in a folder of scores the claim of what they are made with."""

MODEL_CARD = "MODEL_CARD.md"
"""What a bundle is made of, how it was judged, and what it may be used for."""

DESCRIPTOR = "descriptor.json"
"""What the rows of a table of features, transcripts or scores depend on."""

WEIGHTS = "model.safetensors"
CARD = "model.json"
"""How a net is built and fed."""

RAY_STATE = ".ray"
"""What Ray keeps of a run or a search while it goes on."""

CHECKPOINT = "checkpoint.pt"
"""The state from which training resumes."""

ASKED = "asked.json"
"""What a run is that a large model answered: it has predictions and no nets."""

ANSWERS = "pretrained_answers.json"
"""What a run is whose scores are a side column of a feature table: it has nets that nobody trained."""

REFIT = "refit"
"""Folder of a run's nets that train on all rows."""

INDEX = "index.parquet"
"""Which file lies where in which shard."""

VALUES = "values.parquet"
"""What each modality and member adds to the answer for each clip."""

RESTS_ON = "rests_on.json"
"""What the answers of a bundle rest on over its held-out rows."""

REPORT = "report.html"
STAGES = "demo.json"
"""What the demo has made of what."""

TableKind = Literal["features", "transcripts"]


def dataset_uri(root: str) -> str:
    """The facts of a dataset; written last by `prepare`."""
    return storage.join(root, "dataset.json")


def corpus_uri(root: str) -> str:
    """What the synthetic corpus was filmed of."""
    return storage.join(root, "corpus.json")


def manifest_uri(root: str, digest: str, *inside: str) -> str:
    """Folder of a manifest."""
    return storage.join(root, "manifest", digest, *inside)


def units_uri(root: str, digest: str) -> str:
    """File of the units of a manifest."""
    return storage.join(root, "units", f"{digest}.parquet")


def folds_uri(root: str, name: str) -> str:
    """File of a set of folds."""
    return storage.join(root, "folds", f"{name}.parquet")


def folds_there(root: str) -> list[str]:
    """Names of the sets of folds."""
    files = storage.names(storage.join(root, "folds"), ".parquet")
    return [file.removesuffix(".parquet") for file in files]


def probes_uri(root: str) -> str:
    """File of all probes of media files."""
    return storage.join(root, "probes.parquet")


def probe_pieces_uri(root: str, *inside: str) -> str:
    """Folder of probes while `prepare` runs."""
    return storage.join(root, "probes", *inside)


def checks_uri(root: str, *inside: str) -> str:
    """Folder of what the checks of the data found."""
    return storage.join(root, "checks", *inside)


def shards_uri(root: str, *inside: str) -> str:
    """Folder of the tars that small files are packed into."""
    return storage.join(root, "shards", *inside)


def tables_uri(root: str, kind: TableKind, *inside: str) -> str:
    """Folder of all tables of a kind, or of one."""
    return storage.join(root, kind, *inside)


def features_uri(root: str, *inside: str) -> str:
    """Folder of all features, or of one encoder's."""
    return tables_uri(root, "features", *inside)


def transcripts_uri(root: str, *inside: str) -> str:
    """Folder of all transcripts, or of one transcriber's."""
    return tables_uri(root, "transcripts", *inside)


def former_uri(table_uri: str) -> str:
    """Where the rows of versions that left the manifest are kept, of `<root>/<kind>/<folder>`."""
    root, kind, folder = table_uri.rstrip("/").rsplit("/", 2)
    return storage.join(root, "former", kind, folder)


def former_there(root: str) -> list[str]:
    """Folders that keep such rows."""
    base = storage.join(root, "former")
    kinds = [storage.join(base, kind) for kind in storage.names(base)]
    return [storage.join(kind, table) for kind in kinds for table in storage.names(kind)]


def encodings_uri(root: str, *inside: str) -> str:
    """Folder of the records of `encode`."""
    return storage.join(root, "encodings", *inside)


def run_uri(root: str, run: str, *inside: str) -> str:
    """Folder of a run."""
    return storage.join(root, "runs", run, *inside)


def runs_there(root: str) -> list[str]:
    """Names of the runs that have a folder."""
    return storage.names(storage.join(root, "runs"))


def part_uri(root: str, run: str, fold: int | None, seed: int, *inside: str) -> str:
    """Folder of one net of a run; fold None: the refit on all rows."""
    part = REFIT if fold is None else f"fold={fold}"
    return run_uri(root, run, part, seed_folder(seed), *inside)


def seed_folder(seed: int) -> str:
    """Name of the folder of a seed."""
    return f"seed={seed}"


def trials_uri(root: str, run: str, *inside: str) -> str:
    """Folder of the records of a search, a file a trial."""
    return run_uri(root, run, "trials", *inside)


def search_uri(root: str, identity: str) -> str:
    """Folder of evaluated candidates of late fusion."""
    return storage.join(root, "searches", identity)


def answers_uri(root: str, model: str) -> str:
    """Folder of a large model's answers."""
    return storage.join(root, "answers", model)


def bundle_uri(root: str, name: str, *inside: str) -> str:
    """Folder of a bundle."""
    return storage.join(root, "bundles", name, *inside)


def bundles_there(root: str) -> list[str]:
    """Names of the bundles that have a folder."""
    return storage.names(storage.join(root, "bundles"))


def nets_uri(bundle: str, run: str, *inside: str) -> str:
    """Folder of a run's nets in the folder of a bundle."""
    return storage.join(bundle, "nets", run, *inside)


def comparison_uri(root: str, name: str, *inside: str) -> str:
    """Folder of a comparison."""
    return storage.join(root, "comparisons", name, *inside)


def evaluation_uri(root: str, name: str, *inside: str) -> str:
    """Folder of an evaluation on the test split."""
    return storage.join(root, "evaluations", name, *inside)


def looks_uri(root: str, *inside: str) -> str:
    """Folder of the looks at the test split, a file a look."""
    return storage.join(root, "looks", *inside)


def leaks_uri(root: str, *inside: str) -> str:
    """Folder of the reports of leak probes."""
    return storage.join(root, "leaks", *inside)


def scores_uri(root: str, name: str, *inside: str) -> str:
    """Folder of scores."""
    return storage.join(root, "scores", name, *inside)


def group_scores_uri(root: str, name: str, per: str) -> str:
    """The table of scores by dialogue, speaker or file."""
    return scores_uri(root, name, "groups", f"{per}.parquet")


def scores_there(root: str) -> list[str]:
    """Names of the scores that have a folder."""
    return storage.names(storage.join(root, "scores"))


def explanation_uri(root: str, name: str, *inside: str) -> str:
    """Folder of what the answers of a bundle rest on."""
    return storage.join(root, "explanations", name, *inside)


def report_uri(root: str, name: str, *inside: str) -> str:
    """Folder of a report."""
    return storage.join(root, "reports", name, *inside)


def reproduce_uri(root: str, *inside: str) -> str:
    """Folder of published tables that were made again."""
    return storage.join(root, "reproduce", *inside)


def root_of_net(folder: str) -> str:
    """The root below which the net of a run or a bundle lies."""
    place = "/bundles/" if "/bundles/" in folder else "/runs/"
    return folder.rpartition(place)[0]

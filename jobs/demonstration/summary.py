"""The last screen of the demo: results with baselines, rates, ceilings, and the next commands."""

import shlex

from cluster import console, storage
from cluster.console import Table
from fusion.late.members import answered
from fusion.statistics import Difference
from jobs.catalog import layout
from jobs.catalog.groups import groups_of
from jobs.catalog.judged_files import judged_file
from jobs.catalog.manifest import read_dataset
from jobs.catalog.predictions import held_out
from jobs.demonstration.corpus_rates import Rates, corpus_rates
from jobs.evaluation.bundle_scores import with_bundle
from jobs.evaluation.cross_fitting import priors
from jobs.evaluation.judging import Judging
from jobs.evaluation.results_table import (
    Results,
    best_member,
    caption,
    from_facts,
    member_lines,
    with_answers,
)

ALONE = ("face", "voice", "words")
"""The runs that read one modality."""

SHOWN = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE"}


def has_corpus(root: str) -> bool:
    """Whether a corpus has been filmed."""
    return storage.exists(layout.corpus_uri(root))


def ceilings(root: str) -> dict[str, float]:
    """The best accuracies that the tables of the corpus allow."""
    return dict(storage.read_json(layout.corpus_uri(root))["ceilings"])


def show(root: str, *, bundle: str, face: str, transcriber: str, resamples: int) -> Results:
    """Print the results table, the rates of the pretrained models, the ceilings, and the next commands."""
    where = judged_file(layout.bundle_uri(root, bundle), layout.RESULTS)
    results = from_facts(storage.read_json(where))
    rates = corpus_rates(root, face, transcriber)
    best, difference = gain_over_modalities(root, bundle, resamples=resamples)
    print()
    console.show(table(results, read_dataset(root).name))
    print(
        f"what ships over {best}, the best single modality in hindsight: {difference} "
        f"accuracy, p = {difference.p_value:.3f}"
    )
    print(f"the ensemble over the best of all its members: {results.verdict}")
    print("\n".join(results.claims[1:]))
    print("\n".join(closing(root, bundle, rates)))
    return results


def gain_over_modalities(root: str, bundle: str, *, resamples: int) -> tuple[str, Difference]:
    """How much what ships gains over the best net that reads one modality, paired by clip.

    Returns:
        Name of that net, and the difference of the accuracies; positive is better.
    """
    name, task = next(iter(read_dataset(root).tasks.items()))
    held = held_out(root, ALONE, name, task)
    held, said = with_bundle(root, held, bundle, name, task)
    guess = priors(held, held.fold)
    people = groups_of(root, held.clip_id)
    judging = Judging(task=task, target=held.target, groups=people, resamples=resamples, seed=0)
    best = best_member(with_answers(member_lines(held), guess), judging)
    return best.name, judging.gain(answered(said.scores["shipped"], guess), best.scores)


def table(results: Results, name: str) -> Table:
    """All lines of the results, with 95 % intervals over speakers."""
    shown = Table(title=f"{name}, out of fold, groups are speakers: {caption(results)}")
    shown.add_column("")
    shown.add_column("n", justify="right")
    for heading in SHOWN.values():
        shown.add_column(heading, justify="right")
    for row in results.rows:
        if row.role == "pool":
            continue
        cells = [
            f"{figure.value:.3f}\n[{figure.low:.2f}, {figure.high:.2f}]"
            for figure in (row.figures[metric] for metric in SHOWN)
        ]
        shown.add_row(row.name, str(row.n), *cells, style="bold" if row in results.strong else None)
    return shown


def closing(root: str, bundle: str, rates: Rates) -> list[str]:
    """Lines on the ceilings of the corpus, the rates of the pretrained models, and the next commands."""
    best = ", ".join(f"{name} {value:.3f}" for name, value in ceilings(root).items())
    return [
        f"best accuracy the corpus allows: {best}",
        *rates.lines(),
        "the corpus is synthetic: it shows that the pipeline works, not how accurate it is on real people",
        f"report: {layout.report_uri(root, bundle, layout.REPORT)}",
        f"your own video: affuse score clip.mp4 --bundle {shlex.quote(layout.bundle_uri(root, bundle))}",
    ]
